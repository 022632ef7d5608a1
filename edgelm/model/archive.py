"""Takes a model out of an archive that anybody may have made: its files by their known names, and nothing else."""

from __future__ import annotations

import gzip
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, cast

from edgelm.errors import ModelFileError
from edgelm.model.hub import CARD, FILES, INTEGER_GRAPH, MANIFEST

NAMES = (MANIFEST, *FILES, INTEGER_GRAPH, CARD)
MAX_BYTES = 512 << 20
"""Largest archive, and largest model in one: it would not run on a small device."""
_MAX_MEMBERS = 4 * len(NAMES)
_CHUNK = 1 << 16
# RuntimeError: a zip file that is encrypted, or packed by a method that zipfile does not know.
_DAMAGES = (
    tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError, RuntimeError, ValueError,
)  # fmt: skip


def unpack(archive: Path, folder: Path) -> None:
    """Writes the model that a ``.tar``, ``.tar.gz`` or ``.zip`` holds into an empty folder.

    The files lie at the top of the archive, or in one folder of it. No path of the archive is ever used: a member
    is written under the known name that it bears.

    Raises
    ------
    ModelFileError
        It is damaged or larger than ``MAX_BYTES``, or holds a link, a path that leads elsewhere, a file twice or
        any other file.
    """
    tops: set[str] = set()
    room = MAX_BYTES
    try:
        with archive.open("rb") as file:
            for name, stream in _members(file):
                top, _, known = name.removeprefix("./").rpartition("/")
                tops.add(top)
                if name.startswith("/") or "/" in top or top in (".", "..") or known not in NAMES or len(tops) > 1:
                    raise ModelFileError(
                        f"the archive holds {name!r}; it may hold {', '.join(NAMES)}, in one folder or none, alone"
                    )
                if (folder / known).exists():
                    raise ModelFileError(f"the archive holds {name!r} twice; get the model again")
                room -= save(_chunks(stream), folder / known, room)
    except _DAMAGES as exc:
        raise ModelFileError(f"no tar, tar.gz or zip archive, or damaged ({exc}); get it again") from None


def save(chunks: Iterable[bytes], path: Path, room: int = MAX_BYTES) -> int:
    """Writes ``chunks`` to a new file of ``room`` bytes at most; returns its bytes.

    Raises
    ------
    ModelFileError
        There are more.
    """
    size = 0
    with path.open("xb") as file:
        for chunk in chunks:
            size += len(chunk)
            if size > room:
                raise ModelFileError(f"larger than {MAX_BYTES >> 20} MiB, more than a model for this runtime can be")
            file.write(chunk)
    return size


def _chunks(stream: IO[bytes]) -> Iterator[bytes]:
    while chunk := stream.read(_CHUNK):
        yield chunk


def _members(file: IO[bytes]) -> Iterator[tuple[str, IO[bytes]]]:
    """Names and contents of the plain files, in order; each is to be read before the next is asked for."""
    magic = file.read(2)
    file.seek(0)
    if magic == b"PK":
        yield from _zip_members(file)
    elif magic == b"\x1f\x8b":
        with gzip.GzipFile(fileobj=file) as plain:
            yield from _tar_members(_Metered(cast(IO[bytes], plain)))
    else:
        yield from _tar_members(_Metered(file))


class _Metered:
    """Reads on until more has come than a model can be: of a few bytes gzip makes as many as it likes."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._left = stream, MAX_BYTES + _MAX_MEMBERS * tarfile.RECORDSIZE

    def read(self, size: int) -> bytes:
        chunk = self._stream.read(size)
        self._left -= len(chunk)
        if self._left < 0:
            raise ModelFileError(f"larger than {MAX_BYTES >> 20} MiB, more than a model for this runtime can be")
        return chunk


def _tar_members(stream: _Metered) -> Iterator[tuple[str, IO[bytes]]]:
    # "r|": read once from front to end, as it comes.
    with tarfile.open(fileobj=cast(IO[bytes], stream), mode="r|") as tar:
        for number, member in enumerate(tar):
            _check_kind(member.name, number, member.isdir() or member.type in (tarfile.REGTYPE, tarfile.AREGTYPE))
            if not member.isdir():
                content = tar.extractfile(member)
                assert content is not None
                yield member.name, content


def _zip_members(file: IO[bytes]) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(file) as archive:
        for number, member in enumerate(archive.infolist()):
            kind = stat.S_IFMT(member.external_attr >> 16)
            _check_kind(member.filename, number, member.is_dir() or kind in (0, stat.S_IFREG))
            if not member.is_dir():
                with archive.open(member) as content:
                    yield member.filename, content


def _check_kind(name: str, number: int, is_plain: bool) -> None:
    if not is_plain:
        raise ModelFileError(f"the archive holds {name!r}, a link or a device; a model is plain files, get it again")
    if number >= _MAX_MEMBERS:
        raise ModelFileError(f"the archive holds more than {_MAX_MEMBERS} things; a model is {len(NAMES)} files")
