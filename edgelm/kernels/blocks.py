"""The router and the neuron blocks: only the blocks that are awake are read, computed and changed.

Equations: ``edgelm.cells.block_ffn.paper``. A *pair* is a token and a block that
wakes for it; pairs stand grouped by block, so that a block's weights are read once a segment.
"""

from __future__ import annotations

import numpy as np

from edgelm.kernels.emit import LANES
from edgelm.kernels.emit_panel import WIDE
from edgelm.kernels.jit import entry, kernel
from edgelm.kernels.norm import ONE, ZERO, exp, sigmoids
from edgelm.kernels.optim import step
from edgelm.kernels.panel import FOUR, along, fetch, panel, pulled, turned
from edgelm.kernels.signature import F1, F2, F3, I1, U2, U3, F, I
from edgelm.kernels.tile import RUN, product, product_across, turn, widen, widen_either


@entry(F2, F1, F1, I, F, F2, F1, F2)
def route_forward(a0, bias, log_gamma, max_awake, eps, a1, inverse, a):
    """a0 (before the bias), a1, a [T,M]; a1 and inverse [T] are kept for backward."""
    n_steps, n_blocks = a0.shape
    for t in range(n_steps):
        total = ZERO
        n_awake = 0
        for i in range(n_blocks):
            x = max(a0[t, i] + bias[i], ZERO)
            a1[t, i] = x
            total += x * x
            n_awake += x > 0
        r = ONE / np.sqrt(total / np.float32(n_blocks) + eps)
        inverse[t] = r
        for i in range(n_blocks):
            a[t, i] = a1[t, i] * r * exp(log_gamma[i])
        keep_strongest(a[t], n_awake, max_awake)


@kernel
def keep_strongest(a, n_awake, max_awake):
    """Of activations a [M], of which ``n_awake`` are above 0, the weakest become 0 until ``max_awake`` are left; of
    equals the last, as the stable sort of the paper does."""
    while n_awake > max_awake:
        weakest = -1
        for i in range(len(a)):
            if a[i] > 0 and (weakest < 0 or a[i] <= a[weakest]):
                weakest = i
        a[weakest] = 0
        n_awake -= 1


@entry(F2, F2, F1, F1, F2, F2, F1)
def route_backward(da, a1, log_gamma, inverse, a, da0, dlog_gamma):
    """da [T,M] (0 where asleep) to da0 [T,M] overwritten; dlog_gamma [M] added to."""
    n_steps, n_blocks = a1.shape
    for t in range(n_steps):
        r = inverse[t]
        dot = ZERO
        for i in range(n_blocks):
            if a[t, i] > 0:
                dlog_gamma[i] += da[t, i] * a[t, i]
        # Apart from what is stored, as in ``write_backward``.
        for i in range(n_blocks):
            if a[t, i] > 0:
                dot += da[t, i] * a[t, i]  # = da gamma a1 r
        back = dot * r * r / np.float32(n_blocks)
        for i in range(n_blocks):
            if a1[t, i] > 0:
                da0[t, i] = -a1[t, i] * back
                if a[t, i] > 0:
                    da0[t, i] += da[t, i] * exp(log_gamma[i]) * r
            else:
                da0[t, i] = 0


@entry(F2, I1, I1)
def group_pairs(a, starts, tokens):
    """Pairs by block: starts [M+1] and tokens [T*A] overwritten; block i has tokens[starts[i]:starts[i+1]]."""
    n_steps, n_blocks = a.shape
    count = 0
    for i in range(n_blocks):
        starts[i] = count
        for t in range(n_steps):
            if a[t, i] > 0:
                tokens[count] = t
                count += 1
    starts[n_blocks] = count


def workspace_size(n_steps: int, size: int, width: int) -> int:
    """numbers of workspace that the passes of blocks of B = ``size`` and D = ``width`` work in."""
    return 2 * size * width + 2 * n_steps * width + n_steps * size


@entry(F2, F2, F3, F3, I1, I1, F2, F2, F1, F2)
def blocks_forward(h, a, w1, w2, starts, tokens, slope, hidden, workspace, y):
    """y [T,D] += sum over awake blocks of a SiLU(h W1') W2'.

    h [T,D]; a [T,M]; w1 [M,B,D]; w2 [M,D,B]; hidden and slope [pairs,B] overwritten with SiLU(h W1') and its
    derivative there, for backward; workspace is overwritten.
    """
    n_blocks, width, size = w2.shape
    for i in range(n_blocks):
        first, last = starts[i], starts[i + 1]
        if first < last:
            if _is_wide(size, width):
                for b in range(0, size, FOUR):
                    other, c = (w1, (i * size + b) * width, width), (slope, first * size + b, size)
                    along((h, 0, width), other, c, (tokens, first), last - first, width)
            else:
                _products(h, tokens[first:last], w1[i], slope[first:last])
            write_forward(h, a, i, w2, starts, tokens, slope, hidden, workspace, y)


