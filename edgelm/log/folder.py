"""The folder that profiles lie in: their names, their files, who may write them and who holds one."""

from __future__ import annotations

import fcntl
import os
import re
import stat
from contextlib import suppress
from pathlib import Path
from typing import IO

from edgelm.errors import ProfileError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def check_name(name: str) -> None:
    """Raises a ``ProfileError`` unless ``name`` may be a file's."""
    if not _NAME.fullmatch(name):
        raise ProfileError(f"profile name {name!r} must be letters, digits, '.', '_' or '-', at most 64")


def files_of(folder: Path, name: str) -> list[Path]:
    """The files of a profile, and of no other whose name begins like it."""
    database, weights = rf"{re.escape(name)}\.db", rf"{re.escape(name)}\.weights-\d+\.safetensors"
    own = re.compile(rf"\.?{database}(\.new)?(-wal|-shm|-journal)?|{weights}|\.{weights}\.\w{{8}}")
    return [path for path in sorted(folder.glob(f"*{name}.*")) if own.fullmatch(path.name)]


def hold(folder: Path, name: str) -> IO[bytes]:
    """The lock of a profile; closing it lets others write."""
    path = folder / f".{name}.lock"
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "r+b", buffering=0)
        except OSError as exc:
            why = exc.strerror
            raise ProfileError(f"{folder}: cannot be written ({why}); set EDGELM_HOME or use --no-learn") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(path, lock):
                return lock
        except BlockingIOError:
            lock.close()
            raise ProfileError(f"profile {name!r} is in use by another edgelm; close it or use --profile") from None
        except OSError as exc:
            lock.close()
            raise ProfileError(f"{path}: cannot be locked ({exc.strerror}); set EDGELM_HOME") from None
        # It was removed together with its profile after it was opened: whoever comes now locks another file.
        lock.close()


def _is_at(path: Path, file: IO[bytes]) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    return False


def remove_files(folder: Path, name: str) -> None:
    """Removes a profile that the caller holds; the lock goes last, and nothing may be done under it afterwards."""
    for path in [*files_of(folder, name), folder / f".{name}.lock"]:
        path.unlink(missing_ok=True)


def keep_private(folder: Path, name: str, *, repair: bool) -> str:
    """Looks whether anybody else can write a profile; returns what is to be said about it.

    Parameters
    ----------
    folder : Path
    name : str
        Of the profile.
    repair : bool
        Takes the right to write from others. Who only reads changes nothing.

    Raises
    ------
    ProfileError
        It belongs to another user, or only another user can take that right away.
    """
    opened = _opened_up(folder, repair)
    found = [folder.name] if opened else []
    found += [path.name for path in files_of(folder, name) if _opened_up(path, repair)]
    if not found:
        return ""
    names = ", ".join(found)
    if repair:
        return f"other users could write {names} (in {folder.parent if opened else folder}); now you alone can"
    return f"other users can write {names}; see that you alone can: chmod go-w {folder} {folder / name}.*"


def _opened_up(path: Path, repair: bool) -> bool:
    """Whether others could write a file or a folder."""
    try:
        owners, mode = {path.lstat().st_uid, path.stat().st_uid}, path.stat().st_mode
    except FileNotFoundError:
        return False
    if foreign := owners - {0, os.geteuid()}:
        whose = f"belongs to another user (uid {min(foreign)})"
        raise ProfileError(f"{path}: {whose}; copy it to a folder of your own, or set EDGELM_HOME")
    # In a folder such as /tmp each removes and renames only what is their own.
    if not mode & 0o022 or (stat.S_ISDIR(mode) and mode & stat.S_ISVTX):
        return False
    if os.geteuid() not in owners:
        raise ProfileError(f"{path}: other users can write it, and it is not yours; set EDGELM_HOME to another folder")
    if repair:
        with suppress(OSError):  # a disk without such rights, as of a memory card
            path.chmod(0o700 if stat.S_ISDIR(mode) else 0o600)
    return True
