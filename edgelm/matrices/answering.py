"""Matrices for answering alone: products in one direction."""

from __future__ import annotations

import numpy as np

from edgelm.kernels import dots
from edgelm.kernels.emit import LANES
from edgelm.matrices.quantize import BLOCK
from edgelm.matrices.strips import Strips

Array = np.ndarray
Buffers = dict[str, Array]


class IntegerProducts:
    """A matrix of integers, whose products make integers of what they are given too, 32 numbers to a scale.

    Parameters
    ----------
    strips : Strips
    max_steps : int
        Rows of the longest product.
    buffers : dict of ndarray
        Shared by all such matrices; those that are needed are added.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, strips: Strips, max_steps: int, buffers: Buffers) -> None:
        self._q, self._scale = strips.q, strips.scale
        width = self._q.shape[1] * BLOCK
        sizes = {"codes": (width * max_steps, np.uint8), "scales": (width * max_steps // LANES, np.float32)}
        self._codes, self._scales = (
            buffers.setdefault(f"{name} of products of {width}", np.zeros(size, dtype))
            for name, (size, dtype) in sizes.items()
        )
        self._spare = buffers.setdefault("spare of products", np.zeros(LANES, np.float32))

    def product(self, x: Array, workspace: Array, out: Array) -> Array:
        """As of ``edgelm.matrices.matrix.Matrix``; ``workspace`` is left alone."""
        dots.integer_product(x, self._q, self._scale, self._codes, self._scales, self._spare, out)
        return out
