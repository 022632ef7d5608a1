"""Matrices of -1, 0 and 1 times one scale (BitNet b1.58, Ma et al. 2024, arXiv 2402.17764), 2 bits a number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgelm.matrices.quantize import pack_bits, unpack_bits

Array = np.ndarray
_LEAST = np.float16(6e-8)
"""The smallest float16: zeros must not divide by zero."""


@dataclass(frozen=True)
class Ternary:
    """Numbers (q - 2) * scale, of a scale that is that of all. Read-only.

    ``np.asarray`` makes an array [..., n] of float32 of it. The products take two axes: ``q`` is W' [out,in] then. Of a
    stack of matrices, three axes, ``rows`` are whole matrices. No weight is the fourth number that 2 bits can hold; it
    would be -2, here and in every kernel.

    Attributes
    ----------
    q : ndarray [..., n / 4] of uint8
        Four numbers a byte, the first in the lowest bits; n is the length of the axis that products sum over, a
        multiple of 32.
    scale : ndarray [1] of float32
    """

    q: Array
    scale: Array
    dtype = np.dtype(np.float32)

    @classmethod
    def of(cls, numbers: Array) -> Ternary:
        """The nearest one to numbers [..., n] of float32: the scale is the mean of their absolute values, rounded to
        float16."""
        scale = np.maximum(np.abs(numbers).mean(dtype=np.float64).astype(np.float16), _LEAST).astype(np.float32)
        q = np.clip(np.rint(numbers / scale), -1, 1).astype(np.int8) + np.int8(2)
        return cls(pack_bits(q.view(np.uint8), 2), scale.reshape(1))

    @property
    def nbytes(self) -> int:
        """As of ``Matrix``."""
        return self.q.nbytes + self.scale.nbytes

    def product(self, x: Array, workspace: Array, out: Array) -> Array:
        """As of ``Matrix``."""
        from edgelm.kernels import dense

        dense.product_along_rows(x, self.q, self.scale[None], workspace, out)
        return out

    def product_back(self, dy: Array, workspace: Array, out: Array) -> Array:
        """As of ``Matrix``."""
        from edgelm.kernels import dense

        dense.product_over_rows(dy, self.q, self.scale[None], workspace, out)
        return out

    def rows(self, ids: Array) -> Array:
        """As of ``Matrix``."""
        return np.asarray(Ternary(self.q[ids], self.scale))

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> Array:
        numbers = unpack_bits(self.q, 2).astype(np.float32)
        numbers -= np.float32(2)
        numbers *= self.scale
        return numbers.astype(dtype or np.float32, copy=False)
