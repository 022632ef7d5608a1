"""RWKV-7's layer parts in one call each, for answering: some tokens in, the residual stream changed, nothing kept for
learning.

Equations and letters: ``edgelm.cells.rwkv7_time_mix.paper`` and ``edgelm.cells.rwkv7_channel_mix.paper``. Matrices are
integers in strips, and what they are multiplied by is made integers too (``edgelm/kernels/dots.py``); but what neurons
write stands row by row, and is multiplied by numbers. A token's sums do not depend on how many tokens a call gets.

Buffers hold nothing between two calls: ``h`` [D], ``codes`` of uint8 and ``scales`` for the activations as integers.
"""

from __future__ import annotations

import numpy as np

from edgelm.kernels.dots import add_products, quantize
from edgelm.kernels.emit_rwkv7 import emit_add_rows, emit_remember
from edgelm.kernels.jit import entry, kernel, lowered
from edgelm.kernels.norm import ONE, ZERO, exps, sigmoids
from edgelm.kernels.panel import fetch
from edgelm.kernels.signature import F1, F2, F3, I1, U1, U2, U4, F
from edgelm.kernels.tile import RUN

_TWO = np.float32(2)
_PLAIN, _TANH, _SIGMOID = 0, 1, 2
"""What stands between two small matrices."""
ROWS, ASKED = 4, 16
"""Rows of neurons that are added together, and that are asked for before they are added."""
_LINE = 64
"""Bytes that come from memory together."""


@kernel
def _layer_norm(x, gain, bias, eps, out):
    """out [D] = LayerNorm(x [D])."""
    total, squares, width = ZERO, ZERO, np.float32(len(x))
    for j in range(len(x)):
        total += x[j]
    mean = total / width
    for j in range(len(x)):
        squares += (x[j] - mean) * (x[j] - mean)
    r = ONE / np.sqrt(squares / width + eps)
    for j in range(len(x)):
        out[j] = (x[j] - mean) * r * gain[j] + bias[j]


@kernel
def _mixed(h, before, share, buffers):
    """h [T,D] + (h_before - h) share as integers; ``before`` [D] stood before the first token."""
    mixed, codes, scales = buffers
    n_runs = len(mixed) // RUN
    for t in range(len(h)):
        now, last = h[t], h[t - 1] if t > 0 else before
        for j in range(len(mixed)):
            mixed[j] = now[j] + (last[j] - now[j]) * share[j]
        quantize(mixed, 0, n_runs, codes, t * n_runs, scales)


@kernel
def _product(matrix, buffers, out):
    """out [T,M] of the activations that stand as integers."""
    spare, codes, scales = buffers
    out[:] = 0
    add_products(matrix[0], matrix[1], codes, scales, out, spare)


