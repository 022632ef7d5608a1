"""Matrices of integers whose products make integers of what they are given, too."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgelm.kernels import dots
from edgelm.kernels.emit import LANES
from edgelm.matrices.quantize import BLOCK
from edgelm.matrices.strips import Strips

Array = np.ndarray


@dataclass(frozen=True)
class IntegerProducts:
    """A ``Matrix`` over strips of 8 bits a number; what it multiplies gets a scale for 32 numbers.

    ``product`` is what kernels answer with. ``product_back`` rounds the matrix once more: what shares a scale
    there stands along the other axis (``edgelm/kernels/dots.py``). The workspace holds the integers, so that threads
    share a matrix and nothing else.
    """

    strips: Strips
    dtype = np.dtype(np.float32)

    @property
    def nbytes(self) -> int:
        """As of ``Matrix``."""
        return self.strips.nbytes

    def product(self, x: Array, workspace: Array, out: Array) -> Array:
        """As of ``Matrix``."""
        codes, scales, spare = _parts(workspace, x.size // 4, x.size // LANES, LANES)
        dots.integer_product(x, self.strips.q, self.strips.scale, codes.view(np.uint8), scales, spare, out)
        return out

    def product_back(self, dy: Array, workspace: Array, out: Array) -> Array:
        """As of ``Matrix``."""
        n, runs = len(dy), dots.ACROSS
        codes, scales, turned, of_turned, spare = _parts(
            workspace, 8 * runs * n, 2 * runs * n, 256 * runs, 2 * runs * LANES, BLOCK
        )
        across = turned.view(np.uint8).reshape(2, runs, 8, 4 * LANES), of_turned.reshape(2, runs, LANES)
        of_y = codes.view(np.uint8), scales
        dots.integer_product_back(dy, self.strips.q, self.strips.scale, *of_y, *across, spare, out)
        return out

    def rows(self, ids: Array) -> Array:
        """As of ``Matrix``."""
        return self.strips.rows(ids)

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> Array:
        return self.strips.__array__(dtype, copy)


def workspace_size(n_steps: int, width: int) -> int:
    """Numbers of workspace for products of ``n_steps`` rows of at most ``width`` numbers."""
    forward = n_steps * width // 4 + n_steps * width // LANES + LANES
    return max(forward, dots.ACROSS * (10 * n_steps + 256 + 2 * LANES) + BLOCK)


def _parts(workspace: Array, *sizes: int) -> list[Array]:
    """The first numbers of the workspace, in parts."""
    parts, first = [], 0
    for size in sizes:
        parts.append(workspace[first : first + size])
        first += size
    return parts
