"""The update rule of learning (after Krause et al. 2018, arXiv 1709.07432)."""

from __future__ import annotations

from edgelm.kernels.jit import entry, kernel
from edgelm.kernels.signature import F1, F


@entry(F1, F1, F, F, F1)
def pulled_step(grad, base, rate, pull, weight):
    """weight <- weight - rate grad + pull (base - weight), all [N]; neuron blocks: ``blocks.blocks_w2_step``."""
    step(grad, base, rate, pull, weight)


@kernel
def step(g, b, r, pull, w):
    """The same within a kernel."""
    for j in range(len(w)):
        w[j] += pull * (b[j] - w[j]) - r * g[j]