@entry(F2, F2, U3, F3, F3, I1, I1, F2, F2, F2, F1, F2)
def blocks_forward_int8(h, a, q1, scale1, w2, starts, tokens, slope, hidden, plain, workspace, y):
    """``blocks_forward`` with W1 as uint8 around 128, q1 [M,B,D], times scale1 [M,B,D/32], or as 2 bits around
    2, q1 [M,B,D/4], times scale1 [1,1,1]; plain [B,D] overwritten."""
    n_blocks, width, size = w2.shape
    is_ternary = q1.shape[2] < width
    for i in range(n_blocks):
        first, last = starts[i], starts[i + 1]
        if first < last:
            is_wide = _is_wide(size, width)
            for b in range(size):
                row = b % FOUR if is_wide else b
                for j in range(0, width, LANES):
                    widen_either(is_ternary, q1, scale1, (i * size + b) * width + j, plain, row * width + j)
                if is_wide and row == FOUR - 1:
                    # What is needed next comes while this is computed, a part at a time.
                    fetch(w2, (i * size + b - row) * width, FOUR * width, 16)
                    four, c = (plain, 0, width), (slope, first * size + b - row, size)
                    along((h, 0, width), four, c, (tokens, first), last - first, width)
            if not is_wide:
                _products(h, tokens[first:last], plain, slope[first:last])
            write_forward(h, a, i, w2, starts, tokens, slope, hidden, workspace, y)


@kernel
def write_forward(h, a, i, w2, starts, tokens, slope, hidden, workspace, y):
    """What block i adds to y, where slope holds h W1'; slope and hidden as ``blocks_forward`` leaves them."""
    width, size = w2.shape[1:]
    first, n = starts[i], starts[i + 1] - starts[i]
    out = size * width
    strengths = out + h.shape[0] * width
    sigmoids(slope, first * size, hidden, first * size, n * size)
    for p in range(n):
        strength = a[tokens[first + p], i]
        for b in range(size):
            x, sig = slope[first + p, b], hidden[first + p, b]
            hidden[first + p, b] = x * sig
            workspace[strengths + p * size + b] = x * sig * strength
            slope[first + p, b] = sig * (ONE + x * (ONE - sig))
    if _is_wide(size, width):
        for j in range(0, width, WIDE):
            turned(w2, (i * width + j) * size, size, WIDE, size, workspace, 0, WIDE)
            of_b, of_y = (workspace, 0, WIDE), (y, j, width)
            panel(True, False, False, True, (workspace, strengths, size), of_b, of_y, (tokens, first), n, size)
    else:
        turn(w2, i * size * width, width, size, workspace, 0)
        product(workspace, strengths, size, workspace, 0, LANES, size * LANES, workspace, out, width, n, width, size)
        _scatter(workspace, out, tokens, first, n, y)


@entry(F2, F2, F3, F3, I1, I1, F2, F2, F1, F2, F2)
def blocks_backward(dy, a, w1, w2, starts, tokens, slope, hidden, workspace, da, dh):
    """Gradients of ``blocks_forward``, but for those of the weights.

    da [T,M] overwritten (0 where asleep); dh [T,D] added to; slope is replaced by the gradient of h W1'.
    """
    n_blocks, width, size = w2.shape
    tile = size * width
    out = tile + dy.shape[0] * width
    da[:] = 0
    for i in range(n_blocks):
        first, n = starts[i], starts[i + 1] - starts[i]
        if n > 0:
            write_backward(dy, a, i, w2, starts, tokens, slope, hidden, workspace, da)
            if _is_wide(size, width):
                for j in range(0, width, WIDE):
                    of_b, of_dh = (w1, i * tile + j, width), (dh, j, width)
                    panel(True, False, False, True, (slope, first * size, size), of_b, of_dh, (tokens, first), n, size)
            else:
                product(slope, first * size, size, w1, i * tile, width, LANES, workspace, out, width, n, width, size)
                _scatter(workspace, out, tokens, first, n, dh)


