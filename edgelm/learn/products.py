"""Products of a segment with a frozen matrix, kept as float32 or as the integers of the model's file."""

from __future__ import annotations

import numpy as np

from edgelm.kernels import dense
from edgelm.model.packing import Int8Matrix, Tensor

Array = np.ndarray


class Product:
    """y = x W, and what comes back through it.

    Parameters
    ----------
    matrix : ndarray or Int8Matrix
        W [in,out]; or W' [out,in], as integers always are.
    room : ndarray
        Flat, of ``room_for`` numbers; overwritten, and so shared by all.
    turned : bool
        Whether a float32 ``matrix`` is W'.
    """

    def __init__(self, matrix: Tensor, room: Array, *, turned: bool = False) -> None:
        self._matrix, self._room, self._turned = matrix, room, turned

    @staticmethod
    def room_for(n_steps: int, n_in: int, n_out: int) -> int:
        """Numbers of room for segments of ``n_steps``."""
        return max(n_steps * max(n_in, n_out), dense.room_for(n_steps, n_in))

    def forward(self, x: Array, out: Array) -> Array:
        """out [T,out] = x [T,in] W."""
        w = self._matrix
        if isinstance(w, Int8Matrix):
            dense.product_along_rows(x, w.q, w.scale, self._room, out)
        elif self._turned:
            _dot_turned(x, w, self._room, out)
        else:
            np.dot(x, w, out=out)
        return out

    def backward(self, dy: Array, out: Array) -> Array:
        """out [T,in] = dy [T,out] W'."""
        w = self._matrix
        if isinstance(w, Int8Matrix):
            dense.product_over_rows(dy, w.q, w.scale, self._room, out)
        elif self._turned:
            np.dot(dy, w, out=out)
        else:
            _dot_turned(dy, w, self._room, out)
        return out


def rows_of(matrix: Tensor, ids: Array) -> Array:
    """Rows [T,in] of W' [out,in]."""
    if not isinstance(matrix, Int8Matrix):
        return matrix[ids]
    return np.asarray(Int8Matrix(matrix.q[ids], matrix.scale[ids]))


def _dot_turned(x: Array, w: Array, room: Array, out: Array) -> None:
    """out [T,N] = x [T,K] w' of a large w [N,K].

    BLAS is slow to arrange a large transposed matrix, up to half the time of so short a product; it takes
    the small one transposed instead.
    """
    turned = room[: out.size].reshape(len(w), len(x))
    np.dot(w, x.T, out=turned)
    out[:] = turned.T
