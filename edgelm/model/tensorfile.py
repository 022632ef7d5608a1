"""Safetensors in and out: checked when read, complete or absent when written."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgelm.errors import ModelFileError


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """All tensors of a file and its metadata.

    Raises
    ------
    ModelFileError
        The file is missing, truncated, or no safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        path.open("rb").close()
    except FileNotFoundError:
        raise ModelFileError(f"{path}: no such file") from None
    except OSError as exc:
        raise ModelFileError(f"{path}: cannot be read ({exc.strerror})") from None
    try:
        # Tensor by tensor: the file in one piece would stay in memory beside them, given back or not.
        with safe_open(path, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise ModelFileError(f"{path}: damaged or not a safetensors file ({exc})") from None
    if foreign := [str(array.dtype) for array in tensors.values() if array.dtype.kind not in "biuf"]:
        raise ModelFileError(f"{path}: damaged or not a safetensors file of edgelm (it holds {foreign[0]})")
    return tensors, metadata


class TensorFile(Mapping[str, np.ndarray]):
    """The tensors of a file by name, each read when it is asked for, and anew every time.

    Raises
    ------
    ModelFileError
        The file is missing, truncated, or no safetensors file.
    """

    def __init__(self, path: Path) -> None:
        from safetensors import SafetensorError, safe_open

        try:
            self._file = safe_open(path, framework="numpy")
            self._names = dict.fromkeys(self._file.keys())  # type: ignore[no-untyped-call]
        except (OSError, SafetensorError) as exc:
            raise ModelFileError(f"{path}: missing, damaged or not a safetensors file ({exc})") from None

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._names:
            raise KeyError(name)
        return self._file.get_tensor(name)  # type: ignore[no-untyped-call]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


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


_KINDS = {"float64": "F64", "float32": "F32", "float16": "F16", "int32": "I32", "int8": "I8", "uint8": "U8"}


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
