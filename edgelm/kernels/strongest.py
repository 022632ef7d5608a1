"""A router that wakes the same number of blocks for every token, weighed by a softmax over them.

Equations: ``edgelm.cells.top_k_ffn.paper``.
"""

from __future__ import annotations

from edgelm.kernels.jit import entry, kernel
from edgelm.kernels.norm import ONE, ZERO, exp
from edgelm.kernels.signature import F1, F2, F, I


@entry(F2, F1, F1, I, F, F2, F2)
def wake_forward(a0, bias, log_gamma, max_awake, size, share, a):
    """a0 (before the bias), share, a [T,M]; share, the softmax over those awake, is kept for backward."""
    n_steps, n_blocks = a0.shape
    for t in range(n_steps):
        for i in range(n_blocks):
            share[t, i] = a0[t, i] + bias[i]
        top, inverse = wake(share[t], log_gamma, max_awake, a[t])
        for i in range(n_blocks):
            if a[t, i] > 0:
                share[t, i] = exp(share[t, i] - top) * inverse
                a[t, i] = share[t, i] * exp(log_gamma[i]) * size
            else:
                share[t, i] = 0


@kernel
def wake(logits, log_gamma, max_awake, a):
    """a [M] becomes 1 where a block is among the A strongest by logit and log_gamma, of equals the first; else 0.

    Returns the largest logit of those, and 1 / sum of e to the others less this one.
    """
    n_blocks = len(a)
    for i in range(n_blocks):
        a[i] = 0
    top = logits[0]
    for n in range(max_awake):
        best = -1
        strength = top
        for i in range(n_blocks):
            if a[i] == 0:
                other = logits[i] + log_gamma[i]
                if best < 0 or other > strength:
                    best, strength = i, other
        a[best] = 1
        top = logits[best] if n == 0 or logits[best] > top else top
    total = ZERO
    for i in range(n_blocks):
        if a[i] > 0:
            total += exp(logits[i] - top)
    return top, ONE / total


@entry(F2, F2, F2, F2, F1)
def wake_backward(da, share, a, da0, dlog_gamma):
    """da [T,M] (0 where asleep) to da0 [T,M] overwritten; dlog_gamma [M] added to. share and a are of forward."""
    n_steps, n_blocks = a.shape
    for t in range(n_steps):
        for i in range(n_blocks):
            dlog_gamma[i] += da[t, i] * a[t, i]
        # Apart from what is stored, as in ``edgelm.kernels.blocks``.
        dot = ZERO
        for i in range(n_blocks):
            dot += da[t, i] * a[t, i]
        for i in range(n_blocks):
            da0[t, i] = da[t, i] * a[t, i] - share[t, i] * dot
