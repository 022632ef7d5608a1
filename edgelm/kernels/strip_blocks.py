"""``blocks_forward`` and ``blocks_backward`` with W1 as whoever answers holds it, in strips of 16 rows
(``edgelm/kernels/dots.py``): one copy for both. B is a multiple of 32, and so is D."""

from __future__ import annotations

from edgelm.kernels.blocks import write_backward, write_forward
from edgelm.kernels.emit import LANES
from edgelm.kernels.emit_panel import WIDE
from edgelm.kernels.jit import entry
from edgelm.kernels.panel import FOUR, along, fetch, panel
from edgelm.kernels.signature import F1, F2, F3, F4, I1, U5
from edgelm.kernels.tile import RUN, widen_group


@entry(F2, F2, U5, F4, F3, I1, I1, F2, F2, F2, F1, F2)
def blocks_forward_strips(h, a, q1, scale1, w2, starts, tokens, slope, hidden, plain, workspace, y):
    """``blocks_forward`` with W1 as q1 [M,B/16,D/32,8,64] and scale1 [M,B/16,D/32,16]; plain [B,D] overwritten."""
    n_blocks, width, size = w2.shape
    n_strips, n_runs = q1.shape[1:3]
    for i in range(n_blocks):
        first, last = starts[i], starts[i + 1]
        if first < last:
            for strip in range(n_strips):
                for run in range(n_runs):
                    place = (i * n_strips + strip) * n_runs + run
                    for group in range(8):
                        q0, column = (place * 8 + group) * 4 * LANES, run * RUN + 4 * group
                        widen_group(q1, q0, scale1, place * LANES, plain, column, width)
                for b in range(0, LANES, FOUR):
                    row = strip * LANES + b
                    # What is needed next comes while this is computed, a part at a time.
                    fetch(w2, (i * size + row) * width, FOUR * width, 16)
                    four, c = (plain, b * width, width), (slope, first * size + row, size)
                    along((h, 0, width), four, c, (tokens, first), last - first, width)
            write_forward(h, a, i, w2, starts, tokens, slope, hidden, workspace, y)


@entry(F2, F2, U5, F4, F3, I1, I1, F2, F2, F1, F2, F2)
def blocks_backward_strips(dy, a, q1, scale1, w2, starts, tokens, slope, hidden, workspace, da, dh):
    """``blocks_backward`` with W1 as ``blocks_forward_strips`` takes it."""
    n_blocks, width, size = w2.shape
    n_strips, n_runs = q1.shape[1:3]
    da[:] = 0
    for i in range(n_blocks):
        first, n = starts[i], starts[i + 1] - starts[i]
        if n > 0:
            write_backward(dy, a, i, w2, starts, tokens, slope, hidden, workspace, da)
            for run in range(n_runs):
                for strip in range(n_strips):
                    place = (i * n_strips + strip) * n_runs + run
                    for group in range(8):
                        q0, row = (place * 8 + group) * 4 * LANES, strip * LANES * WIDE
                        widen_group(q1, q0, scale1, place * LANES, workspace, row + 4 * group, WIDE)
                of_b, of_dh = (workspace, 0, WIDE), (dh, run * RUN, width)
                panel(True, False, False, True, (slope, first * size, size), of_b, of_dh, (tokens, first), n, size)
