"""Products of a segment with a matrix of integers: uint8 around 128, 32 numbers of a row to a scale; or, where its rows
are a fourth as long, 2 bits around 2 and scale [1,1] of all numbers.

It is read once a product, a few rows at a time, which are made float32 where they stay in the first cache: a quarter
of a float32 one's memory, and of what has to come over the bus. ``workspace`` is overwritten; ``workspace_size`` says
how much of it there must be.
"""

from __future__ import annotations

from edgelm.kernels.emit import LANES
from edgelm.kernels.emit_panel import WIDE
from edgelm.kernels.jit import entry, kernel
from edgelm.kernels.neurons import changed_row
from edgelm.kernels.panel import fetch, panel, turned
from edgelm.kernels.signature import F1, F2, U2, W2
from edgelm.kernels.tile import strip, widen_either

_ROWS, _STEPS, _AWAKE = 16, 64, 64
"""Rows at a time of a product that sums along rows, of one that sums over them, and of one over some of them."""


def workspace_size(n_steps: int, width: int) -> int:
    """Numbers of workspace for products of ``n_steps`` with matrices of rows of ``width``."""
    lanes = -(-n_steps // LANES) * LANES
    return max(lanes * (width + _ROWS) + _ROWS * width, _STEPS * (n_steps + WIDE), _AWAKE * (n_steps + width))


@entry(F2, U2, F2, F1, F2)
def product_along_rows(x, q, scale, workspace, out):
    """out [T,M] = x [T,C] w'; w [M,C] is q [M,C] around 128 times scale [M,C/32]."""
    n_rows, width = len(q), x.shape[1]
    is_ternary = q.shape[1] < width
    lanes, plain = _turn_tokens(x, workspace)
    for m in range(0, n_rows, _ROWS):
        n = min(_ROWS, n_rows - m)
        for r in range(n):
            for j in range(0, width, LANES):
                widen_either(is_ternary, q, scale, (m + r) * width + j, workspace, plain + r * width + j)
        fetch(q, (m + _ROWS) * q.shape[1], _ROWS * q.shape[1], 64)
        _sum_rows(workspace, plain, lanes, width, n, out, m)


@entry(F2, U2, F2, W2, F1, F2)
def product_along_changed(x, q, scale, change, workspace, out):
    """``product_along_rows`` of a matrix with a change, [M,C] of binary16: ``neurons.changed_row``."""
    n_rows, width = q.shape
    lanes, plain = _turn_tokens(x, workspace)
    for m in range(0, n_rows, _ROWS):
        n = min(_ROWS, n_rows - m)
        for r in range(n):
            changed_row(q, scale, change, m + r, workspace, plain + r * width)
        fetch(q, (m + _ROWS) * width, _ROWS * width, 64)
        fetch(change, (m + _ROWS) * width, _ROWS * width, 32)
        _sum_rows(workspace, plain, lanes, width, n, out, m)


@kernel
def _turn_tokens(x, workspace):
    """Lays x [T,C] down as columns; how many these are, and where in the workspace 16 rows of a matrix have room."""
    n_steps, width = x.shape
    lanes = (n_steps + LANES - 1) // LANES * LANES
    turned(x, 0, width, n_steps, width, workspace, 0, lanes)
    for k in range(width):
        for t in range(n_steps, lanes):
            workspace[k * lanes + t] = 0
    return lanes, lanes * (width + _ROWS)


@kernel
def _sum_rows(workspace, plain, lanes, width, n, out, m):
    """Columns m to m + n of out [T,M], of n rows of a matrix that stand at ``plain``."""
    n_steps, n_rows = out.shape
    sums = lanes * width
    pairs = lanes - lanes % WIDE
    a, names = (workspace, plain, width), (workspace, 0)
    for s in range(0, pairs, WIDE):
        b, c = (workspace, s, lanes), (workspace, sums + s, lanes)
        panel(False, False, False, False, a, b, c, names, n, width)
    if pairs < lanes:
        strip(workspace, plain, width, workspace, pairs, lanes, workspace, sums + pairs, lanes, n, width, False)
    turned(workspace, sums, lanes, n, n_steps, out, m, n_rows)


@entry(F2, U2, F2, F1, F2)
def product_over_rows(y, q, scale, workspace, out):
    """out [T,C] = y [T,M] w; w [M,C] is q [M,C] around 128 times scale [M,C/32]."""
    n_rows, width = len(q), out.shape[1]
    is_ternary = q.shape[1] < width
    for m in range(0, n_rows, _STEPS):
        n = min(_STEPS, n_rows - m)
        _take_columns(y, m, n, workspace)
        for j in range(0, width, WIDE):
            for r in range(n):
                place = (m + r) * width + j
                widen_either(is_ternary, q, scale, place, workspace, r * WIDE)
                widen_either(is_ternary, q, scale, place + LANES, workspace, r * WIDE + LANES)
            _add_rows(workspace, m, n, j, out)


@entry(F2, U2, F2, W2, F1, F2)
def product_over_changed(y, q, scale, change, workspace, out):
    """``product_over_rows`` of a matrix with a change. Rows that no y names, because all of theirs are 0, are not
    read."""
    n_steps, width = out.shape
    rows = _AWAKE * n_steps
    out[:] = 0
    for m in range(0, len(q), _AWAKE):
        n, most = 0, min(_AWAKE, len(q) - m)
        for t in range(n_steps):
            row = y[t]
            for r in range(most):
                workspace[t * _AWAKE + r] = row[m + r]
        for r in range(most):
            is_some = False
            for t in range(n_steps):
                x = workspace[t * _AWAKE + r]
                workspace[t * _AWAKE + n] = x
                is_some |= x != 0
            if is_some:
                changed_row(q, scale, change, m + r, workspace, rows + n * width)
                n += 1
        for j in range(0, width, WIDE):
            a, b, c = (workspace, 0, _AWAKE), (workspace, rows + j, width), (out, j, width)
            panel(True, False, False, False, a, b, c, (workspace, 0), n_steps, n)


@kernel
def _take_columns(y, m, n, workspace):
    """Columns m to m + n of y [T,M], behind the room for rows of a matrix."""
    # Of rows that lie a large power of two apart few stay in the first cache at a time.
    for t in range(len(y)):
        row = y[t]
        for k in range(n):
            workspace[_STEPS * WIDE + t * n + k] = row[m + k]


@kernel
def _add_rows(workspace, m, n, j, out):
    """32 columns of out [T,C], from column j on, of n rows of a matrix, which stand at the beginning of the workspace;
    they begin with row m, and 0 is where the sums begin."""
    a, b, c = (workspace, _STEPS * WIDE, n), (workspace, 0, WIDE), (out, j, out.shape[1])
    if m:
        panel(True, False, False, False, a, b, c, (workspace, 0), len(out), n)
    else:
        panel(False, False, False, False, a, b, c, (workspace, 0), len(out), n)
