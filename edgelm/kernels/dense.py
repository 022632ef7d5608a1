"""Products of a segment with a matrix of integers: uint8 around 128, 32 numbers of a row to a scale.

It is read once a product, a few rows at a time, which are made float32 where they stay in the first cache: a quarter
of a float32 one's memory, and of what has to come over the bus. ``workspace`` is overwritten; ``workspace_size`` says
how much of it there must be.
"""

from __future__ import annotations

from edgelm.kernels.emit import LANES
from edgelm.kernels.jit import entry, kernel
from edgelm.kernels.signature import F1, F2, U2
from edgelm.kernels.tile import RUN, strip, widen

_ROWS, _STEPS = 16, 64
"""Rows at a time of a product that sums along rows, and of one that sums over them."""


def workspace_size(n_steps: int, width: int) -> int:
    """numbers of workspace for products of ``n_steps`` with matrices of rows of ``width``."""
    lanes = -(-n_steps // LANES) * LANES
    return max(lanes * (width + _ROWS) + _ROWS * width, _STEPS * width)


@entry(F2, U2, F2, F1, F2)
def product_along_rows(x, q, scale, workspace, out):
    """out [T,M] = x [T,C] w'; w [M,C] is q [M,C] around 128 times scale [M,C/32]."""
    (n_rows, width), n_steps = q.shape, x.shape[0]
    lanes = (n_steps + LANES - 1) // LANES * LANES
    sums = lanes * width
    plain = sums + lanes * _ROWS
    _strips_of_steps(x, workspace)
    for m in range(0, n_rows, _ROWS):
        n = min(_ROWS, n_rows - m)
        for r in range(n):
            for j in range(0, width, LANES):
                widen(q, (m + r) * width + j, scale[m + r, j // RUN], workspace, plain + r * width + j)
        for s in range(0, lanes, LANES):
            strip(workspace, plain, width, workspace, s * width, LANES, workspace, sums + s, lanes, n, width, False)
        for t in range(n_steps):
            row = out[t]
            for r in range(n):
                row[m + r] = workspace[sums + r * lanes + t]


@entry(F2, U2, F2, F1, F2)
def product_over_rows(y, q, scale, workspace, out):
    """out [T,C] = y [T,M] w; w [M,C] is q [M,C] around 128 times scale [M,C/32]."""
    (n_rows, width), n_steps = q.shape, y.shape[0]
    for m in range(0, n_rows, _STEPS):
        n = min(_STEPS, n_rows - m)
        for r in range(n):
            for j in range(0, width, LANES):
                widen(q, (m + r) * width + j, scale[m + r, j // RUN], workspace, j * n + r * LANES)
        for j in range(0, width, LANES):
            strip(y, m, n_rows, workspace, j * n, LANES, out, j, width, n_steps, n, m > 0)


@kernel
def _strips_of_steps(x, workspace):
    """workspace = x' [C,T] of x [T,C] by strips of 16 steps, each [C,16], filled up with 0."""
    n_steps, width = x.shape
    for first in range(0, n_steps, LANES):
        for j in range(LANES):
            base = first * width + j
            if first + j < n_steps:
                row = x[first + j]
                for k in range(width):
                    workspace[base + k * LANES] = row[k]
            else:
                for k in range(width):
                    workspace[base + k * LANES] = 0
