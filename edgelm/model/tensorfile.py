"""Safetensors in and out: checked when read, complete or absent when written.

They are read here, not by the library, which maps the file (one that is cut short while it is used would end the
process) and takes headers of 100 MB.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np

from edgelm.errors import ModelFileError

_KINDS = {"float64": "F64", "float32": "F32", "float16": "F16", "int32": "I32", "int8": "I8", "uint8": "U8"}
_DTYPES = {kind: np.dtype(name) for name, kind in _KINDS.items()}
MAX_HEADER = 2 << 20
"""Most bytes of the names, kinds and places of the tensors; more would say nothing about any model."""
_MAX_DIMENSIONS, _MAX_NUMBERS = 8, 1 << 40


@dataclass(frozen=True)
class _Head:
    """What stands before the tensors.

    Attributes
    ----------
    blob : bytes
        All of it.
    places : dict
        Kind, shape and bytes of each tensor, in their order; they lie one behind the other.
    metadata : dict
    """

    blob: bytes
    places: dict[str, tuple[np.dtype, tuple[int, ...], int]]
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
    with _open(path) as file:
        head = _read_head(file, path)
        digest, tensors = hashlib.sha256(head.blob), {}
        # Tensor by tensor: the file in one piece would stay in memory beside them, given back or not.
        for name, (dtype, shape, size) in head.places.items():
            blob = _read_bytes(file, path, size)
            if sha256 is not None:
                digest.update(blob.data)
            tensors[name] = blob.view(dtype).reshape(shape)
    if sha256 not in (None, digest.hexdigest()):
        raise _altered(path)
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

    Raises
    ------
    ModelFileError
        The file is missing, truncated, another one, or no safetensors file.
    """

    def __init__(self, path: Path, sha256: str | None = None) -> None:
        self._path, self._file, self._lock = path, _open(path), threading.Lock()
        weakref.finalize(self, self._file.close)
        if sha256 is not None and hashlib.file_digest(self._file, "sha256").hexdigest() != sha256:
            raise _altered(path)
        self._file.seek(0)
        head = _read_head(self._file, path)
        self._places, at = {}, len(head.blob)
        for name, place in head.places.items():
            self._places[name] = (at, *place)
            at += place[-1]

    def __getitem__(self, name: str) -> np.ndarray:
        at, dtype, shape, size = self._places[name]
        with self._lock:
            self._file.seek(at)
            blob = _read_bytes(self._file, self._path, size)
        return blob.view(dtype).reshape(shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def _open(path: Path) -> BufferedReader:
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise ModelFileError(f"{path}: no such file") from None
    except OSError as exc:
        raise ModelFileError(f"{path}: cannot be read ({exc.strerror})") from None


def _altered(path: Path) -> ModelFileError:
    return ModelFileError(f"{path}: altered or truncated (its SHA-256 is another); get it again")


def _read_head(file: BufferedReader, path: Path) -> _Head:
    """Reads up to the first tensor; the places of all fill the file, neither more nor less."""
    try:
        size = int.from_bytes(prefix := file.read(8), "little")
        if len(prefix) < 8 or size > MAX_HEADER:
            raise ValueError(f"its header has {size:,} bytes")
        blob = file.read(size)
        header = json.loads(blob)
        metadata = header.pop("__metadata__", None) or {}
        if not all(isinstance(value, str) for value in metadata.values()):
            raise ValueError("its metadata are no texts")
        places, at = {}, 0
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            (begin, end), shape, dtype = entry["data_offsets"], entry["shape"], _DTYPES[entry["dtype"]]
            if len(shape) > _MAX_DIMENSIONS or not all(type(n) is int and n >= 0 for n in (*shape, begin, end)):
                raise ValueError(f"{name!r} has no shape")
            if math.prod(n or 1 for n in shape) >= _MAX_NUMBERS:  # more than numpy counts, though there be none
                raise ValueError(f"{name!r} has too many numbers")
            if begin != at or end - begin != math.prod(shape) * dtype.itemsize:
                raise ValueError(f"{name!r} is not where it must be")
            places[name], at = (dtype, tuple(shape), end - begin), end
        if os.fstat(file.fileno()).st_size != 8 + size + at:
            raise ValueError("it ends too early or too late")
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as exc:
        raise ModelFileError(f"{path}: damaged or not a safetensors file of edgelm ({str(exc)[:200]})") from None
    return _Head(prefix + blob, places, metadata)


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
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    end = 0
    ordered = sorted(tensors.items(), key=lambda item: -item[1].itemsize)  # so that each begins at a multiple of it
    for name, array in ordered:
        begin, end = end, end + array.nbytes
        kind = _KINDS[array.dtype.name]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [begin, end]}
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    arrays = (np.ascontiguousarray(array).data for _, array in ordered)
    _write(path, (len(head).to_bytes(8, "little"), head, *arrays))


def _write(path: Path, blobs: Iterable[bytes | memoryview]) -> None:
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
