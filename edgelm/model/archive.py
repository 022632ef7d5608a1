"""Takes a model out of an archive that anybody may have made: its files by their known names, and nothing else.

Of an archive no more is held in memory than ``_CHUNK`` bytes of a file and a directory of ``_MAX_EXTRA`` bytes, and
everything that it says of sizes and numbers is checked before it is acted on.
"""

from __future__ import annotations

import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TypeVar

from edgelm.errors import ModelFileError
from edgelm.model.hub import CARD, FILES, GRAPHS, MANIFEST, MAX_MANIFEST, TOKENIZER, WEIGHTS, read_manifest
from edgelm.model.tensorfile import MAX_HEADER
from edgelm.model.weights import count_parameters
from edgelm.text.tokenizer import MAX_FILE_BYTES

_SIZES = {MANIFEST: MAX_MANIFEST, TOKENIZER: MAX_FILE_BYTES, WEIGHTS: 512 << 20, CARD: 1 << 20}
LARGEST = {name: _SIZES.get(name, 16 << 20) for name in (MANIFEST, *FILES, *GRAPHS, CARD)}
"""The files of a model, and the most bytes of each: a larger model would not run on a small device."""
NAMES = tuple(name for name in LARGEST if name not in GRAPHS)
"""Those that are kept; graphs are what older models came with."""
MAX_BYTES = sum(LARGEST.values())
"""Most bytes of an archive."""
_MAX_MEMBERS = 64
"""Headers of a tar, or entries of a zip: files, folders, and what packers add about them."""
_MAX_EXTRA = 64 << 10
"""Bytes of what a packer adds about a file in a tar, and of the whole directory of a zip."""
_CHUNK = 1 << 16
# LookupError, OverflowError, RuntimeError, struct.error: what zipfile raises of numbers that make no sense.
_DAMAGES = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, struct.error, EOFError, LookupError, OSError, OverflowError,
    RuntimeError, ValueError,
)  # fmt: skip
_Item = TypeVar("_Item")
_Member = tuple[str, int, Iterator[bytes]]


def unpack(archive: IO[bytes], folder: Path) -> None:
    """Writes the model that a ``.tar``, ``.tar.gz`` or ``.zip`` holds into an empty folder.

    The files lie at the top of the archive, or in one folder of it. No path of the archive is ever used: a member
    is written under the known name that it bears.

    Raises
    ------
    ModelFileError
        It is damaged, a file of it is larger than one of a model can be, or it holds a link, a path that leads
        elsewhere, a file twice or any other file.
    OSError
        The folder cannot be written.
    """
    tops: set[str] = set()
    seen: set[str] = set()
    for name, size, chunks in _checked(_members(archive)):
        top, _, known = name.removeprefix("./").rpartition("/")
        tops.add(top)
        if name.startswith("/") or "/" in top or top in (".", "..") or known not in LARGEST or len(tops) > 1:
            raise ModelFileError(
                f"the archive holds {name[:200]!r}; it may hold {', '.join(NAMES)}, in one folder or none, alone"
            )
        if known in seen:
            raise ModelFileError(f"the archive holds {name!r} twice; get the model again")
        seen.add(known)
        check_size(known, size)
        if known in NAMES:
            save(_checked(chunks), folder / known, LARGEST[known])
        else:
            for _ in _checked(chunks):
                pass


def save(chunks: Iterable[bytes], path: Path, room: int = MAX_BYTES) -> None:
    """Writes ``chunks`` to a new file of ``room`` bytes at most.

    Raises
    ------
    ModelFileError
        There are more.
    OSError
        It cannot be written.
    """
    size = 0
    with path.open("xb") as file:
        for chunk in chunks:
            size += len(chunk)
            if size > room:
                raise ModelFileError(f"{path.name}: larger than {room:,} bytes, more than a model for this runtime has")
            file.write(chunk)


def check_size(name: str, size: int) -> None:
    """Raises a ``ModelFileError`` unless a model's file of this name may have so many bytes."""
    if not 0 <= size <= LARGEST[name]:
        raise ModelFileError(
            f"{name}: {size:,} bytes, larger than that of a model for this runtime ({LARGEST[name]:,}); get another"
        )


def check_sizes(folder: Path) -> None:
    """Looks at the sizes of a model folder's files, and reads nothing else than the configuration.

    Raises
    ------
    ModelFileError
        One of them is larger than any model's, or the weights are larger than those of the configuration.
    """
    sizes = {}
    for path in (folder / name for name in NAMES):
        if path.is_file():
            sizes[path.name] = path.stat().st_size
            check_size(path.name, sizes[path.name])
        elif path.exists():
            raise ModelFileError(f"{path}: not a plain file; get the model again")
    most = 4 * count_parameters(read_manifest(folder).config) + MAX_HEADER
    if (size := sizes.get(WEIGHTS, 0)) > most:
        raise ModelFileError(f"{WEIGHTS}: {size:,} bytes, but at most {most:,} by its {MANIFEST}; get the model again")


