"""Matrices with their products, whatever their numbers are kept as.

Vectors are rows: y = x W. A matrix [in,out] that sums over its first axis is kept as its equations write it while it
is float32, and transposed, [out,in], as integers, so that the 32 numbers that share a scale are summed one by one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from edgelm.matrices.quantize import BLOCK

Array = np.ndarray


class Matrix(Protocol):
    """A way to hold the numbers of W, and what is computed with them.

    ``workspace`` is flat, of ``workspace_size`` numbers, and overwritten; so all matrices may share one.
    """

    dtype: np.dtype
    """Of the arithmetic."""

    @property
    def nbytes(self) -> int:
        """Bytes of its numbers."""

    def product(self, x: Array, workspace: Array, out: Array) -> Array:
        """out [T,out] = x [T,in] W."""

    def product_back(self, dy: Array, workspace: Array, out: Array) -> Array:
        """out [T,in] = dy [T,out] W'."""

    def rows(self, ids: Array) -> Array:
        """Rows [T,in] of W' [out,in], float32: what the embedding gives for ids [T]."""

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> Array:
        """Its numbers, in the shape in which it is kept."""


def workspace_size(n_steps: int, n_in: int, n_out: int) -> int:
    """Numbers of workspace for products of at most ``n_steps`` rows, of any kind of matrix."""
    from edgelm.kernels import dense

    return max(n_steps * max(n_in, n_out), dense.workspace_size(n_steps, n_in))


class Float32:
    """Floating-point numbers as they are (float64 where a test wants it so).

    Parameters
    ----------
    numbers : ndarray
        Read at every product, so that changed numbers count at once.
    sums : int
        0: W [in,out]; -1: W' [out,in].
    """

    def __init__(self, numbers: Array, sums: int) -> None:
        self.numbers, self.dtype, self._turned = numbers, numbers.dtype, sums == -1

    @property
    def nbytes(self) -> int:
        """As of ``Matrix``."""
        return self.numbers.nbytes

    def product(self, x: Array, workspace: Array, out: Array) -> Array:
        """As of ``Matrix``."""
        if self._turned:
            return _product_with_transposed(x, self.numbers, workspace, out)
        return np.dot(x, self.numbers, out=out)

    def product_back(self, dy: Array, workspace: Array, out: Array) -> Array:
        """As of ``Matrix``."""
        if self._turned:
            return np.dot(dy, self.numbers, out=out)
        return _product_with_transposed(dy, self.numbers, workspace, out)

    def rows(self, ids: Array) -> Array:
        """As of ``Matrix``."""
        return self.numbers[ids] if self._turned else self.numbers[:, ids].T

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> Array:
        return self.numbers.astype(dtype or self.dtype, copy=bool(copy))


@dataclass(frozen=True)
class Int8:
    """Integers with a scale for each run of 32; numpy takes it for its float32 numbers [..., n].

    Attributes
    ----------
    q : ndarray [..., n] of uint8
        Around 128; the axis that products sum over comes last.
    scale : ndarray [..., n / 32] of float32
    """

    q: Array
    scale: Array
    dtype = np.dtype(np.float32)

    @property
    def nbytes(self) -> int:
        """As of ``Matrix``."""
        return self.q.nbytes + self.scale.nbytes

    def product(self, x: Array, workspace: Array, out: Array) -> Array:
        """As of ``Matrix``."""
        from edgelm.kernels import dense

        dense.product_along_rows(x, self.q, self.scale, workspace, out)
        return out

    def product_back(self, dy: Array, workspace: Array, out: Array) -> Array:
        """As of ``Matrix``."""
        from edgelm.kernels import dense

        dense.product_over_rows(dy, self.q, self.scale, workspace, out)
        return out

    def rows(self, ids: Array) -> Array:
        """As of ``Matrix``."""
        return np.asarray(Int8(self.q[ids], self.scale[ids]))

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> Array:
        runs = self.q.reshape(*self.scale.shape, BLOCK).astype(np.float32)
        runs -= np.float32(128)
        runs *= self.scale[..., None]
        return runs.reshape(self.q.shape).astype(dtype or np.float32, copy=False)


Operand = Array | Int8
Operands = Mapping[str, Any]
"""Tensors by name: ndarray, or integers."""


def as_matrix(operand: Any, sums: int) -> Matrix:
    """What computes with a tensor: itself if it can, else its floating-point numbers, which sum over axis ``sums``."""
    return operand if hasattr(operand, "product") else Float32(operand, sums)


def _product_with_transposed(x: Array, w: Array, workspace: Array, out: Array) -> Array:
    """out [T,N] = x [T,K] w' of a large w [N,K].

    BLAS is slow to arrange a large transposed matrix, up to half the time of so short a product; it takes
    the small one transposed instead.
    """
    turned = workspace[: out.size].reshape(len(w), len(x))
    np.dot(w, x.T, out=turned)
    out[:] = turned.T
    return out
