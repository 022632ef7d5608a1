"""Memory of the passes, taken once."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from edgelm.cells.cell import Cell, Parts
from edgelm.matrices.matrix import Matrix, Operands, as_matrix


def make_buffers(
    widths: dict[str, int], max_steps: int, dtype: np.dtype, shared_buffers: Parts, shared: Collection[str] = ()
) -> Parts:
    """Arrays [max_steps, width] by name.

    Those that hold nothing between two calls, gradients (``d...``) and those named in ``shared``, are the same for all
    passes of one kind, and so stay in cache; they are kept in ``shared_buffers``.
    """
    buffers: Parts = {}
    for name, width in widths.items():
        key = f"{name}.{width}"
        if name.startswith("d") or name in shared:
            buffers[name] = shared_buffers.setdefault(key, np.zeros((max_steps, width), dtype))
        else:
            buffers[name] = np.zeros((max_steps, width), dtype)
    return buffers


def matrix_of(cell: Cell, weights: Operands, name: str) -> Matrix:
    """One of the cell's matrices with its products."""
    return as_matrix(weights[name], cell.MATRICES[name])
