"""Memory for arrays: that are read as fast as memory gives them, or of which most stays as it is."""

from __future__ import annotations

import math
import mmap

import numpy as np

_PIECE, _LINE = 32 << 20, 64
"""Bytes that are asked of the system at once, and that come from memory together."""

_OWN = 1 << 16
"""From so many bytes on, memory of its own is worth it."""


def untouched(shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """An array of 0, whose pages take no memory before something else is written to them."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size < _OWN:
        return np.zeros(shape, dtype)
    # What the heap gives may have been used before, and is wiped then: every page of it is touched. And of 4 MB or more
    # numpy makes large pages, each of which is there as a whole.
    return np.frombuffer(mmap.mmap(-1, size, access=mmap.ACCESS_COPY), dtype).reshape(shape)


class Pages:
    """Many arrays side by side, in pieces for which numpy asks the system for large pages.

    A matrix of less than 4 MB would stand on pages of 4 KB, and whoever reads a model from end to end would wait for
    the address of each. What was never written takes no memory, but for the rest of a large page.
    """

    def __init__(self) -> None:
        self._piece, self._used = np.empty(0, np.uint8), 0

    def array(self, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        """An array that begins with a line of the cache; what it holds is anything."""
        n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
        start = self._used + -(self._piece.ctypes.data + self._used) % _LINE
        if start + n_bytes > len(self._piece):
            self._piece = np.empty(max(_PIECE, n_bytes + _LINE), np.uint8)
            start = -self._piece.ctypes.data % _LINE
        self._used = start + n_bytes
        return self._piece[start : self._used].view(dtype).reshape(shape)