@kernel
def _low_rank(matrices, between, buffers, low, out):
    """out [T,D] through two small matrices and what stands between them; low [T,R] is overwritten."""
    _product(matrices[:2], buffers, low)
    rank = low.shape[1]
    for t in range(len(low)):
        row = low[t]
        if between == _TANH:
            for j in range(rank):
                row[j] *= _TWO
        if between != _PLAIN:
            sigmoids(row, 0, row, 0, rank)
        if between == _TANH:
            for j in range(rank):
                row[j] = _TWO * row[j] - ONE
        quantize(row, 0, rank // RUN, buffers[1], t * rank // RUN, buffers[2])
    _product(matrices[2:], buffers, out)


@kernel
def _biased_sigmoid(x, bias):
    """x [D] <- sigmoid(x + bias)."""
    for j in range(len(x)):
        x[j] += bias[j]
    sigmoids(x, 0, x, 0, len(x))


@entry(
    F2, (U4, F3) * 12, (F1, F1, F1, F1, F1, F1, F1, F1), (F1, F1, F1, F1, F1, F2, F1, F1), (F2, I1), (F1, F3),
    (F, F, F, F), (F1, U1, F1), (F2, F3, F2, F2, F2, F2, F2),
)  # fmt: skip
def time_mix(x, matrices, mixes, gains, shared, state, numbers, buffers, own_buffers):
    """x [T,D] += what a layer's memories give.

    Parameters
    ----------
    x
        The residual stream, changed in place.
    matrices
        As integers and their scales each: receptance, key, value, output [D,D]; w1 [R,D], w2 [D,R], and likewise of a,
        v and g.
    mixes
        Gain and bias of the norm, x_r, x_w, x_k, x_v, x_a, x_g [D].
    gains
        w0, a0, v0, k_k, k_a [D], r_k [H,N], gain and bias of the heads' norm [D].
    shared
        v_first [T,D], and [1] whether this layer makes it, which becomes 0.
    state
        h of the token before [D], memories [H,N,N]; updated in place.
    numbers
        Epsilon of the norm and of the heads' norm, the scale of the decay, the least length of a key.
    buffers
        h, codes and scales.
    own_buffers
        h [T,D]; r, w, k, v, a, g and the share of v_first [7,T,D]; what is between the small matrices of w, a, v and g
        [T,R]; of a token kk, kk a, r w, y, and, in two numbers, r . (kk a) and r . k [5,D].
    """
    parts, memory, own, y = own_buffers[1], state[1], own_buffers[6], own_buffers[6][3]
    _products(x, matrices, mixes, state[0], numbers[0], buffers, own_buffers)
    _values(parts, gains[2], shared)
    for t in range(len(x)):
        _gates(parts, t, gains, numbers, memory.shape[1], own)
        _remember(parts, t, memory, own)
        _read(parts, t, gains[5:], numbers[1], y)
        quantize(y, 0, len(y) // RUN, buffers[1], t * (len(y) // RUN), buffers[2])
    add_products(matrices[6], matrices[7], buffers[1], buffers[2], x, buffers[0])


@kernel
def _products(x, matrices, mixes, before, eps, buffers, own_buffers):
    """All that is made of h by matrices; ``before`` [D] becomes h of the last token."""
    h, parts, low_w, low_a, low_v, low_g = own_buffers[:6]
    for t in range(len(x)):
        _layer_norm(x[t], mixes[0], mixes[1], eps, h[t])
    _mixed(h, before, mixes[2], buffers)
    _product(matrices[:2], buffers, parts[0])
    _mixed(h, before, mixes[3], buffers)
    _low_rank(matrices[8:12], _TANH, buffers, low_w, parts[1])
    _mixed(h, before, mixes[4], buffers)
    _product(matrices[2:4], buffers, parts[2])
    _mixed(h, before, mixes[5], buffers)
    _product(matrices[4:6], buffers, parts[3])
    # The same activations, before others take their place.
    _low_rank(matrices[16:20], _PLAIN, buffers, low_v, parts[6])
    _mixed(h, before, mixes[6], buffers)
    _low_rank(matrices[12:16], _PLAIN, buffers, low_a, parts[4])
    _mixed(h, before, mixes[7], buffers)
    _low_rank(matrices[20:24], _SIGMOID, buffers, low_g, parts[5])
    last = h[len(h) - 1]
    for j in range(len(before)):
        before[j] = last[j]


@kernel
def _values(parts, bias, shared):
    """v of all tokens with their share of v_first, which the first layer makes."""
    first, is_first = shared
    for t in range(len(first)):
        v, share, given = parts[3, t], parts[6, t], first[t]
        if is_first[0]:
            for j in range(len(v)):
                given[j] = v[j]
        else:
            _biased_sigmoid(share, bias)
            for j in range(len(v)):
                v[j] += (given[j] - v[j]) * share[j]
    is_first[0] = 0


@kernel
def _gates(parts, t, gains, numbers, size, own):
    """What the memories take of a token: w, a and the keys become what they are; own: kk, kk a and r w."""
    r, keep, k, a, kk = parts[0, t], parts[1, t], parts[2, t], parts[4, t], own[0]
    k_k, k_a = gains[3:5]
    _biased_sigmoid(keep, gains[0])
    scale = -numbers[2]
    for j in range(len(keep)):
        keep[j] *= scale
    exps(keep, 0, keep, 0, len(keep))
    _biased_sigmoid(a, gains[1])
    for j in range(len(k)):
        kk[j] = k[j] * k_k[j]
    for first in range(0, len(k), size):
        of_head, total = kk[first : first + size], ZERO
        for j in range(size):
            total += of_head[j] * of_head[j]
        inverse = ONE / max(np.sqrt(total), numbers[3])
        for j in range(size):
            of_head[j] *= inverse
    removed, r_keep = own[1], own[2]
    for j in range(len(k)):
        removed[j] = kk[j] * a[j]
    for j in range(len(k)):
        r_keep[j] = r[j] * keep[j]
    for j in range(len(k)):
        k[j] *= ONE + (a[j] - ONE) * k_a[j]


@lowered(emit_remember, literals=1)
def remember(columns, s, s0, size, by_row, k0, v, v0, dots, y):
    """A token on 64, 16 or 1 columns of a memory S, from number s0 on, which has ``size`` rows of as many numbers.

    by_row: r w, w, k, kk and kk a, of this head from number k0 on; v and y from number v0 on; dots: r . (kk a), r . k.
    """
    each, rows = np.arange(columns), np.arange(k0, k0 + size)
    place = s0 + size * np.arange(size)[:, None] + each
    memory, (r_keep, keep, k, kk, removed) = s.reshape(-1), (x[rows] for x in by_row)
    old, u, new = memory[place], kk @ memory[place], v[v0 + each]
    y[v0 + each] = r_keep @ old - dots[0] * u + dots[1] * new
    memory[place] = keep[:, None] * old - removed[:, None] * u + k[:, None] * new


@kernel
def _remember(parts, t, memory, own):
    """All memories after a token, and y [D], in ``own``, what is read of them."""
    r, keep, k, v = parts[0, t], parts[1, t], parts[2, t], parts[3, t]
    removed, y, dots = own[1], own[3], own[4]
    by_row = (own[2], keep, k, own[0], removed)
    n_heads, size = memory.shape[:2]
    for i in range(n_heads):
        k0, s0, done = i * size, i * size * size, 0
        of_removed, of_written = ZERO, ZERO
        for j in range(k0, k0 + size):
            of_removed += r[j] * removed[j]
            of_written += r[j] * k[j]
        dots[0], dots[1] = of_removed, of_written
        while size - done >= 64:
            remember(64, memory, s0 + done, size, by_row, k0, v, k0 + done, dots, y)
            done += 64
        while size - done >= 16:
            remember(16, memory, s0 + done, size, by_row, k0, v, k0 + done, dots, y)
            done += 16
        while size > done:
            remember(1, memory, s0 + done, size, by_row, k0, v, k0 + done, dots, y)
            done += 1


@kernel
def _read(parts, t, gains, eps, y):
    """y [D] normed within each head, with what a token reads of itself, and gated; in place."""
    r, k, v, g = parts[0, t], parts[2, t], parts[3, t], parts[5, t]
    r_k, gain, bias = gains
    n_heads, size = r_k.shape
    for i in range(n_heads):
        first, width = i * size, np.float32(size)
        total, own, squares = ZERO, ZERO, ZERO
        for j in range(size):
            total += y[first + j]
            own += r[first + j] * k[first + j] * r_k[i, j]
        mean = total / width
        for j in range(first, first + size):
            squares += (y[j] - mean) * (y[j] - mean)
        inverse = ONE / np.sqrt(squares / width + eps)
        for j in range(first, first + size):
            y[j] = ((y[j] - mean) * inverse * gain[j] + bias[j] + own * v[j]) * g[j]


@entry(F2, (U4, F3, U2, F2), (F1, F1, F1), F1, F, (F1, U1, F1), (F2, F2, I1))
def channel_mix(x, matrices, gains, before, eps, buffers, own_buffers):
    """x [T,D] += what a layer's neurons write; rows of those that sleep are not read.

    Parameters
    ----------
    x
        The residual stream, changed in place.
    matrices
        As integers and scales each: key [F,D] in strips, value [F,D] row by row.
    gains
        Gain and bias of the norm, x_k [D].
    before
        h of the token before [D], updated in place.
    eps
        Of the norm.
    buffers
        h, codes and scales.
    own_buffers
        h [T,D]; activations a [T,F], which are left for the caller; neurons awake [F].
    """
    h, a, awake = own_buffers
    q, scale = matrices[2:]
    for t in range(len(x)):
        _layer_norm(x[t], gains[0], gains[1], eps, h[t])
    _mixed(h, before, gains[2], buffers)
    last = h[len(h) - 1]
    for j in range(len(before)):
        before[j] = last[j]
    _product(matrices[:2], buffers, a)
    for t in range(len(x)):
        n = _wake(a[t], awake)
        _ask(q, scale, awake, 0, min(n, ASKED))
        for i in range(0, n, ASKED):
            _ask(q, scale, awake, i + ASKED, min(n, i + 2 * ASKED))
            _add_awake(q, scale, awake, i, min(n, i + ASKED), a, t, x)


@kernel
def _wake(a, awake):
    """a [F] <- ReLU(a)^2; which neurons are awake, and how many. What is no number stays none, and is awake."""
    n = 0
    for i in range(len(a)):
        awake[n] = i
        n += not a[i] <= 0
    for i in range(len(a)):
        x = ZERO if a[i] <= 0 else a[i]
        a[i] = x * x
    return n


@kernel
def _ask(q, scale, awake, start, end):
    """Asks for some rows before they are added."""
    n_runs = scale.shape[1]
    for i in range(start, end):
        row = awake[i]
        fetch(q, row * q.shape[1], q.shape[1], _LINE)
        fetch(scale, row * n_runs, n_runs, _LINE // 4)


@kernel
def _add_awake(q, scale, awake, start, end, a, t, x):
    """x[t] += the rows of some neurons that are awake, times a[t]."""
    n_runs, whole = q.shape[1] // RUN, end - (end - start) % ROWS
    for i in range(start, whole, ROWS):
        add_rows(4, q, scale, awake, i, a, t * a.shape[1], n_runs, x, t * x.shape[1])
    for i in range(whole, end):
        add_rows(1, q, scale, awake, i, a, t * a.shape[1], n_runs, x, t * x.shape[1])


@lowered(emit_add_rows, literals=1)
def add_rows(n_rows, q, scale, rows, first, a, a0, n_runs, out, out0):
    """out [C], from number out0 on, += a w of some rows of w [F,C], which is uint8 around 128 times scale [F,C/32].

    rows: ``n_rows`` of them, from number ``first`` on; a [F] begins at number a0.
    """
    which = rows[first : first + n_rows]
    factors = a.reshape(-1)[a0 + which][:, None] * scale.reshape(-1, n_runs)[which]
    numbers = q.reshape(-1, n_runs, RUN)[which].astype(np.float32) - np.float32(128)
    out.reshape(-1)[out0 : out0 + n_runs * RUN] += (numbers * factors[..., None]).sum(0).reshape(-1)
