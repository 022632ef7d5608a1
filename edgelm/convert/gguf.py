"""Checkpoints as ``.gguf``, the container of llama.cpp.

They are read here, not by the package ``gguf``, which makes objects of every number of every list that a file may claim
to hold: of 20 MB it made 5 GB in a minute and a half, and was not done.
"""

from __future__ import annotations

import math
import os
import struct
import threading
import weakref
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edgelm.convert.checkpoint import Array, Checkpoint, Scalar, fits, numbers, pieces, read_bytes
from edgelm.errors import ModelFileError
from edgelm.model.tensorfile import open_file

TYPES = {0: "F32", 1: "F16", 8: "Q8_0", 30: "BF16"}
"""Numbers of tensors that are read here, by the number of their kind."""
_BYTES = {"F32": (4, 1), "F16": (2, 1), "BF16": (2, 1), "Q8_0": (34, 32)}
"""Of each kind: the bytes of a block, and its numbers."""
_BLOCK = np.dtype([("scale", "<f2"), ("numbers", "i1", 32)])
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _LIST = 8, 9
_MAX_TEXT, _MAX_ENTRIES, _MAX_TENSORS, _MAX_ITEMS = 1 << 20, 1 << 12, 1 << 16, 1 << 20
_DAMAGES = (EOFError, LookupError, OSError, OverflowError, ValueError, struct.error)


class _Tensor(NamedTuple):
    kind: str
    shape: tuple[int, ...]
    begin: int
    """From the beginning of the file."""


class GgufCheckpoint(Checkpoint):
    """The tensors of a ``.gguf`` file of version 2 or 3, little endian.

    Lists among its metadata, as the vocabulary is one, are passed over.

    Parameters
    ----------
    path : Path

    Raises
    ------
    ModelFileError
        The file is missing, damaged, no GGUF, or has numbers of another kind than F32, F16, BF16 and Q8_0.
    """

    def __init__(self, path: Path) -> None:
        self._file, self._lock = open_file(path), threading.Lock()
        weakref.finalize(self, self._file.close)
        try:
            head = _Head(self._file)
            metadata, self._tensors = head.metadata(), head.tensors()
        except _DAMAGES as exc:
            raise ModelFileError(f"{path}: damaged or no GGUF file ({str(exc)[:300]})") from None
        super().__init__(path, {name: tensor.shape for name, tensor in self._tensors.items()}, metadata)

    def _pieces(self, name: str, n_numbers: int) -> Iterator[Array]:
        tensor = self._tensors[name]
        for begin, count in pieces(math.prod(tensor.shape), n_numbers):
            yield self._piece(tensor, begin, count)

    def _piece(self, tensor: _Tensor, begin: int, count: int) -> Array:
        n_bytes, n_each = _BYTES[tensor.kind]
        try:
            with self._lock:
                self._file.seek(tensor.begin + begin // n_each * n_bytes)
                blob = read_bytes(self._file.read, count // n_each * n_bytes)
        except _DAMAGES as exc:
            raise ModelFileError(f"{self.path}: cannot be read ({exc})") from None
        if tensor.kind != "Q8_0":
            return numbers(blob, tensor.kind)
        blocks = blob.view(_BLOCK)
        return blocks["numbers"] * blocks["scale"].astype(np.float32)[:, None]


class _Head:
    """What stands before the numbers, read on from the beginning."""

    def __init__(self, file: BufferedReader) -> None:
        self._file, self._size = file, os.fstat(file.fileno()).st_size
        if file.read(4) != b"GGUF":
            raise ValueError("it does not begin as one")
        version, self._n_tensors, self._n_entries = self._unpack("IQQ")
        if version not in (2, 3):
            raise ValueError(f"it is of version {version:,} or of the other byte order; 2 and 3 are read here")
        if self._n_tensors > _MAX_TENSORS or self._n_entries > _MAX_ENTRIES:
            raise ValueError(f"it says that it has {self._n_tensors:,} tensors and {self._n_entries:,} entries")
        self._alignment: Any = 32

    def metadata(self) -> dict[str, Scalar]:
        """The entries that are no lists."""
        found: dict[str, Scalar] = {}
        seen: set[str] = set()
        for _ in range(self._n_entries):
            key = self._text()
            if key in seen:
                raise ValueError(f"it has {key[:200]!r} twice")
            seen.add(key)
            (kind,) = self._unpack("I")
            if kind == _LIST:
                self._pass_list()
            else:
                found[key] = self._scalar(kind)
        self._alignment = found.get("general.alignment", self._alignment)
        return found

    def tensors(self) -> dict[str, _Tensor]:
        """All of them, where they lie, in their order."""
        found: dict[str, tuple[str, tuple[int, ...], int]] = {}
        for _ in range(self._n_tensors):
            name = self._text()
            (n_dimensions,) = self._unpack("I")
            if name in found or n_dimensions > 8:
                raise ValueError(f"{name[:200]!r} is there twice, or has {n_dimensions:,} dimensions")
            *sizes, kind, offset = self._unpack(f"{n_dimensions}QIQ")
            if kind not in TYPES:
                raise ValueError(
                    f"{name[:200]!r} has numbers of type {kind}; {', '.join(TYPES.values())} are read here"
                )
            found[name] = TYPES[kind], tuple(reversed(sizes)), offset
        if type(self._alignment) is not int or not 1 <= self._alignment <= 1 << 16:
            raise ValueError("its alignment is no number of bytes")
        begin = -(-self._file.tell() // self._alignment) * self._alignment
        return {name: self._placed(name, *tensor, begin) for name, tensor in found.items()}

    def _placed(self, name: str, kind: str, shape: tuple[int, ...], offset: int, begin: int) -> _Tensor:
        n_bytes, n_numbers = _BYTES[kind]
        if not fits(shape) or (shape[-1] if shape else 1) % n_numbers:
            raise ValueError(f"{name[:200]!r} has no shape of {kind}")
        size = math.prod(shape) // n_numbers * n_bytes
        if begin + offset + size > self._size:
            raise ValueError(f"{name[:200]!r} goes beyond the end")
        return _Tensor(kind, shape, begin + offset)

    def _unpack(self, form: str) -> tuple[Any, ...]:
        return struct.unpack("<" + form, self._file.read(struct.calcsize("<" + form)))

    def _text(self) -> str:
        (size,) = self._unpack("Q")
        if size > _MAX_TEXT:
            raise ValueError(f"it has a text of {size:,} bytes")
        blob = self._file.read(size)
        if len(blob) < size:
            raise EOFError("it ends too early")
        return blob.decode("utf-8", "replace")

    def _scalar(self, kind: int) -> Scalar:
        if kind == _TEXT:
            return self._text()
        value: Scalar = self._unpack(_SCALARS[kind])[0]
        return value

    def _pass_list(self) -> None:
        kind, count = self._unpack("IQ")
        if kind != _TEXT:
            size = count * struct.calcsize("<" + _SCALARS[kind])
            if size > self._size:
                raise EOFError("a list of it goes beyond the end")
            self._file.seek(size, os.SEEK_CUR)
            return
        if count > _MAX_ITEMS:
            raise ValueError(f"it has a list of {count:,} texts")
        for _ in range(count):
            self._text()
