"""Checkpoints as ``.pth``: a zip that ``torch.save`` wrote of a dictionary of tensors. Nothing of it is unpickled."""

from __future__ import annotations

import math
import struct
import threading
import weakref
import zipfile
import zlib
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path

from edgelm.convert.checkpoint import KINDS, Array, Checkpoint, fits, numbers, pieces, read_bytes
from edgelm.convert.pickled import StoredTensor, state_dict
from edgelm.errors import ModelFileError
from edgelm.model.tensorfile import open_file

MAX_PROGRAM, MAX_DIRECTORY = 4 << 20, 4 << 20
"""Bytes of the pickle, and of the directory of the zip: both are read at once."""
_TABLE = "/data.pkl"
_END, _END_64, _AT_64 = b"PK\5\6", b"PK\6\6", b"PK\6\7"
# What zipfile raises of numbers that make no sense, beside its own.
_DAMAGES = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, LookupError, OSError, OverflowError, RuntimeError,
    ValueError,
)  # fmt: skip


class PthCheckpoint(Checkpoint):
    """The tensors of a ``.pth`` file.

    Parameters
    ----------
    path : Path
        As ``torch.save`` writes it since version 1.6, of a dictionary from names to tensors.

    Raises
    ------
    ModelFileError
        The file is missing, damaged, or holds anything else than contiguous tensors of 32 or 16 bits a number.
    """

    def __init__(self, path: Path) -> None:
        file, self._lock = open_file(path), threading.Lock()
        weakref.finalize(self, file.close)
        try:
            _check_directory(file)
            self._archive = zipfile.ZipFile(file)
            self._records = _records(self._archive)
            self._tensors = state_dict(self._archive.read(self._records[_TABLE]))
            for name, tensor in self._tensors.items():
                self._check(name, tensor)
        except _DAMAGES as exc:
            raise _damaged(path, exc) from None
        super().__init__(path, {name: tensor.shape for name, tensor in self._tensors.items()})

    def _check(self, name: str, tensor: StoredTensor) -> None:
        storage, said = tensor.storage, f"{name[:200]!r}"
        if not fits(tensor.shape) or len(tensor.stride) != len(tensor.shape):
            raise ValueError(f"{said} has no shape")
        step = 1
        for size, stride in zip(reversed(tensor.shape), reversed(tensor.stride), strict=True):
            if size > 1 and stride != step:
                raise ValueError(f"{said} is not contiguous")
            step *= size
        record = self._records.get(f"/data/{storage.key}")
        if record is None or record.file_size != storage.n_numbers * KINDS[storage.kind].itemsize:
            raise ValueError(f"{said} has no numbers, or not as many as it says")
        if not 0 <= tensor.offset <= storage.n_numbers - math.prod(tensor.shape):
            raise ValueError(f"{said} goes beyond its numbers")

    def _pieces(self, name: str, n_numbers: int) -> Iterator[Array]:
        tensor = self._tensors[name]
        size = KINDS[tensor.storage.kind].itemsize
        try:
            with self._lock, self._archive.open(self._records[f"/data/{tensor.storage.key}"]) as content:
                content.seek(tensor.offset * size)
                for _, count in pieces(math.prod(tensor.shape), n_numbers):
                    yield numbers(read_bytes(content.read, count * size), tensor.storage.kind)
                # At the end of a record its checksum is looked at.
                content.read(1)
        except _DAMAGES as exc:
            raise _damaged(self.path, exc) from None


def _damaged(path: Path, exc: BaseException) -> ModelFileError:
    said = " ".join(str(exc).split())
    return ModelFileError(f"{path}: damaged, or no .pth of a state dict alone ({said[:300]})")


def _records(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The files of an archive by their names, without the folder that all lie in."""
    found: dict[str, zipfile.ZipInfo] = {}
    tops = set()
    for record in archive.infolist():
        top, slash, rest = record.filename.partition("/")
        tops.add(top)
        if slash + rest in found or len(tops) > 1:
            raise ValueError("it has a record twice, or more than one folder")
        if record.compress_type != zipfile.ZIP_STORED or record.compress_size != record.file_size:
            raise ValueError(f"it has a record that is not stored as it is, {record.filename[:200]!r}")
        found[slash + rest] = record
    if _TABLE not in found or found[_TABLE].file_size > MAX_PROGRAM:
        raise ValueError("it has no data.pkl, or one of too many bytes")
    order = found.get("/byteorder")
    if order is not None and (order.file_size != 6 or archive.read(order) != b"little"):
        raise ValueError("its numbers are not little endian")
    return found


def _check_directory(file: BufferedReader) -> None:
    """Raises unless the directory of a zip, which zipfile reads at once, is a small one.

    Its end is that of the file, as torch writes it; zipfile finds no other one then.
    """
    size = file.seek(0, 2)
    file.seek(max(0, size - 98))
    tail = file.read(98)
    end, mark, end_64 = tail[-22:], tail[-42:-22], tail[:-42]
    if len(end) < 22 or not end.startswith(_END) or end[-2:] != b"\0\0":
        raise ValueError("it is no zip; an old one must be saved again by torch 1.6 or newer")
    (n_bytes,) = struct.unpack_from("<L", end, 12)
    if mark.startswith(_AT_64):
        (begin,) = struct.unpack_from("<Q", mark, 8)
        if not end_64.startswith(_END_64) or begin != size - 98:
            raise ValueError("its directory is not where it must be")
        (n_bytes,) = struct.unpack_from("<Q", end_64, 40)
    if n_bytes > MAX_DIRECTORY:
        raise ValueError(f"it has a directory of {n_bytes:,} bytes")
    file.seek(0)
