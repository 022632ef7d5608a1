"""The folder that profiles lie in: their names, their files, and who holds one."""

from __future__ import annotations

import fcntl
import re
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
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (folder / f".{name}.lock").open("ab")
    except OSError as exc:
        raise ProfileError(f"{folder}: cannot be written ({exc.strerror}); set EDGELM_HOME or use --no-learn") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise ProfileError(f"profile {name!r} is in use by another edgelm; close it or use --profile") from None
    return lock
