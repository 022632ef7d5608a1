"""Matrices with their products, in whatever form their numbers are kept.

Vectors are rows, y = x W, and W is [in,out]; W' is its transpose. Some matrices are W in the equations, and their
products sum over the first axis; others are W' [out,in], and their products sum over the last. As float32 numbers both
are kept as the equations write them. As integers both are kept as W' [out,in], so that the 32 numbers that share a
scale lie side by side along the axis that a product sums over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from edgelm.matrices.quantize import BLOCK
from edgelm.matrices.ternary import Ternary

Array = np.ndarray


class Matrix(Protocol):
    """A way to hold the numbers of W [in,out], and what is computed with them.

    Arrays are C-contiguous and of ``dtype``. ``workspace`` is flat, has at least ``workspace_size`` numbers and is
    overwritten; no result is kept in it, so all matrices may share one. ``out`` is overwritten and returned; it must
    not overlap the other arguments.
    """

    dtype: np.dtype
    """Of the arithmetic."""

    @property
    def nbytes(self) -> int:
        """Bytes that its numbers, and the scales if there are any, take."""

    def product(self, x: Array, workspace: Array, out: Array) -> Array:
        """out [T,out] = x [T,in] W; x is read."""

    def product_back(self, dy: Array, workspace: Array, out: Array) -> Array:
        """out [T,in] = dy [T,out] W', as a gradient is carried back through ``product``; dy is read."""

    def rows(self, ids: Array) -> Array:
        """A new array [T,in]: the rows of W' [out,in] with the numbers ``ids`` [T] int64, as an embedding is read."""

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> Array:
        """Its floating-point numbers in the shape in which they are kept: W [in,out] or W' [out,in]."""


def workspace_size(n_steps: int, shape: tuple[int, ...]) -> int:
    """How many numbers of workspace both products take, of whatever form of matrix, for at most ``n_steps`` rows.

    ``shape`` are the lengths of the two axes of the matrix, in either order.
    """
    from edgelm.kernels import dense
    from edgelm.matrices import integer_products

    widest = max(shape)
    sizes = (module.workspace_size(n_steps, widest) for module in (dense, integer_products))
    return max(n_steps * widest, *sizes)


class Float32:
    """Floating-point numbers as they are: float32, or float64 where a test wants it so.

    Parameters
    ----------
    numbers : ndarray
        Kept, not copied: what is written into it counts from the next product on.
    sums : int
        The axis that products sum over: 0 if ``numbers`` are W [in,out], -1 if they are W' [out,in].
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
    """Numbers (q - 128) * scale, where each run of 32 numbers along the last axis has one scale. Read-only.

    ``np.asarray`` makes an array [..., n] of float32 of it. The products take two axes: ``q`` is W' [out,in] then. Of a
    stack of matrices, three axes, ``rows`` are whole matrices.

    Attributes
    ----------
    q : ndarray [..., n] of uint8
        n is the length of the axis that products sum over, a multiple of 32.
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


Operand = Array | Int8 | Ternary
Operands = Mapping[str, Any]
"""Tensors by name: ndarray, or integers."""


def as_matrix(operand: Any, sums: int) -> Matrix:
    """The matrix that computes with a tensor: the operand itself if it has products, else ``Float32`` over it.

    Parameters
    ----------
    operand : ndarray or Matrix
        Not copied.
    sums : int
        The axis, 0 or -1, that products with an ndarray sum over. It does not matter for integers.
    """
    return Float32(operand, sums) if isinstance(operand, np.ndarray) else operand


def _product_with_transposed(x: Array, w: Array, workspace: Array, out: Array) -> Array:
    """out [T,N] = x [T,K] w' of a large w [N,K]; the first T N numbers of the workspace are overwritten.

    BLAS needs up to half the time of so short a product to rearrange a large transposed matrix. So w x' is computed,
    for which only the small x is transposed, and the result is transposed into ``out``.
    """
    turned = workspace[: out.size].reshape(len(w), len(x))
    np.dot(w, x.T, out=turned)
    out[:] = turned.T
    return out
