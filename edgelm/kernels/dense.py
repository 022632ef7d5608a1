"""Products of a segment with a matrix of integers: uint8 around 128, 32 numbers of a row to a scale.

It is read once a product, a few rows at a time, which are made float32 where they stay in the first cache: a quarter
of a float32 one's memory, and of what has to come over the bus. ``workspace`` is overwritten; ``workspace_size`` says
how much of it there must be.
"""

from __future__ import annotations

from edgelm.kernels.emit import LANES
from edgelm.kernels.emit_panel import WIDE
from edgelm.kernels.jit import entry
from edgelm.kernels.panel import fetch, panel, turned
from edgelm.kernels.signature import F1, F2, U2
from edgelm.kernels.tile import RUN, strip, widen

_ROWS, _STEPS = 16, 64
"""Rows at a time of a product that sums along rows, and of one that sums over them."""


def workspace_size(n_steps: int, width: int) -> int:
    """Numbers of workspace for products of ``n_steps`` with matrices of rows of ``width``."""
    lanes = -(-n_steps // LANES) * LANES
    return max(lanes * (width + _ROWS) + _ROWS * width, _STEPS * (n_steps + WIDE))


@entry(F2, U2, F2, F1, F2)
def product_along_rows(x, q, scale, workspace, out):
    """out [T,M] = x [T,C] w'; w [M,C] is q [M,C] around 128 times scale [M,C/32]."""
    (n_rows, width), n_steps = q.shape, x.shape[0]
    lanes = (n_steps + LANES - 1) // LANES * LANES
    sums = lanes * width
    plain = sums + lanes * _ROWS
    turned(x, 0, width, n_steps, width, workspace, 0, lanes)
    for k in range(width):
        for t in range(n_steps, lanes):
            workspace[k * lanes + t] = 0
    for m in range(0, n_rows, _ROWS):
        n = min(_ROWS, n_rows - m)
        for r in range(n):
            for j in range(0, width, LANES):
                widen(q, (m + r) * width + j, scale[m + r, j // RUN], workspace, plain + r * width + j)
        fetch(q, (m + _ROWS) * width, _ROWS * width, 64)
        pairs = lanes - lanes % WIDE
        a, names = (workspace, plain, width), (q, 0)
        for s in range(0, pairs, WIDE):
            b, c = (workspace, s, lanes), (workspace, sums + s, lanes)
            panel(False, False, False, False, a, b, c, names, n, width)
        if pairs < lanes:
            strip(workspace, plain, width, workspace, pairs, lanes, workspace, sums + pairs, lanes, n, width, False)
        turned(workspace, sums, lanes, n, n_steps, out, m, n_rows)


@entry(F2, U2, F2, F1, F2)
def product_over_rows(y, q, scale, workspace, out):
    """out [T,C] = y [T,M] w; w [M,C] is q [M,C] around 128 times scale [M,C/32]."""
    (n_rows, width), n_steps = q.shape, y.shape[0]
    part = _STEPS * WIDE
    for m in range(0, n_rows, _STEPS):
        n = min(_STEPS, n_rows - m)
        # Of rows that lie a large power of two apart few stay in the first cache at a time.
        for t in range(n_steps):
            row = y[t]
            for k in range(n):
                workspace[part + t * n + k] = row[m + k]
        a, b, names = (workspace, part, n), (workspace, 0, WIDE), (q, 0)
        for j in range(0, width, WIDE):
            for r in range(n):
                widen(q, (m + r) * width + j, scale[m + r, j // RUN], workspace, r * WIDE)
                widen(q, (m + r) * width + j + LANES, scale[m + r, j // RUN], workspace, r * WIDE + LANES)
            if m:
                panel(True, False, False, False, a, b, (out, j, width), names, n_steps, n)
            else:
                panel(False, False, False, False, a, b, (out, j, width), names, n_steps, n)
