"""Safetensors in and out: checked when read, complete or absent when written.

They are read here, not by the library, which takes headers of 100 MB and maps a file without looking at its digest.
``edgelm.model.mapped`` maps those that were made for it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np

from edgelm.errors import ModelFileError

_KINDS = {"float64": "F64", "float32": "F32", "float16": "F16", "int32": "I32", "int8": "I8", "uint8": "U8"}
_DTYPES = {kind: np.dtype(name) for name, kind in _KINDS.items()} | {"BF16": np.dtype(np.uint16)}
"""What the bytes of a kind are read as; the upper half of a float32 (BF16) is widened to one then."""
ALIGNMENT = 64
"""Bytes of a cache line, at whose multiples the tensors of a model begin, so that they can be used where they lie."""
PADDING = "padding."
"""How the names begin of what fills up to the next multiple: safetensors knows no gaps."""
MAX_HEADER = 2 << 20
"""Most bytes of the names, kinds and places of the tensors; more would say nothing about any model."""
_MAX_DIMENSIONS, _MAX_NUMBERS = 8, 1 << 40


@dataclass(frozen=True)
class Place:
    """Where a tensor lies.

    Attributes
    ----------
    kind : str
        Of its numbers, as safetensors names it.
    shape : tuple of int
    size : int
        Bytes.
    """

    kind: str
    shape: tuple[int, ...]
    size: int

    def numbers(self, blob: np.ndarray) -> np.ndarray:
        """The tensor of its bytes: a view; of BF16 a copy in float32."""
        array = blob.view(_DTYPES[self.kind]).reshape(self.shape)
        if self.kind != "BF16":
            return array
        return np.left_shift(array, 16, dtype=np.uint32).view(np.float32)


@dataclass(frozen=True)
class Head:
    """What stands before the tensors.

    Attributes
    ----------
    blob : bytes
        All of it.
    places : dict
        Of each tensor, in their order; they lie one behind the other.
    metadata : dict
    """

    blob: bytes
    places: dict[str, Place]
    metadata: dict[str, str]


def read(path: Path, sha256: str | None = None) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """All tensors of a file and its metadata, in memory of their own: the file may change or end then.

    Parameters
    ----------
    path : Path
    sha256 : str, optional
        What the SHA-256 of the bytes that are read must be.

    Raises
    ------
    ModelFileError
        The file is missing, truncated, another one, or no safetensors file.
    """
    with open_file(path) as file:
        head = read_head(file.read, os.fstat(file.fileno()).st_size, path)
        digest, tensors = hashlib.sha256(head.blob), {}
        # Tensor by tensor: the file in one piece would stay in memory beside them, given back or not.
        for name, place in head.places.items():
            blob = _read_bytes(file, path, place.size)
            if sha256 is not None:
                digest.update(blob.data)
            tensors[name] = place.numbers(blob)
    if sha256 not in (None, digest.hexdigest()):
        raise altered(path)
    return tensors, head.metadata


class TensorFile(Mapping[str, np.ndarray]):
    """The tensors of a file by name, each read when it is asked for, and anew every time.

    The file stays open and is never mapped: one put in its place is not seen, and one that is cut short is an error.
    Only whoever writes into the very file, as its owner may, changes what is read after its digest was computed.

    Parameters
    ----------
    path : Path
    sha256 : str, optional
        What the SHA-256 of the file must be.

    Attributes
    ----------
    places : dict of Place
        Of each tensor, in their order.
    metadata : dict

    Raises
    ------
    ModelFileError
        The file is missing, truncated, another one, or no safetensors file.
    """

    def __init__(self, path: Path, sha256: str | None = None) -> None:
        self._path, self._file, self._lock = path, open_file(path), threading.Lock()
        weakref.finalize(self, self._file.close)
        if sha256 is not None and hashlib.file_digest(self._file, "sha256").hexdigest() != sha256:
            raise altered(path)
        self._file.seek(0)
        head = read_head(self._file.read, os.fstat(self._file.fileno()).st_size, path)
        self.places, self.metadata = head.places, head.metadata
        self._begins, at = {}, len(head.blob)
        for name, place in head.places.items():
            self._begins[name] = at
            at += place.size

    def __getitem__(self, name: str) -> np.ndarray:
        place = self.places[name]
        return self.part(name, 0, math.prod(place.shape)).reshape(place.shape)

    def part(self, name: str, begin: int, count: int) -> np.ndarray:
        """So many numbers [count] of a tensor from one of them on, in row-major order."""
        at, kind = self._begins[name], self.places[name].kind
        size = _DTYPES[kind].itemsize
        with self._lock:
            self._file.seek(at + begin * size)
            blob = _read_bytes(self._file, self._path, count * size)
        return Place(kind, (count,), count * size).numbers(blob)

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


def kind_of(array: np.ndarray) -> str:
    """How safetensors names what an array's numbers are."""
    return _KINDS[array.dtype.name]