@entry(F2, F2, U3, F3, F3, I1, I1, F2, F2, F1, F2, F2)
def blocks_backward_int8(dy, a, q1, scale1, w2, starts, tokens, slope, hidden, workspace, da, dh):
    """``blocks_backward`` with W1 as ``blocks_forward_int8`` takes it."""
    n_blocks, width, size = w2.shape
    is_ternary = q1.shape[2] < width
    tile = size * width
    out = tile + dy.shape[0] * width
    da[:] = 0
    for i in range(n_blocks):
        first, n = starts[i], starts[i + 1] - starts[i]
        if n > 0:
            write_backward(dy, a, i, w2, starts, tokens, slope, hidden, workspace, da)
            for j in range(0, width, WIDE):
                for b in range(size):
                    for k in range(j, j + WIDE, LANES):
                        place = (k - j) + b * WIDE if _is_wide(size, width) else k * size + b * LANES
                        widen_either(is_ternary, q1, scale1, (i * size + b) * width + k, workspace, place)
                if _is_wide(size, width):
                    of_b, of_dh = (workspace, 0, WIDE), (dh, j, width)
                    panel(True, False, False, True, (slope, first * size, size), of_b, of_dh, (tokens, first), n, size)
            if not _is_wide(size, width):
                product(
                    slope, first * size, size, workspace, 0, LANES, size * LANES, workspace, out, width, n, width, size
                )
                _scatter(workspace, out, tokens, first, n, dh)


@kernel
def write_backward(dy, a, i, w2, starts, tokens, slope, hidden, workspace, da):
    """Of block i: da, and slope replaced by the gradient of h W1'."""
    width, size = w2.shape[1:]
    first, n, tile = starts[i], starts[i + 1] - starts[i], size * width
    act = tile + 2 * dy.shape[0] * width
    if _is_wide(size, width):
        for b in range(0, size, WIDE):
            of_b, of_act = (w2, i * tile + b, size), (workspace, act + b, size)
            panel(False, False, True, False, (dy, 0, width), of_b, of_act, (tokens, first), n, width)
    else:
        _gather(dy, tokens, first, n, workspace, tile)
        product(workspace, tile, width, w2, i * tile, size, LANES, workspace, act, size, n, size, width)
    for p in range(n):
        # dL/dhidden without the strength gives da; with it, the gradient of h W1'.
        strength = a[tokens[first + p], i]
        # A sum apart from what is stored: beside a store it is vectorised or not by where the arrays lie, and
        # rounded so. What is learned must be the same to the last bit.
        dot = ZERO
        for b in range(size):
            dot += workspace[act + p * size + b] * hidden[first + p, b]
        da[tokens[first + p], i] = dot
        for b in range(size):
            slope[first + p, b] *= workspace[act + p * size + b] * strength


@entry(F2, F2, I1, I1, F2, F1, F3)
def blocks_w2_backward(dy, a, starts, tokens, hidden, workspace, dw2):
    """dw2 [M,D,B] of the blocks that are awake in the segment overwritten, of the others left as it is.

    dy, a, starts, tokens, hidden and workspace as for ``blocks_backward``.
    """
    n_blocks, width, size = dw2.shape
    for i in range(n_blocks):
        if starts[i] < starts[i + 1]:
            _w2_gradient(dy, a, i, starts, tokens, hidden, workspace, dw2, i * width * size)


