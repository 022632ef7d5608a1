"""The models that are here, and how one comes here: whole and checked, or not at all.

Pulled models lie in a folder each, side by side. A source is a model folder, an archive of one, or the address of
such an archive; there is no registry, and nothing is fetched unless it is asked for.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

from edgelm.errors import ModelFileError
from edgelm.model import hub, tensorfile
from edgelm.model.archive import LARGEST, MAX_BYTES, NAMES, check_sizes, chunks_of, save, unpack
from edgelm.model.conversion import convert
from edgelm.model.state import state_bytes
from edgelm.model.weights import count_parameters

Fetch = Callable[[str], Iterable[bytes]]
Check = Callable[[Path], list[str]]
_ROOM = ".pull-"
"""How the folders begin in which models are checked before they are here."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def check_name(name: str) -> None:
    """Raises a ``ModelFileError`` unless ``name`` may be that of a model's folder."""
    if not _NAME.fullmatch(name):
        raise ModelFileError(f"model name {name!r} must be letters, digits, '.', '_' or '-', at most 64; use --name")


def folders(pulled: Path) -> dict[str, Path]:
    """Every model here by its name: the bundled ones, then those in the folder ``pulled``."""
    here = {name: hub.BUNDLED / name for name in hub.available()}
    found = sorted(path.parent for path in pulled.glob(f"*/{hub.MANIFEST}"))
    return here | {path.name: path for path in found if _NAME.fullmatch(path.name) and path.name not in here}


def summary(folder: Path, pulled: Path) -> dict[str, Any]:
    """What a model is, from its configuration and the heads of its files; no tensor is read.

    Returns
    -------
    dict
        ``name``; ``where``: bundled, pulled (it lies in the folder ``pulled``) or elsewhere; ``folder, parameters,
        bytes, precision, default``.

    Raises
    ------
    ModelFileError
        The configuration or the file of the weights cannot be read.
    """
    manifest = hub.read_manifest(folder)
    where = {hub.BUNDLED: "bundled", pulled: "pulled"}.get(folder.parent, "elsewhere")
    kinds = {name.rpartition(".")[2] for name in tensorfile.TensorFile(folder / hub.WEIGHTS)}
    return {
        "name": manifest.name,
        "where": where,
        "folder": str(folder),
        "parameters": count_parameters(manifest.config),
        "bytes": sum(path.stat().st_size for path in _files(folder)),
        "precision": "int4" if "zero" in kinds else "int8" if "q" in kinds else "float32",
        "default": folder == hub.BUNDLED / hub.DEFAULT,
    }


def details(folder: Path, pulled: Path) -> dict[str, Any]:
    """``summary``, and what the configuration, the card and the files say besides."""
    manifest = hub.read_manifest(folder)
    config = manifest.config
    return summary(folder, pulled) | {
        "sha256": manifest.sha256,
        "shape": config.to_dict(),
        "awake_cap": round(config.max_awake / config.n_blocks, 4) if config.n_blocks else None,
        "state_bytes": state_bytes(config),
        "tokens_trained": manifest.card.get("tokens"),
        "training_seconds": manifest.card.get("training_seconds"),
        "files": [{"name": p.name, "bytes": p.stat().st_size, "sha256": digest(p)} for p in _files(folder)],
    }


def _files(folder: Path) -> list[Path]:
    return [folder / name for name in NAMES if (folder / name).is_file()]


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Source:
    """Where a model is to come from.

    Attributes
    ----------
    place : str
        A model folder, a ``.tar``, ``.tar.gz`` or ``.zip`` of one, or an http(s) address of such an archive.
    sha256 : str or None
        What the SHA-256 of the archive must be; of a folder, that of its ``config.json``, which holds the others.
    fetch : callable
        Gives the bytes that lie at an address, in pieces.
    """

    place: str
    sha256: str | None
    fetch: Fetch


def pull(source: Source, pulled: Path, check: Check, name: str | None = None) -> tuple[Path, bool]:
    """Puts a model into the folder ``pulled``, in one step and only if nothing is wrong with it.

    One in an older file format is converted to that of today, and stays the model that it is.

    Parameters
    ----------
    source : Source
    pulled : Path
        Made if it is not there yet.
    check : callable
        Says of a model folder what is wrong with it.
    name : str, optional
        Default: the model's own.

    Returns
    -------
    tuple
        The model's folder; whether it is new. It is not if the same model was there by this name.

    Raises
    ------
    ModelFileError
        There is no model at the source, something is wrong with it, the name is taken or no name, or the folder
        cannot be written. Nothing is left behind.
    """
    if name is not None:
        check_name(name)
    with _room(pulled) as room:
        staged = _staged(source, room, check)
        manifest = hub.read_manifest(staged)
        name = name or manifest.name
        check_name(name)
        target = folders(pulled).get(name, pulled / name)
        if target.is_symlink() or target.exists():
            _check_same(target, manifest)
            return target, False
        for path in staged.iterdir():
            _sync(path)
        tensorfile.sync_folder(staged)
        os.replace(staged, target)
        tensorfile.sync_folder(pulled)
    return target, True


