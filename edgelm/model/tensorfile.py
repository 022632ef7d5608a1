"""Safetensors in and out: checked when read, complete or absent when written."""

from __future__ import annotations

import json
import os
import struct
import tempfile
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
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        blob = path.read_bytes()
    except FileNotFoundError:
        raise ModelFileError(f"{path}: no such file") from None
    except OSError as exc:
        raise ModelFileError(f"{path}: cannot be read ({exc.strerror})") from None
    try:
        tensors = load(blob)
        metadata = json.loads(blob[8 : 8 + struct.unpack("<Q", blob[:8])[0]]).get("__metadata__") or {}
    except (SafetensorError, ValueError, KeyError, struct.error) as exc:
        raise ModelFileError(f"{path}: damaged or not a safetensors file ({exc})") from None
    return tensors, metadata


def names(path: Path) -> list[str]:
    """Names of the tensors of a file, none of which is read.

    Raises
    ------
    ModelFileError
        The file is missing, truncated, or no safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return list(file.keys())
    except (OSError, SafetensorError) as exc:
        raise ModelFileError(f"{path}: missing, damaged or not a safetensors file ({exc})") from None


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