@entry(F2, F2, I1, I1, F2, F2, F1, F, F1, F2)
def blocks_w2_step(dy, a, starts, tokens, hidden, base, rate, pull, workspace, w2):
    """w2 <- w2 - rate dw2 + pull (base - w2) of the blocks that are awake in the segment.

    The gradient of a block is made, used and forgotten where it stays in cache. w2 and base [M,D B]; rate [M]; the
    others as for ``blocks_w2_backward``.
    """
    n_blocks, tile = w2.shape
    size = hidden.shape[1]
    given = workspace[len(workspace) - tile :]
    for i in range(n_blocks):
        first, n = starts[i], starts[i + 1] - starts[i]
        if n > 0 and _is_wide(size, tile // size):
            _strengthen(hidden, a, i, tokens, first, n, workspace, 0)
            for b in range(0, size, WIDE):
                place = i * tile + b
                of_dy, act, of_w2 = (dy, 0, tile // size), (workspace, b, size), (w2, place, size)
                of_base, moves = (base, place, base, 0), (rate[i], pull)
                pulled(False, of_dy, act, of_w2, (tokens, first), tile // size, n, of_base, moves)
        elif n > 0:
            # Copied as the integers are made numbers: of two ways the compiler may round one otherwise.
            row = base[i]
            for j in range(tile):
                given[j] = row[j]
            _w2_step(dy, a, i, starts, tokens, hidden, given, rate[i], pull, workspace, w2)


@entry(F2, F2, I1, I1, F2, U2, F2, F1, F, F1, F2)
def blocks_w2_step_int8(dy, a, starts, tokens, hidden, q, scale, rate, pull, workspace, w2):
    """``blocks_w2_step`` with the base as uint8 around 128, q [M,D B], times scale [M,D B/32]."""
    n_blocks, tile = w2.shape
    size = hidden.shape[1]
    given = workspace[len(workspace) - tile :]
    for i in range(n_blocks):
        first, n = starts[i], starts[i + 1] - starts[i]
        if n > 0 and _is_wide(size, tile // size):
            _strengthen(hidden, a, i, tokens, first, n, workspace, 0)
            for b in range(0, size, WIDE):
                place = i * tile + b
                of_dy, act, of_w2 = (dy, 0, tile // size), (workspace, b, size), (w2, place, size)
                of_base, moves = (q, place, scale, place // RUN), (rate[i], pull)
                pulled(True, of_dy, act, of_w2, (tokens, first), tile // size, n, of_base, moves)
        elif n > 0:
            for j in range(0, tile, LANES):
                widen(q, i * tile + j, scale[i, j // RUN], given, j)
            _w2_step(dy, a, i, starts, tokens, hidden, given, rate[i], pull, workspace, w2)


@kernel
def _w2_step(dy, a, i, starts, tokens, hidden, base, rate, pull, workspace, w2):
    """The step of block i, towards base [D B]."""
    _w2_gradient(dy, a, i, starts, tokens, hidden, workspace, workspace, 0)
    step(workspace[: len(base)], base, rate, pull, w2[i])


@entry(F2, I1, I1, F2, F3)
def blocks_w1_backward(h, starts, tokens, dz, dw1):
    """dw1 [M,B,D] of the blocks that are awake in the segment overwritten, of the others left as it is.

    dz [pairs,B] is what ``blocks_backward`` leaves in ``slope``.
    """
    n_blocks, size, width = dw1.shape
    for i in range(n_blocks):
        if starts[i] == starts[i + 1]:
            continue
        dw1[i] = 0
        for p in range(starts[i], starts[i + 1]):
            row = h[tokens[p]]
            for b in range(size):
                g = dz[p, b]
                for j in range(width):
                    dw1[i, b, j] += g * row[j]


@kernel
def _w2_gradient(dy, a, i, starts, tokens, hidden, workspace, out, base):
    """The gradient of W2 [D,B] of block i at out[base:]; workspace is overwritten after the first D B numbers."""
    first, n, width, size = starts[i], starts[i + 1] - starts[i], dy.shape[1], hidden.shape[1]
    rows = width * size
    act = rows + n * width
    _gather(dy, tokens, first, n, workspace, rows)
    _strengthen(hidden, a, i, tokens, first, n, workspace, act)
    product_across(workspace, rows, width, workspace, act, out, base, width, size, n)


@kernel
def _strengthen(hidden, a, i, tokens, first, n, workspace, base):
    """workspace [n,B] = what the neurons of block i give, as strong as the block is awake."""
    size = hidden.shape[1]
    for p in range(n):
        strength = a[tokens[first + p], i]
        for b in range(size):
            workspace[base + p * size + b] = hidden[first + p, b] * strength


@kernel
def _is_wide(size, width):
    """Whether whole panels make the products of blocks of B = ``size`` and D = ``width``."""
    return size % WIDE == 0 and width % WIDE == 0


@kernel
def _gather(x, tokens, first, n, workspace, base):
    """workspace [n,D] = x[tokens[first : first + n]]."""
    width = x.shape[1]
    for p in range(n):
        row = x[tokens[first + p]]
        for j in range(width):
            workspace[base + p * width + j] = row[j]


@kernel
def _scatter(workspace, base, tokens, first, n, out):
    """out[tokens[first : first + n]] += workspace [n,D]."""
    width = out.shape[1]
    for p in range(n):
        row = out[tokens[first + p]]
        for j in range(width):
            row[j] += workspace[base + p * width + j]


@kernel
def _products(x, tokens, w, out):
    """out [n,B] = x[tokens] w'; x [T,D]; w [B,D]. Tiles of 2 tokens and 4 rows: what is used more than once stays in a
    register. A tile that reaches over an edge repeats the last row, and writes the same number twice."""
    n, size, width = len(tokens), out.shape[1], x.shape[1]
    for p in range(0, n, 2):
        q = min(p + 1, n - 1)
        x0, x1 = x[tokens[p]], x[tokens[q]]
        for b in range(0, size, 4):
            b1, b2, b3 = min(b + 1, size - 1), min(b + 2, size - 1), min(b + 3, size - 1)
            w0, w1, w2, w3 = w[b], w[b1], w[b2], w[b3]
            s0 = s1 = s2 = s3 = r0 = r1 = r2 = r3 = ZERO
            for j in range(width):
                s0 += x0[j] * w0[j]
                s1 += x0[j] * w1[j]
                s2 += x0[j] * w2[j]
                s3 += x0[j] * w3[j]
                r0 += x1[j] * w0[j]
                r1 += x1[j] * w1[j]
                r2 += x1[j] * w2[j]
                r3 += x1[j] * w3[j]
            out[p, b], out[p, b1], out[p, b2], out[p, b3] = s0, s1, s2, s3
            out[q, b], out[q, b1], out[q, b2], out[q, b3] = r0, r1, r2, r3
