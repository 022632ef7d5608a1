"""The router and the neuron blocks: only the blocks that are awake are read, computed and changed.

Equations: ``edgelm.model.reference.activations`` and ``block_ffn``. A *pair* is a token and a block that
wakes for it; pairs stand grouped by block, so that a block's weights are read once a segment.
"""

from __future__ import annotations

import numpy as np

from edgelm.kernels.jit import entry, kernel
from edgelm.kernels.norm import ONE, ZERO, exp, sigmoid
from edgelm.kernels.signature import F1, F2, F3, I1, F, I


@entry(F2, F1, F1, I, F, F2, F1, F2)
def route_forward(a0, bias, log_gamma, max_awake, eps, a1, inverse, a):  # type: ignore[no-untyped-def]
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
        # The weakest go back to sleep; of equals the last, as the stable sort of the reference does.
        while n_awake > max_awake:
            weakest = -1
            for i in range(n_blocks):
                if a[t, i] > 0 and (weakest < 0 or a[t, i] <= a[t, weakest]):
                    weakest = i
            a[t, weakest] = 0
            n_awake -= 1


@entry(F2, F2, F1, F1, F2, F2, F1)
def route_backward(da, a1, log_gamma, inverse, a, da0, dlog_gamma):  # type: ignore[no-untyped-def]
    """da [T,M] (0 where asleep) to da0 [T,M] overwritten; dlog_gamma [M] added to."""
    n_steps, n_blocks = a1.shape
    for t in range(n_steps):
        r = inverse[t]
        dot = ZERO
        for i in range(n_blocks):
            if a[t, i] > 0:
                dlog_gamma[i] += da[t, i] * a[t, i]
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
def group_pairs(a, starts, tokens):  # type: ignore[no-untyped-def]
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


@entry(F2, F2, F3, F3, I1, I1, F2, F2, F2)
def blocks_forward(h, a, w1, w2, starts, tokens, slope, hidden, y):  # type: ignore[no-untyped-def]
    """y [T,D] += sum over awake blocks of a SiLU(h W1') W2'.

    h [T,D]; a [T,M]; w1 [M,B,D]; w2 [M,D,B]; hidden and slope [pairs,B] overwritten with SiLU(h W1')
    and its derivative there, for backward.
    """
    for i in range(w1.shape[0]):
        first, last = starts[i], starts[i + 1]
        if first == last:
            continue
        _products(h, tokens[first:last], w1[i], slope[first:last])
        for p in range(first, last):
            for b in range(slope.shape[1]):
                x = slope[p, b]
                sig = sigmoid(x)
                hidden[p, b] = x * sig
                slope[p, b] = sig * (ONE + x * (ONE - sig))
        _write(hidden[first:last], a[:, i], tokens[first:last], w2[i], y)


@entry(F2, F2, F3, F3, I1, I1, F2, F2, F2, F2, F2, F2, F3)
def blocks_backward(dy, a, w1, w2, starts, tokens, slope, hidden, w2_rows, dact, da, dh, dw2):  # type: ignore[no-untyped-def]
    """Gradients of ``blocks_forward``.

    da [T,M] overwritten (0 where asleep); dh [T,D] added to; dw2 of the blocks that are awake in the
    segment overwritten, of the others left as it is; slope is replaced by the gradient of h W1'.
    w2_rows [B,D or more] and dact [T,B] are room to work in.
    """
    size = hidden.shape[1]
    da[:] = 0
    for i in range(w1.shape[0]):
        first, last = starts[i], starts[i + 1]
        if first == last:
            continue
        _turn(w2[i], w2_rows)
        _products(dy, tokens[first:last], w2_rows, dact)
        for p in range(first, last):
            # dL/dhidden without the strength gives da; with it, the gradient of h W1'.
            strength = a[tokens[p], i]
            dot = ZERO
            for b in range(size):
                dot += dact[p - first, b] * hidden[p, b]
            da[tokens[p], i] = dot
            for b in range(size):
                slope[p, b] *= dact[p - first, b] * strength
        _spread(slope[first:last], tokens[first:last], w1[i], dh)
        _outer(dy, a[:, i], tokens[first:last], hidden[first:last], dw2[i])


@entry(F2, I1, I1, F2, F3)
def blocks_w1_backward(h, starts, tokens, dz, dw1):  # type: ignore[no-untyped-def]
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


# The products of one block with its n tokens. What is used more than once in an inner loop stays in a register;
# where a tile reaches over an edge it repeats the last row, and either writes the same number twice or counts it 0.


