"""Whole layer parts in one call, for answering: some tokens in, the residual stream changed, nothing kept for learning.

Equations and letters: ``edgelm.cells.gated_delta.paper`` and ``edgelm.cells.block_ffn.paper``. Matrices are integers in
strips, and what they are multiplied by is made integers too (``edgelm/kernels/dots.py``). A token's sums do not depend
on how many tokens a call gets.

Buffers hold nothing between two calls: ``h`` [D], ``codes`` of uint8 and ``scales`` for the activations as integers.
"""

from __future__ import annotations

import numpy as np

from edgelm.kernels.blocks import keep_strongest
from edgelm.kernels.dots import add_product, add_products, quantize
from edgelm.kernels.emit import LANES
from edgelm.kernels.emit_delta import emit_delta
from edgelm.kernels.jit import entry, kernel, lowered
from edgelm.kernels.norm import ONE, ZERO, exp, sigmoid
from edgelm.kernels.signature import F1, F2, F3, F4, I1, U1, U2, U4, U5, F, I
from edgelm.kernels.strongest import wake
from edgelm.kernels.tile import RUN, widen

_TINY = np.float32(1e-6)


@kernel
def _norm(x, t, gain, eps, h):
    """h [D] = RMSNorm(x[t])."""
    total = ZERO
    for j in range(len(h)):
        total += x[t, j] * x[t, j]
    r = ONE / np.sqrt(total / np.float32(len(h)) + eps)
    for j in range(len(h)):
        h[j] = x[t, j] * r * gain[j]


@entry(I1, U4, F3, F2)
def embed(ids, q, scale, x):
    """x [T,D] = rows ``ids`` [T] of a matrix of integers [V,D] in strips."""
    for t in range(len(ids)):
        strip, lane = ids[t] // LANES, ids[t] % LANES
        for run in range(q.shape[1]):
            s = scale[strip, run, lane]
            for group in range(8):
                for j in range(4):
                    number = np.float32(q[strip, run, group, 4 * lane + j]) - np.float32(128)
                    x[t, run * RUN + 4 * group + j] = number * s