def open_file(path: Path) -> BufferedReader:
    """Opens it to be read; raises ``ModelFileError`` if it cannot."""
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise ModelFileError(f"{path}: no such file") from None
    except OSError as exc:
        raise ModelFileError(f"{path}: cannot be read ({exc.strerror})") from None


def altered(path: Path) -> ModelFileError:
    """What is raised of a file whose SHA-256 is another."""
    return ModelFileError(f"{path}: altered or truncated (its SHA-256 is another); get it again")


def read_head(read: Callable[[int], bytes], n_bytes: int | None, path: Path) -> Head:
    """Reads up to the first tensor; the places of all fill the ``n_bytes`` of a file (None: no matter which).

    Raises
    ------
    ModelFileError
        It is no head of a safetensors file, or not of this one.
    """
    try:
        size = int.from_bytes(prefix := read(8), "little")
        if len(prefix) < 8 or size > MAX_HEADER:
            raise ValueError(f"its header has {size:,} bytes")
        blob = read(size)
        header = json.loads(blob)
        metadata = header.pop("__metadata__", None) or {}
        if not all(isinstance(value, str) for value in metadata.values()):
            raise ValueError("its metadata are no texts")
        places, at = {}, 0
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            (begin, end), shape, kind = entry["data_offsets"], entry["shape"], entry["dtype"]
            if len(shape) > _MAX_DIMENSIONS or not all(type(n) is int and n >= 0 for n in (*shape, begin, end)):
                raise ValueError(f"{name!r} has no shape")
            if math.prod(n or 1 for n in shape) >= _MAX_NUMBERS:  # more than numpy counts, though there be none
                raise ValueError(f"{name!r} has too many numbers")
            if begin != at or end - begin != math.prod(shape) * _DTYPES[kind].itemsize:
                raise ValueError(f"{name!r} is not where it must be")
            places[name], at = Place(kind, tuple(shape), end - begin), end
        if n_bytes not in (None, 8 + size + at):
            raise ValueError("it ends too early or too late")
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as exc:
        raise ModelFileError(f"{path}: damaged or not a safetensors file of edgelm ({str(exc)[:200]})") from None
    return Head(prefix + blob, places, metadata)


def _read_bytes(file: BufferedReader, path: Path, size: int) -> np.ndarray:
    blob = np.empty(size, np.uint8)
    try:
        n_read = file.readinto(blob.data)
    except OSError as exc:
        raise ModelFileError(f"{path}: cannot be read ({exc.strerror})") from None
    if n_read != size:
        raise ModelFileError(f"{path}: damaged or not a safetensors file of edgelm (it became shorter)")
    return blob


def write(path: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str] | None = None) -> None:
    """Writes a file that its owner alone can read; after a crash it is the old one or the new one.

    Raises
    ------
    OSError
        The folder cannot be written or the disk is full; the old file is untouched.
    """
    # The library would make two copies of all of it first, on a device where that is a tenth of what is free.
    replace(path, _blobs(tensors, metadata, 8))


