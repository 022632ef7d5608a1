"""Matrices of integers with 16 rows side by side (``edgelm/kernels/dots.py``); ``IntegerProducts`` multiplies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgelm.kernels import dots
from edgelm.kernels.emit import LANES
from edgelm.matrices.pages import Pages
from edgelm.matrices.quantize import BLOCK, pack_bits, unpack_bits
from edgelm.matrices.ternary import Ternary

Array = np.ndarray


@dataclass(frozen=True)
class Strips:
    """A matrix W' [out,in], or a stack of them, as uint8 around 128 with a scale for 32 numbers, in strips of 16 rows;
    or as 2 bits around 2 with one scale.

    Attributes
    ----------
    q : ndarray [..., out / 16, in / 32, 8, 64] of uint8, or [..., out / 16, in / 32, 2, 64]
        Rows that fill up the last strip are 0.
    scale : ndarray [..., out / 16, in / 32, 16] of float32, or [..., 1, 1, 1]
    n_rows : int
        out, which need not be a multiple of 16.
    """

    q: Array
    scale: Array
    n_rows: int

    @classmethod
    def of(cls, q: Array, scale: Array, pages: Pages | None = None) -> Strips:
        """A copy, in strips, of ``Int8``'s numbers q [..., out, in] of uint8 and scale [..., out, in / 32] of
        float32; it stands in ``pages``, if some are given."""
        *stack, n_rows, width = q.shape
        shape = (*stack, -(-n_rows // LANES), width // BLOCK)
        pages = pages or Pages()
        made = cls(pages.array((*shape, 8, 4 * LANES), np.uint8), pages.array((*shape, LANES), np.float32), n_rows)
        made.q.fill(128)
        made.scale.fill(0)
        words, of_words = np.ascontiguousarray(q).view(np.int32), made.q.view(np.int32)
        for place in np.ndindex(*stack):
            dots.strips(words[place], np.ascontiguousarray(scale[place]), of_words[place], made.scale[place])
        return made

    @classmethod
    def of_ternary(cls, matrix: Ternary) -> Strips:
        """A copy, in strips, of 2 bits a number, four of them from four groups in a byte."""
        numbers = unpack_bits(matrix.q, 2)
        *stack, n_rows, width = numbers.shape
        filled = np.full((*stack, -(-n_rows // LANES) * LANES, width), 2, np.uint8)
        filled[..., :n_rows, :] = numbers
        # Of strip, row, run, half of a run, group, and number in it, the groups come last.
        parts = filled.reshape(*stack, -1, LANES, width // BLOCK, 2, 4, 4)
        order = [*range(len(stack)), *(len(stack) + axis for axis in (0, 2, 3, 1, 5, 4))]
        q = pack_bits(parts.transpose(order), 2).reshape(*stack, -1, width // BLOCK, 2, 4 * LANES)
        return cls(q, np.full((*stack, 1, 1, 1), matrix.scale, np.float32), n_rows)

    @property
    def is_one(self) -> bool:
        """Whether it is one matrix, not a stack."""
        return self.q.ndim == 4

    @property
    def can_learn(self) -> bool:
        """Whether learning has kernels for a stack: whole strips of its matrices make pairs."""
        return not self.is_one and self.n_rows % (2 * LANES) == 0

    def quantize(self, weight: Array, used: Array) -> None:
        """Takes over the ``used`` blocks [M] of bool of a stack weight [M,out,in] of float32."""
        codes = np.zeros(weight.shape[1:], np.uint8)
        dots.quantize_strips(weight, used, codes, codes.view(np.int32), self.q.view(np.int32), self.scale)

    def empty_copy(self) -> Strips:
        """Of the same shape, with whatever its memory holds."""
        return Strips(np.empty_like(self.q), np.empty_like(self.scale), self.n_rows)

    def copy_from(self, other: Strips, used: Array) -> None:
        """Takes over the ``used`` blocks [M] of bool of a stack of the same shape."""
        which = slice(None) if used.all() else np.flatnonzero(used)
        self.q[which], self.scale[which] = other.q[which], other.scale[which]

    def rows(self, ids: Array) -> Array:
        """As of ``edgelm.matrices.matrix.Matrix``; of a stack, whole matrices. Not of 2 bits a number."""
        if self.q.ndim > 4:
            parts = [Strips(self.q[i], self.scale[i], self.n_rows) for i in ids]
            return np.array([part.rows(np.arange(self.n_rows)) for part in parts], np.float32)
        strip, lane = np.divmod(ids, LANES)
        numbers = self.q.reshape(*self.q.shape[:-1], LANES, 4)[strip, :, :, lane].astype(np.float32)
        scale = self.scale[strip, :, lane][..., None, None]
        return ((numbers - np.float32(128)) * scale).reshape(len(ids), -1)

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> Array:
        n = len(self.q) if self.q.ndim > 4 else self.n_rows
        return self.rows(np.arange(n)).astype(dtype or np.float32, copy=False)

    @property
    def nbytes(self) -> int:
        """Bytes of its numbers and scales."""
        return self.q.nbytes + self.scale.nbytes
