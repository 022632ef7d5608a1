"""Memory for arrays that are read as fast as memory gives them."""

from __future__ import annotations

import math

import numpy as np

_PIECE, _LINE = 32 << 20, 64
"""Bytes that are asked of the system at once, and that come from memory together."""


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
