"""The router and the neuron blocks: only the blocks that are awake are read, computed and changed.

Equations: ``edgelm.model.reference.activations`` and ``block_ffn``. A *pair* is a token and a block that
wakes for it; pairs stand grouped by block, so that a block's weights are read once a segment.
"""

from __future__ import annotations

import numpy as np

from edgelm.kernels.jit import kernel


@kernel
def route_forward(a0, bias, log_gamma, max_awake, eps, a1, inverse, a):  # type: ignore[no-untyped-def]
    """a0 (before the bias), a1, a [T,M]; a1 and inverse [T] are kept for backward."""
    n_steps, n_blocks = a0.shape
    for t in range(n_steps):
        total = eps * 0
        n_awake = 0
        for i in range(n_blocks):
            x = max(a0[t, i] + bias[i], eps * 0)
            a1[t, i] = x
            total += x * x
            n_awake += x > 0
        r = 1 / np.sqrt(total / n_blocks + eps)
        inverse[t] = r
        for i in range(n_blocks):
            a[t, i] = a1[t, i] * r * np.exp(log_gamma[i])
        # The weakest go back to sleep; of equals the last, as the stable sort of the reference does.
        while n_awake > max_awake:
            weakest = -1
            for i in range(n_blocks):
                if a[t, i] > 0 and (weakest < 0 or a[t, i] <= a[t, weakest]):
                    weakest = i
            a[t, weakest] = 0
            n_awake -= 1


@kernel
def route_backward(da, a1, log_gamma, inverse, a, da0, dlog_gamma):  # type: ignore[no-untyped-def]
    """da [T,M] (0 where asleep) to da0 [T,M] overwritten; dlog_gamma [M] added to."""
    n_steps, n_blocks = a1.shape
    for t in range(n_steps):
        r = inverse[t]
        dot = r * 0
        for i in range(n_blocks):
            if a[t, i] > 0:
                dlog_gamma[i] += da[t, i] * a[t, i]
                dot += da[t, i] * a[t, i]  # = da gamma a1 r
        back = dot * r * r / n_blocks
        for i in range(n_blocks):
            if a1[t, i] > 0:
                da0[t, i] = -a1[t, i] * back
                if a[t, i] > 0:
                    da0[t, i] += da[t, i] * np.exp(log_gamma[i]) * r
            else:
                da0[t, i] = 0


@kernel
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


@kernel
def blocks_forward(h, a, w1, w2, starts, tokens, z, hidden, y):  # type: ignore[no-untyped-def]
    """y [T,D] += sum over awake blocks of a SiLU(h W1') W2'.

    h [T,D]; a [T,M]; w1 [M,B,D]; w2 [M,D,B]; z and hidden [pairs,B] overwritten with h W1' and its
    SiLU, for backward.
    """
    n_blocks, size, width = w1.shape
    for i in range(n_blocks):
        for p in range(starts[i], starts[i + 1]):
            row = h[tokens[p]]
            for b in range(size):
                acc = row[0] * 0
                for j in range(width):
                    acc += row[j] * w1[i, b, j]
                z[p, b] = acc
            for b in range(size):
                hidden[p, b] = z[p, b] / (1 + np.exp(-z[p, b]))
            out, strength = y[tokens[p]], a[tokens[p], i]
            for j in range(width):
                acc = strength * 0
                for b in range(size):
                    acc += hidden[p, b] * w2[i, j, b]
                out[j] += strength * acc


@kernel
def blocks_backward(dy, h, a, w1, w2, starts, tokens, z, hidden, scratch, da, dh, dw1, dw2):  # type: ignore[no-untyped-def]
    """Gradients of ``blocks_forward``.

    da [T,M] overwritten (0 where asleep); dh [T,D] added to; dw1, dw2 of the blocks that are awake in
    the segment overwritten, of the others left as they are; z is used up; scratch [B].
    """
    n_blocks, size, width = w1.shape
    da[:] = 0
    for i in range(n_blocks):
        if starts[i] == starts[i + 1]:
            continue
        dw1[i] = 0
        dw2[i] = 0
        for p in range(starts[i], starts[i + 1]):
            t = tokens[p]
            strength = a[t, i]
            row, drow, dout = h[t], dh[t], dy[t]
            x, act = z[p], hidden[p]
            # x becomes the slope of SiLU there, sig (1 + x (1 - sig)).
            for b in range(size):
                sig = 1 / (1 + np.exp(-x[b]))
                x[b] = sig * (1 + x[b] * (1 - sig))
            dact = scratch
            for b in range(size):
                dact[b] = 0
            for j in range(width):
                g = dout[j]
                for b in range(size):
                    dw2[i, j, b] += g * strength * act[b]
                    dact[b] += g * w2[i, j, b]
            # dL/dhidden without the strength gives da; with it, the gradient of z.
            dot = strength * 0
            for b in range(size):
                dot += dact[b] * act[b]
                x[b] *= dact[b] * strength
            da[t, i] = dot
            for b in range(size):
                g = x[b]
                for j in range(width):
                    dw1[i, b, j] += g * row[j]
                    drow[j] += g * w1[i, b, j]