def chunks_of(file: IO[bytes]) -> Iterator[bytes]:
    """What a file holds, in pieces; a ``ModelFileError`` if it cannot be read."""
    try:
        while chunk := file.read(_CHUNK):
            yield chunk
    except OSError as exc:
        raise ModelFileError(f"cannot be read ({exc.strerror or exc})") from None


def _checked(items: Iterator[_Item]) -> Iterator[_Item]:
    """Items that come from the archive; whatever reading it raises says in one line that it is damaged."""
    try:
        yield from items
    except _DAMAGES as exc:
        raise ModelFileError(f"no tar, tar.gz or zip archive, or damaged ({exc}); get it again") from None


def _members(file: IO[bytes]) -> Iterator[_Member]:
    """Names, sizes and contents of the plain files, in order; each is to be read before the next is asked for."""
    file.seek(0)
    magic = file.read(2)
    file.seek(0)
    if magic == b"PK":
        yield from _zip_members(file)
    else:
        yield from _tar_members(_Stream(_inflated(file) if magic == b"\x1f\x8b" else chunks_of(file)))


def _inflated(file: IO[bytes]) -> Iterator[bytes]:
    """What one gzip stream holds: of a few bytes it makes as many as it likes, a chunk at a time."""
    inflate = zlib.decompressobj(16 + zlib.MAX_WBITS)
    while not inflate.eof:
        packed = inflate.unconsumed_tail or file.read(_CHUNK)
        if not packed:
            raise EOFError("it ends too early")
        if chunk := inflate.decompress(packed, _CHUNK):
            yield chunk


class _Stream:
    """Pieces of any size, read on by number of bytes."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._rest = pieces, b""

    def take(self, size: int) -> Iterator[bytes]:
        """The next ``size`` bytes."""
        while size:
            piece = self._rest or next(self._pieces, b"")
            if not piece:
                raise EOFError("it ends too early")
            piece, self._rest = piece[:size], piece[size:]
            size -= len(piece)
            yield piece


def _tar_members(stream: _Stream) -> Iterator[_Member]:
    # Headers are read here, and what comes before one to extend it is passed over: names and sizes of models need no
    # extension, and tarfile would take in as much of them as there is.
    for number in range(_MAX_MEMBERS):
        block = b"".join(stream.take(tarfile.BLOCKSIZE))
        if not any(block):
            if number == 0:
                raise EOFError("it is empty")
            return
        member = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        padding = -member.size % tarfile.BLOCKSIZE
        if member.type in (tarfile.XHDTYPE, tarfile.XGLTYPE):
            if not 0 <= member.size <= _MAX_EXTRA:
                raise ModelFileError(f"the archive says {member.size:,} bytes about a file; pack it as a plain tar")
            _pass(stream, member.size + padding)
        elif member.type in (tarfile.REGTYPE, tarfile.AREGTYPE):
            yield member.name, member.size, stream.take(member.size)
            _pass(stream, padding)
        elif member.type != tarfile.DIRTYPE:
            raise _no_file(member.name)
    raise _too_many()


def _pass(stream: _Stream, size: int) -> None:
    for _ in stream.take(size):
        pass


def _zip_members(file: IO[bytes]) -> Iterator[_Member]:
    _check_directory(file)
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if len(members) > _MAX_MEMBERS:
            raise _too_many()
        for member in members:
            if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _no_file(member.filename)
            if member.is_dir():
                continue
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ModelFileError(f"the archive packs {member.filename[:200]!r} by a rare method; make a tar of it")
            yield member.filename, member.file_size, _zip_chunks(archive, member)


def _zip_chunks(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[bytes]:
    with archive.open(member) as content:
        yield from chunks_of(content)


def _check_directory(file: IO[bytes]) -> None:
    """Raises unless the directory of a zip, which zipfile reads at once, is one of a few entries.

    Its end is where zipfile finds it: at the last mark of the last 64 KiB.
    """
    file.seek(max(0, file.seek(0, 2) - (1 << 16) - 42))
    tail = file.read()
    at = tail.rfind(b"PK\5\6")
    if at < 0 or at + 22 > len(tail):
        raise zipfile.BadZipFile("it has no directory")
    # What stands before the end may say that another directory counts, one of 64 bits.
    if tail[max(0, at - 20) : at].startswith(b"PK\6\7"):
        raise ModelFileError("a zip of 64 bits; pack the model as a plain zip or as a tar")
    count, size = struct.unpack_from("<10xHL", tail, at)
    if count > _MAX_MEMBERS:
        raise _too_many()
    if size > _MAX_EXTRA:
        raise ModelFileError(f"the archive has a directory of {size:,} bytes; a model is {len(NAMES)} files")
    file.seek(0)


def _no_file(name: str) -> ModelFileError:
    return ModelFileError(
        f"the archive holds {name[:200]!r}, no plain file; get the model again, or pack it as a plain tar"
    )


def _too_many() -> ModelFileError:
    return ModelFileError(f"the archive holds more than {_MAX_MEMBERS} things; a model is {len(NAMES)} files")
