"""What a model was before it was converted to the file format of today, and the proof that it is still that model.

Profiles name the model that they were learned on by a digest over its file of weights. A converted model keeps that
name, and nobody is asked to believe it: its manifest says what the SHA-256 of the file of format 1 was, the new file
keeps the head of the old one, and from that head and the numbers of today the old file is made again, tensor by tensor,
whenever the model is loaded. Every number of today has one form in the old file and the other way round, so another
number would be another SHA-256.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np

from edgelm.errors import ModelFileError
from edgelm.model import tensorfile
from edgelm.model.mapped import MappedFile

Array = np.ndarray
HEAD = "head of format 1"
"""Under what name the file of weights keeps it."""


def check_origin(packed: MappedFile, sha256: str, path: Path) -> None:
    """Raises ``ModelFileError`` unless the tensors are those of the file of format 1 with this SHA-256."""
    try:
        text = packed.metadata[HEAD].encode()
        blob = len(text).to_bytes(8, "little") + text
        head = tensorfile.read_head(io.BytesIO(blob).read, None, path)
        digest = hashlib.sha256(blob)
        if head.places.keys() != packed.keys():
            raise ValueError("other tensors")
        for name, place in head.places.items():
            digest.update(_as_before(packed[name], place).data)
    except (LookupError, ValueError, ModelFileError) as exc:
        raise _no_origin(path, str(exc)) from None
    if digest.hexdigest() != sha256:
        raise _no_origin(path, "other numbers")


def _no_origin(path: Path, why: str) -> ModelFileError:
    return ModelFileError(f"{path}: not the model that it says it was converted from ({why[:200]}); get it again")


def _as_before(array: Array, place: tensorfile.Place) -> Array:
    """A tensor of today as a file of format 1 holds it, if it can hold these very numbers."""
    if array.shape != place.shape:
        raise ValueError("another shape")
    if place.kind == "I8" and array.dtype == np.uint8:
        return (array ^ np.uint8(128)).view(np.int8)
    if place.kind == "F16" and array.dtype == np.float32:
        with np.errstate(over="ignore"):
            narrow = array.astype(np.float16)
        return _exactly(narrow, narrow.astype(np.float32), array)
    if place.kind == "BF16" and array.dtype == np.float32:
        narrow = (array.view(np.uint32) >> 16).astype(np.uint16)
        return _exactly(narrow, np.left_shift(narrow, 16, dtype=np.uint32).view(np.float32), array)
    if tensorfile.kind_of(array) != place.kind:
        raise ValueError("other kinds of numbers")
    return np.ascontiguousarray(array)


def _exactly(narrow: Array, widened: Array, array: Array) -> Array:
    if not np.array_equal(widened.view(np.uint32), array.view(np.uint32)):
        raise ValueError("numbers that it could not hold")
    return narrow
