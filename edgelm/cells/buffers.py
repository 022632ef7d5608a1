"""Memory of the passes, taken once."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from edgelm.cells.cell import Array, Cell, Parts
from edgelm.matrices.integer_products import IntegerProducts
from edgelm.matrices.matrix import Int8, Matrix, Operands, as_matrix
from edgelm.matrices.quantize import BLOCK

FORWARD_ALONE = "forward alone"
"""What shared buffers hold if passes that use them never go backward."""


def make_buffers(
    widths: dict[str, int], max_steps: int, dtype: np.dtype, shared_buffers: Parts, shared: Collection[str] = ()
) -> Parts:
    """Arrays [max_steps, width] by name.

    Those that hold nothing between two calls, gradients (``d...``) and those named in ``shared``, are the same for all
    passes of one kind, and so stay in cache; they are kept in ``shared_buffers``. If that holds ``FORWARD_ALONE``, no
    pass goes backward, and all are the same.
    """
    buffers: Parts = {}
    for name, width in widths.items():
        key = f"{name}.{width}"
        if name.startswith("d") or name in shared or FORWARD_ALONE in shared_buffers:
            buffers[name] = shared_buffers.setdefault(key, np.zeros((max_steps, width), dtype))
        else:
            buffers[name] = np.zeros((max_steps, width), dtype)
    return buffers


class Taking:
    """What passes that are recorded do for a segment beside their calls.

    Attributes
    ----------
    buffers, b : dict of ndarray
        Those of ``make_buffers``, and of each what the present segment needs.
    x : ndarray [T,D]
        The residual stream before the part, for ``backward``.
    """

    buffers: Parts
    b: Parts
    x: Array

    def take(self, x: Array) -> None:
        """As of ``edgelm.cells.passes.CalledPass``."""
        self.x = x
        if len(x) != len(next(iter(self.b.values()))):
            self.b = {name: buffer[: len(x)] for name, buffer in self.buffers.items()}


def matrix_of(cell: Cell, weights: Operands, name: str) -> Matrix:
    """One of the cell's matrices with its products."""
    return as_matrix(weights[name], cell.MATRICES[name])


def are_calls(*matrices: Matrix) -> bool:
    """Whether the products of these matrices are calls of kernels and nothing else."""
    return all(isinstance(matrix, Int8 | IntegerProducts) for matrix in matrices)


def integer_buffers(widest: int, d_model: int, max_steps: int, buffers: Parts) -> tuple[Array, Array, Array]:
    """What all fused kernels work in: h [D], and activations as integers, with their scales, of at most ``max_steps``
    rows of ``widest`` numbers."""
    n_runs = max_steps * widest // BLOCK
    if buffers.setdefault("codes", np.zeros(0, np.uint8)).size < n_runs * BLOCK:
        buffers["codes"], buffers["scales"] = np.zeros(n_runs * BLOCK, np.uint8), np.zeros(2 * n_runs, np.float32)
    return buffers.setdefault("h", np.zeros(d_model, np.float32)), buffers["codes"], buffers["scales"]


def integers_of(weights: Operands, *names: str) -> tuple[Array, ...]:
    """The numbers and the scales of some matrices of integers, one after the other."""
    return tuple(part for name in names for part in (weights[name].q, weights[name].scale))