@kernel
def _products(x, tokens, w, out):  # type: ignore[no-untyped-def]
    """out [n,B] = x[tokens] w'; x [T,D]; w [B,D or more]. Tiles of 2 tokens and 4 rows."""
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


@kernel
def _write(hidden, strength, tokens, w2, y):  # type: ignore[no-untyped-def]
    """y[tokens] += strength[tokens] hidden w2'; hidden [n,B]; strength [T]; w2 [D,B]. Tiles of 4 tokens."""
    n, (width, size) = len(tokens), w2.shape
    for p in range(0, n, 4):
        p1, p2, p3 = min(p + 1, n - 1), min(p + 2, n - 1), min(p + 3, n - 1)
        t0, t1, t2, t3 = tokens[p], tokens[p1], tokens[p2], tokens[p3]
        a0 = strength[t0]
        a1 = strength[t1] if p1 > p else ZERO
        a2 = strength[t2] if p2 > p1 else ZERO
        a3 = strength[t3] if p3 > p2 else ZERO
        h0, h1, h2, h3 = hidden[p], hidden[p1], hidden[p2], hidden[p3]
        for j in range(width):
            row = w2[j]
            s0 = s1 = s2 = s3 = ZERO
            for b in range(size):
                s0 += h0[b] * row[b]
                s1 += h1[b] * row[b]
                s2 += h2[b] * row[b]
                s3 += h3[b] * row[b]
            y[t0, j] += a0 * s0
            y[t1, j] += a1 * s1
            y[t2, j] += a2 * s2
            y[t3, j] += a3 * s3


@kernel
def _turn(w, rows):  # type: ignore[no-untyped-def]
    """rows[b, j] = w[j, b]; w [D,B]; rows [B,D or more]. Tiles of 8 columns, half a cache line."""
    width, size = w.shape
    edge = width - width % 8
    for first in range(0, edge, 8):
        for b in range(size):
            for j in range(first, first + 8):
                rows[b, j] = w[j, b]
    for j in range(edge, width):
        for b in range(size):
            rows[b, j] = w[j, b]


@kernel
def _spread(g, tokens, w, out):  # type: ignore[no-untyped-def]
    """out[tokens] += g w; g [n,B]; w [B,D]; out [T,D]. Tiles of 4 rows of w."""
    size, width = w.shape
    for p in range(len(tokens)):
        row = out[tokens[p]]
        for b in range(0, size, 4):
            b1, b2, b3 = min(b + 1, size - 1), min(b + 2, size - 1), min(b + 3, size - 1)
            g0 = g[p, b]
            g1 = g[p, b1] if b1 > b else ZERO
            g2 = g[p, b2] if b2 > b1 else ZERO
            g3 = g[p, b3] if b3 > b2 else ZERO
            w0, w1, w2, w3 = w[b], w[b1], w[b2], w[b3]
            for j in range(width):
                row[j] += g0 * w0[j] + g1 * w1[j] + g2 * w2[j] + g3 * w3[j]


@kernel
def _outer(dy, strength, tokens, hidden, dw2):  # type: ignore[no-untyped-def]
    """dw2 [D,B] = (strength dy)[tokens]' hidden; dy [T,D]; strength [T]; hidden [n,B]. Tiles of 4 tokens."""
    n, (width, size) = len(tokens), dw2.shape
    for p in range(0, n, 4):
        p1, p2, p3 = min(p + 1, n - 1), min(p + 2, n - 1), min(p + 3, n - 1)
        t0, t1, t2, t3 = tokens[p], tokens[p1], tokens[p2], tokens[p3]
        a0 = strength[t0]
        a1 = strength[t1] if p1 > p else ZERO
        a2 = strength[t2] if p2 > p1 else ZERO
        a3 = strength[t3] if p3 > p2 else ZERO
        h0, h1, h2, h3 = hidden[p], hidden[p1], hidden[p2], hidden[p3]
        for j in range(width):
            row = dw2[j]
            g0, g1, g2, g3 = a0 * dy[t0, j], a1 * dy[t1, j], a2 * dy[t2, j], a3 * dy[t3, j]
            if p == 0:
                for b in range(size):
                    row[b] = g0 * h0[b] + g1 * h1[b] + g2 * h2[b] + g3 * h3[b]
            else:
                for b in range(size):
                    row[b] += g0 * h0[b] + g1 * h1[b] + g2 * h2[b] + g3 * h3[b]
