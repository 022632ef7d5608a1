"""Safetensors in and out: checked when read, complete or absent when written."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

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
    from safetensors.numpy import save

    contiguous = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    write_bytes(path, save(contiguous, metadata=metadata or None))


def write_bytes(path: Path, blob: bytes) -> None:
    """Replaces ``path`` by ``blob`` atomically and durably; mode 0600."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
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