def to_bytes(
    tensors: Mapping[str, np.ndarray], metadata: dict[str, str] | None = None, alignment: int = ALIGNMENT
) -> bytes:
    """A file of a model: each tensor begins at a multiple of ``alignment``; with 8 nothing is put between them."""
    return b"".join(_blobs(tensors, metadata, alignment))


def write_streamed(
    path: Path, table: Mapping[str, tuple[np.dtype, tuple[int, ...]]], tensors: Iterable[tuple[str, np.ndarray]]
) -> None:
    """Writes a new file of a model whose tensors are given one at a time, in any order, each once.

    Parameters
    ----------
    path : Path
    table : dict
        dtype and shape of every tensor.
    tensors : iterable of (str, ndarray)
        Each of them is written before the next is asked for. One may come in several parts, rows after rows.
    """
    head, places, end = _layout(table, None, ALIGNMENT)
    missing = {name: shape[0] if shape else 1 for name, (_, shape) in table.items()}
    with path.open("xb") as file:
        file.write(head)
        file.truncate(len(head) + end)
        for name, array in tensors:
            kind, shape = table[name]
            n_rows, left = len(array) if array.ndim else 1, missing[name]
            if array.dtype != kind or array.shape[1:] != shape[1:] or n_rows > left:
                raise ValueError(f"{name} is {array.dtype} {array.shape}, not {kind} {shape}")
            file.seek(len(head) + places[name])
            file.write(np.ascontiguousarray(array).data)
            places[name], missing[name] = places[name] + array.nbytes, left - n_rows
    if short := [name for name, n_rows in missing.items() if n_rows]:
        raise ValueError(f"{short[0]} was not given, or not all of it")


def _layout(
    table: Mapping[str, tuple[np.dtype, tuple[int, ...]]], metadata: dict[str, str] | None, alignment: int
) -> tuple[bytes, dict[str, int], int]:
    """The head of a file with the length before it, where each tensor begins after it, and where the last one ends.

    The tensors stand in the order of the file; between them may be gaps, which the head calls padding.
    """
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    places, end = {}, 0
    n_bytes = {name: kind.itemsize * math.prod(shape) for name, (kind, shape) in table.items()}
    # So that each begins at a multiple of its numbers' size, 8 at most, and padding is needed by few.
    odd = [name for name in table if n_bytes[name] % alignment and alignment > 8]
    for name, (kind, shape) in sorted(table.items(), key=lambda item: (item[0] in odd, -item[1][0].itemsize)):
        if (gap := -end % alignment) and alignment > 8:
            header[f"{PADDING}{end}"] = {"dtype": "U8", "shape": [gap], "data_offsets": [end, end + gap]}
            end += gap
        places[name], end = end, end + n_bytes[name]
        offsets = [places[name], end]
        header[name] = {"dtype": _KINDS[kind.name], "shape": list(shape), "data_offsets": offsets}
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-(8 + len(head)) % alignment)
    return len(head).to_bytes(8, "little") + head, places, end


def _blobs(
    tensors: Mapping[str, np.ndarray], metadata: dict[str, str] | None, alignment: int
) -> Iterator[bytes | memoryview]:
    """The parts of a file, one after the other."""
    head, places, _ = _layout({name: (a.dtype, a.shape) for name, a in tensors.items()}, metadata, alignment)
    yield head
    end = 0
    for name, place in places.items():
        yield bytes(place - end)
        yield np.ascontiguousarray(tensors[name]).data
        end = place + tensors[name].nbytes


def replace(path: Path, blobs: Iterable[bytes | memoryview]) -> None:
    """Replaces ``path`` by ``blobs`` atomically and durably; mode 0600."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb", buffering=1 << 20) as file:
            for blob in blobs:
                file.write(blob)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes durable which files there are in a folder."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