@entry(I1, U2, F2, F2)
def embed_rows(ids, q, scale, x):
    """x [T,D] = rows ``ids`` [T] of a matrix of integers [V,D] around 128 times scale [V,D/32]."""
    width = q.shape[1]
    for t in range(len(ids)):
        for j in range(0, width, LANES):
            widen(q, ids[t] * width + j, scale[ids[t], j // RUN], x, t * width + j)


@entry(F2, I, F1, F, U4, F3, (F1, U1, F1), F2)
def head(x, first, gain, eps, q, scale, buffers, logits):
    """logits [T - first,V] of the tokens from ``first`` on: RMSNorm(x) w'; x [T,D]; w [V,D]."""
    h, codes, scales = buffers
    n_runs = len(h) // RUN
    for t in range(first, len(x)):
        _norm(x, t, gain, eps, h)
        quantize(h, 0, n_runs, codes, (t - first) * n_runs, scales)
    logits[:] = 0
    add_products(q, scale, codes, scales, logits, h)


@entry(F2, (U4, F3, U4, F3), (F1, F2, F1, F1, F1, F1), (F1, F2), (F1, F2, F3), F, (F1, U1, F1), (F1, F1, F2, F2))
def gated_delta(x, matrices, gains, counts, state, eps, buffers, own_buffers):
    """x [T,D] += both sections of a layer.

    Parameters
    ----------
    x
        The residual stream, changed in place.
    matrices
        W_in' [P,D] as integers and their scales, W_out' [D,S + H Vd] likewise.
    gains
        Gain of the norm [D], taps of the convolution [4,F], the last row for the present token, biases of decay and
        write [H], A [H], gain of the heads' norm [Vd].
    counts
        Of the features of the slope section, lam [S] and 1 / z [T,S].
    state
        n [S], the inputs of the convolution before [3,F], memories [H,K,Vd]; updated in place.
    eps
        Of the norms.
    buffers
        h, codes and scales.
    own_buffers
        c [F], gates [3], p [T,P], mix [T,S + H Vd].
    """
    q_in, scale_in, q_out, scale_out = matrices
    h, codes, scales = buffers
    p, mix = own_buffers[2:]
    n_runs = len(h) // RUN
    for t in range(len(x)):
        _norm(x, t, gains[0], eps, h)
        quantize(h, 0, n_runs, codes, t * n_runs, scales)
    p[:] = 0
    add_products(q_in, scale_in, codes, scales, p, h)
    for t in range(len(x)):
        c = own_buffers[0]
        _convolve(p[t], gains[1], state[1], len(state[0]), c)
        _slope(c, p[t, len(c) :], counts[0], counts[1][t], state[0], mix[t])
        _decay(p[t], gains, eps, state, own_buffers[1], mix[t])
    n_runs = mix.shape[1] // RUN
    for t in range(len(x)):
        quantize(mix[t], 0, n_runs, codes, t * n_runs, scales)
    add_products(q_out, scale_out, codes, scales, x, h)


@kernel
def _convolve(p, taps, last, n_plain, c):
    """c [F] of the first F numbers of p; ``last`` [3,F] moves on. From number ``n_plain`` on, p becomes SiLU(c)."""
    for j in range(len(c)):
        c[j] = taps[3, j] * p[j] + taps[2, j] * last[2, j] + taps[1, j] * last[1, j] + taps[0, j] * last[0, j]
    for j in range(len(c)):
        last[0, j] = last[1, j]
    for j in range(len(c)):
        last[1, j] = last[2, j]
    for j in range(len(c)):
        last[2, j] = p[j]
    # A loop vectorises only where it reads one array and writes another, both from their beginnings.
    _silu(c[n_plain:], p[n_plain:])


@kernel
def _silu(x, out):
    """out = x sigmoid(x), of as many numbers as x has."""
    for j in range(len(x)):
        out[j] = x[j] * sigmoid(x[j])


@kernel
def _slope(c, us, decay, inverse, n, mix):
    """The first S numbers of mix: n / z SiLU(us)."""
    for j in range(len(n)):
        total, u = decay[j] * n[j] + c[j], us[j]
        n[j] = total
        mix[j] = total * inverse[j] * u * sigmoid(u)


@kernel
def _decay(p, gains, eps, state, gates, mix):
    """The other numbers of mix: the memories after this token, read by the queries, normed and gated.

    p holds q, k and v behind the numbers of the slope section; they are overwritten.
    """
    decay_bias, write_bias, rate, gain = gains[2:]
    n_heads, key_dim, value_dim = state[2].shape
    n_slope, keys = len(state[0]), n_heads * key_dim
    gate = state[1].shape[1] + n_slope
    raw = gate + n_heads * value_dim
    for i in range(n_heads):
        q0, k0, v0 = n_slope + i * key_dim, n_slope + keys + i * key_dim, n_slope + 2 * keys + i * value_dim
        q, k, o = p[q0 : q0 + key_dim], p[k0 : k0 + key_dim], p[v0 : v0 + value_dim]
        q_q, k_k, q_k = _TINY, _TINY, ZERO
        for j in range(key_dim):
            q_q += q[j] * q[j]
            k_k += k[j] * k[j]
            q_k += q[j] * k[j]
        q_inverse, k_inverse = ONE / np.sqrt(q_q), ONE / np.sqrt(k_k)
        for j in range(key_dim):
            q[j] *= q_inverse
        for j in range(key_dim):
            k[j] *= k_inverse
        a = p[raw + i] + decay_bias[i]
        gates[0] = exp(-rate[i] * (max(a, ZERO) + np.log1p(exp(-abs(a)))))
        gates[1] = sigmoid(p[raw + n_heads + i] + write_bias[i])
        gates[2] = q_k * q_inverse * k_inverse
        _delta(state[2], i, p, q0, k0, v0, gates)
        total = ZERO
        for j in range(value_dim):
            total += o[j] * o[j]
        inverse = ONE / np.sqrt(total / np.float32(value_dim) + eps)
        out, u = mix[n_slope + i * value_dim :], p[gate + i * value_dim :]
        for j in range(value_dim):
            out[j] = o[j] * inverse * gain[j] * u[j] * sigmoid(u[j])


@lowered(emit_delta, literals=1)
def delta(columns, s, s0, n_rows, pitch, c, q0, k0, v0, gates):
    """A step of the delta rule on 64, 16 or 1 columns of a memory, whose rows are ``pitch`` numbers apart.

    q, k and v stand in c, gates are keep, beta and q.k: e = beta (v - keep S'k), S <- keep S + k e', and
    keep S'q + (q.k) e in the place of v.
    """
    each = np.arange(columns)
    place = s0 + pitch * np.arange(n_rows)[:, None] + each
    memory, (keep, beta, q_k) = s.reshape(-1), gates[:3]
    q, k = c[q0 : q0 + n_rows], c[k0 : k0 + n_rows]
    kept = keep * memory[place]
    e = beta * (c[v0 + each] - k @ kept)
    c[v0 + each] = q @ kept + q_k * e
    memory[place] = kept + k[:, None] * e


@kernel
def _delta(s, i, c, q0, k0, v0, gates):
    """The step on all columns of memory i of s [H,K,Vd]."""
    key_dim, value_dim = s.shape[1:]
    first, done = i * key_dim * value_dim, 0
    while value_dim - done >= 64:
        delta(64, s, first + done, key_dim, value_dim, c, q0, k0, v0 + done, gates)
        done += 64
    while value_dim - done >= 16:
        delta(16, s, first + done, key_dim, value_dim, c, q0, k0, v0 + done, gates)
        done += 16
    while value_dim > done:
        delta(1, s, first + done, key_dim, value_dim, c, q0, k0, v0 + done, gates)
        done += 1


@entry(F2, (U5, F4, U5, F4, U4, F3, U4, F3), (F1, F2, F1, F1), I, (F, F), (F1, U1, F1), (F2, F2, F2))
def block_ffn(x, matrices, gains, max_awake, eps, buffers, own_buffers):
    """x [T,D] += the feed-forward part of a layer.

    Parameters
    ----------
    x
        The residual stream, changed in place.
    matrices
        As integers and scales each: W1 [M,B,D], W2 [M,D,B], the shared block's W1' [F,D] and W2' [D,F].
    gains
        Gain of the norm [D], router [D,M], its bias [M], log_gamma [M].
    max_awake
        Blocks that wake for a token at most.
    eps
        Of the norm, and of that of the router.
    buffers
        h, codes and scales.
    own_buffers
        Activations a [T,M] as they are before the weakest are put to sleep, which are left for the caller; those after
        it [T,M]; s [2,F], of as many neurons as the larger of a block and the shared block has.
    """
    h, codes, scales = buffers
    before, a = own_buffers[:2]
    n_runs = len(h) // RUN
    for t in range(len(x)):
        _norm(x, t, gains[0], eps[0], h)
        quantize(h, 0, n_runs, codes, t * n_runs, scales)
        _likes(h, gains, a[t])
        _rectify(gains[3], max_awake, eps[1], before[t], a[t])
    _blocks(x, matrices, buffers, own_buffers)


@entry(F2, (U5, F4, U5, F4, U4, F3, U4, F3), (F1, F2, F1, F1), I, (F, F), (F1, U1, F1), (F2, F2, F2))
def top_k_ffn(x, matrices, gains, max_awake, numbers, buffers, own_buffers):
    """As ``block_ffn``, with the router of ``edgelm.cells.top_k_ffn.paper``; numbers are the epsilon of the norm and
    the size of a token's activations."""
    h, codes, scales = buffers
    before, a = own_buffers[:2]
    n_runs = len(h) // RUN
    for t in range(len(x)):
        _norm(x, t, gains[0], numbers[0], h)
        quantize(h, 0, n_runs, codes, t * n_runs, scales)
        _likes(h, gains, before[t])
        _share(gains[3], max_awake, numbers[1], before[t], a[t])
    _blocks(x, matrices, buffers, own_buffers)


@kernel
def _likes(h, gains, a):
    """a [M] = h W_r + b_r."""
    router, bias = gains[1:3]
    n_blocks = len(a)
    for i in range(n_blocks):
        a[i] = bias[i]
    width = len(h)
    whole = width - width % 4
    for j in range(0, whole, 4):
        r0, r1, r2, r3 = router[j], router[j + 1], router[j + 2], router[j + 3]
        x0, x1, x2, x3 = h[j], h[j + 1], h[j + 2], h[j + 3]
        for i in range(n_blocks):
            a[i] += x0 * r0[i] + x1 * r1[i] + x2 * r2[i] + x3 * r3[i]
    for j in range(whole, width):
        x, row = h[j], router[j]
        for i in range(n_blocks):
            a[i] += x * row[i]


@kernel
def _rectify(log_gamma, max_awake, eps, before, a):
    """Activations of a token: ReLU, RMSNorm over all blocks, before and after the weakest are put to sleep."""
    n_blocks = len(a)
    total, n_awake = ZERO, 0
    for i in range(n_blocks):
        y = max(a[i], ZERO)
        total += y * y
        n_awake += y > 0
    r = ONE / np.sqrt(total / np.float32(n_blocks) + eps)
    for i in range(n_blocks):
        y = max(a[i], ZERO) * r * exp(log_gamma[i])
        before[i] = y
        a[i] = y
    keep_strongest(a, n_awake, max_awake)


@kernel
def _share(log_gamma, max_awake, size, before, a):
    """The same of a softmax over those awake; ``before`` holds the logits."""
    n_blocks = len(a)
    top, inverse = wake(before, log_gamma, max_awake, a)
    for i in range(n_blocks):
        before[i] = exp(before[i] - top) * inverse * exp(log_gamma[i]) * size
    for i in range(n_blocks):
        a[i] *= before[i]


@kernel
def _blocks(x, matrices, buffers, own_buffers):
    """x [T,D] += what the blocks that are awake and the shared block give; h of every token stands as integers."""
    q1, scale1, q2, scale2, shared_q1, shared_scale1, shared_q2, shared_scale2 = matrices
    h, codes, scales = buffers
    _, a, s = own_buffers
    n_runs, n_blocks, size, n_shared = len(h) // RUN, len(q1), q2.shape[2] * RUN, shared_q2.shape[1] * RUN
    after = len(x) * n_runs
    for i in range(n_blocks):
        for t in range(len(x)):
            if a[t, i] > 0:
                _neurons(q1[i], scale1[i], size, codes, scales, t, s)
                _write(q2[i], scale2[i], s, a[t, i], codes, scales, after, x, t)
    for t in range(len(x)):
        _neurons(shared_q1, shared_scale1, n_shared, codes, scales, t, s)
        _write(shared_q2, shared_scale2, s, ONE, codes, scales, after, x, t)


@kernel
def _neurons(q, scale, size, codes, scales, t, s):
    """s = W1 h, and SiLU of it, of token t; W1 [size,D]."""
    plain = s[0, :size]
    plain[:] = 0
    add_product(q, scale, size, codes, scales, t * q.shape[1], 1, plain, 0)
    _silu(plain, s[1])


@kernel
def _write(q, scale, s, strength, codes, scales, after, x, t):
    """x[t] += strength W2 s; W2 [D,size]; the integers of s stand from run ``after`` on."""
    n_runs = q.shape[1]
    quantize(s[1], 0, n_runs, codes, after, scales)
    for run in range(after, after + n_runs):
        scales[2 * run] *= strength
    add_product(q, scale, x.shape[1], codes, scales, after, 1, x, t * x.shape[1])
