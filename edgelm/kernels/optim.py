"""The update rule of learning (after Krause et al. 2018, arXiv 1709.07432).

A tensor comes as rows: a neuron block each, or all of it in one. Rows that are not ``used`` [N] are neither
read nor written.
"""

from __future__ import annotations

from edgelm.kernels.emit import LANES
from edgelm.kernels.jit import entry, kernel
from edgelm.kernels.norm import ZERO
from edgelm.kernels.signature import B1, F1, F2, U2, F
from edgelm.kernels.tile import RUN, widen


@entry(F2, B1, returns=(F,))
def sum_of_squares(grad, used):  # type: ignore[no-untyped-def]
    """Sum over the used rows of grad [N,S]; not finite if one of their numbers is not."""
    total = ZERO
    for i in range(grad.shape[0]):
        if used[i]:
            row = grad[i]
            for j in range(grad.shape[1]):
                total += row[j] * row[j]
    return total


@entry(F2, F2, B1, F1, F, F2)
def pulled_step(grad, base, used, rate, pull, weight):  # type: ignore[no-untyped-def]
    """weight <- weight - rate grad + pull (base - weight) in the used rows; rate [N], all others [N,S]."""
    for i in range(weight.shape[0]):
        if used[i]:
            _step(grad[i], base[i], rate[i], pull, weight[i])


@entry(F2, U2, F2, F1, B1, F1, F, F2)
def pulled_step_int8(grad, q, scale, room, used, rate, pull, weight):  # type: ignore[no-untyped-def]
    """As ``pulled_step``; base is q [N,S] around 128 times scale [N,S/32], and room [S] is overwritten."""
    width = weight.shape[1]
    for i in range(weight.shape[0]):
        if used[i]:
            for j in range(0, width, LANES):
                widen(q, i * width + j, scale[i, j // RUN], room, j)
            _step(grad[i], room, rate[i], pull, weight[i])


@kernel
def _step(g, b, r, pull, w):  # type: ignore[no-untyped-def]
    for j in range(len(w)):
        w[j] += pull * (b[j] - w[j]) - r * g[j]
