"""What a file of weights from elsewhere is to whoever imports it, whatever container it is."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgelm.errors import ModelFileError

Array = np.ndarray
Scalar = str | int | float | bool
KINDS: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}
"""Numbers that are read as they are, and what their bytes are; BF16 is the upper half of an F32."""
MAX_DIMENSIONS, MAX_NUMBERS = 8, 1 << 40
"""Of a tensor; numpy counts no more."""
_PIECE = 1 << 20


class Checkpoint(ABC):
    """The tensors of a file by name, each read when it is asked for.

    Parameters
    ----------
    path : Path
    shapes : mapping
        Of all tensors, in the order of the file.
    metadata : mapping, optional

    Attributes
    ----------
    path : Path
    metadata : mapping
        What the file says about itself: texts, numbers and truths by name.
    """

    def __init__(
        self, path: Path, shapes: Mapping[str, tuple[int, ...]], metadata: Mapping[str, Scalar] | None = None
    ) -> None:
        self.path, self._shapes, self.metadata = path, shapes, dict(metadata or {})

    def names(self) -> list[str]:
        """Of all tensors, in the order of the file."""
        return list(self._shapes)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of one tensor; it is not read for it.

        Raises
        ------
        ModelFileError
            There is no such tensor.
        """
        if name not in self._shapes:
            raise ModelFileError(f"{self.path}: lacks the tensor {name[:200]!r}; is it a whole checkpoint?")
        return self._shapes[name]

    def read(self, name: str) -> Array:
        """One tensor, float32, in memory of its own.

        Raises
        ------
        ModelFileError
            There is no such tensor, or the file is damaged or another one by now.
        """
        shape = self.shape(name)
        (found,) = self._pieces(name, max(1, math.prod(shape)))
        return found.astype(np.float32, copy=False).reshape(shape)

    def read_rows(self, name: str, n_rows: int) -> Iterator[Array]:
        """One tensor as ``read`` gives it, but so many rows [N,...] at a time, one after the other.

        Whoever reads them reads all: what is damaged may show at the end.
        """
        shape = self.shape(name)
        for found in self._pieces(name, max(1, n_rows * math.prod(shape[1:]))):
            yield found.astype(np.float32, copy=False).reshape(-1, *shape[1:])

    @abstractmethod
    def _pieces(self, name: str, n_numbers: int) -> Iterator[Array]:
        """The numbers of a tensor in row-major order, of a kind that float32 holds, ``n_numbers`` at a time, whole rows
        of it; the last piece may be smaller, and there is at least one."""


def pieces(n_numbers: int, n_each: int) -> Iterator[tuple[int, int]]:
    """Where each piece of so many numbers begins, and how many it has; there is at least one."""
    for begin in range(0, max(1, n_numbers), n_each):
        yield begin, min(n_each, n_numbers - begin)


def fits(shape: tuple[int, ...]) -> bool:
    """Whether a tensor can have this shape."""
    return (
        len(shape) <= MAX_DIMENSIONS
        and all(type(n) is int and 0 <= n < MAX_NUMBERS for n in shape)
        and math.prod(n or 1 for n in shape) < MAX_NUMBERS
    )


def read_bytes(read: Callable[[int], bytes], n_bytes: int) -> Array:
    """So many bytes [n_bytes] of a file, piece by piece: no second copy of all of them is made.

    Raises
    ------
    EOFError
        It ends before.
    """
    blob, at = np.empty(n_bytes, np.uint8), 0
    while at < n_bytes:
        piece = read(min(_PIECE, n_bytes - at))
        if not piece:
            raise EOFError("it ends too early")
        blob[at : at + len(piece)] = np.frombuffer(piece, np.uint8)
        at += len(piece)
    return blob


def numbers(blob: Array, kind: str) -> Array:
    """The numbers of one of ``KINDS`` that bytes hold: a view, or of BF16 a copy in float32."""
    found = blob.view(KINDS[kind])
    return np.left_shift(found, 16, dtype=np.uint32).view(np.float32) if kind == "BF16" else found