def _staged(source: Source, room: Path, check: Check) -> Path:
    """The folder in which the model lies, checked and in the file format of today."""
    staged, converted = room / "model", room / "converted"
    staged.mkdir()
    try:
        _bring(source, room, staged)
        check_sizes(staged)
        problems = check(staged)
    except ModelFileError as exc:
        problems = [str(exc)]
    if problems:
        raise ModelFileError(f"{source.place}: {problems[0].replace(f'{staged}{os.sep}', '')}")
    if hub.read_manifest(staged).file_format == hub.FORMAT:
        return staged
    convert(staged, converted)
    return converted


def put(pulled: Path, name: str, build: Callable[[Path], None]) -> Path:
    """A model folder that ``build`` fills, moved into its place in one step; if that raises, nothing is left.

    Raises
    ------
    ModelFileError
        The folder cannot be written.
    """
    with _room(pulled) as room:
        staged = room / "model"
        staged.mkdir()
        build(staged)
        for path in staged.iterdir():
            _sync(path)
        tensorfile.sync_folder(staged)
        os.replace(staged, pulled / name)
        tensorfile.sync_folder(pulled)
    return pulled / name


@contextmanager
def _room(pulled: Path) -> Iterator[Path]:
    """A folder beside the models that vanishes, and with it all folders made for it that nothing came into."""
    made = [path for path in (pulled, *pulled.parents) if not path.exists()]
    try:
        pulled.mkdir(parents=True, exist_ok=True)
        _sweep(pulled)
        with _own_folder(pulled) as room:
            yield room
    except OSError as exc:
        raise ModelFileError(
            f"{pulled}: cannot be written ({exc.strerror or exc}); set EDGELM_HOME to another place"
        ) from None
    finally:
        for path in made:
            with suppress(OSError):
                path.rmdir()


@contextmanager
def _own_folder(pulled: Path) -> Iterator[Path]:
    """A new folder, locked as long as it is there."""
    while True:
        room = Path(tempfile.mkdtemp(dir=pulled, prefix=_ROOM))
        handle = _lock(room)
        if handle is not None:
            break  # else another process has found it before it was locked, and removes it
    try:
        yield room
    finally:
        shutil.rmtree(room, ignore_errors=True)
        os.close(handle)


def _sweep(pulled: Path) -> None:
    """Removes what pulls left here that were killed; who still pulls holds a lock."""
    for room in pulled.glob(f"{_ROOM}*"):
        with suppress(OSError):  # somebody else's, or no folder
            handle = _lock(room)
            if handle is not None:
                shutil.rmtree(room, ignore_errors=True)
                os.close(handle)


def _lock(folder: Path) -> int | None:
    """The lock of a folder, which ends with the process at the latest; nothing, if it is taken or the folder gone."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if folder.is_dir():
            return handle
    except BlockingIOError:
        pass
    except OSError:
        os.close(handle)
        raise
    os.close(handle)
    return None


def _bring(source: Source, room: Path, staged: Path) -> None:
    """The model's files, not checked yet."""
    place = Path(os.path.expanduser(source.place))  # noqa: PTH111
    if source.place.lower().startswith(("http://", "https://")):
        save(source.fetch(source.place), room / "archive")
        place = room / "archive"
    try:
        files, is_file = _files(place) if place.is_dir() else [], place.is_file()
    except OSError as exc:
        raise ModelFileError(f"cannot be read ({exc.strerror})") from None
    if is_file:
        # Opened once: what was hashed is what is unpacked.
        with _opened(place) as file:
            if (size := os.fstat(file.fileno()).st_size) > MAX_BYTES:
                raise ModelFileError(f"{size:,} bytes, larger than a model for this runtime; get another")
            _check_digest(source, file, "the archive")
            unpack(file, staged)
    elif files:
        for path in files:
            with _opened(path) as file:
                save(chunks_of(file), staged / path.name, LARGEST[path.name])
        if not (staged / hub.MANIFEST).exists():
            raise ModelFileError(f"a folder without a {hub.MANIFEST}; give the folder of a model")
        with _opened(staged / hub.MANIFEST) as file:
            _check_digest(source, file, f"its {hub.MANIFEST}")
    else:
        raise ModelFileError("neither a model folder nor a file, nor an http(s) address; give one of these")


def _opened(path: Path) -> BufferedReader:
    try:
        return path.open("rb")
    except OSError as exc:
        raise ModelFileError(f"{path.name}: cannot be read ({exc.strerror})") from None


def _check_digest(source: Source, file: BufferedReader, what: str) -> None:
    if source.sha256 is None:
        return
    found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != source.sha256.lower():
        raise ModelFileError(f"the SHA-256 of {what} is {found}, not the one given; get it elsewhere, or correct that")


def _check_same(target: Path, manifest: hub.Manifest) -> None:
    """Raises unless the folder holds the model of the manifest, undamaged."""
    advice = f"choose another --name, or remove {target}"
    try:
        here = hub.read_manifest(target)
        problems = list(hub.damaged(target, here))
    except ModelFileError as exc:
        raise ModelFileError(f"a model of this name is here but damaged: {exc}; {advice}") from None
    if problems:
        raise ModelFileError(f"a model of this name is here but damaged: {problems[0]}; {advice}")
    # The weights are named by the identity, whatever the format of their file is.
    if here.sha256 != manifest.sha256 or here.digest(hub.SCALES) != manifest.digest(hub.SCALES):
        raise ModelFileError(f"another model is called {target.name!r} here; {advice}")


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
