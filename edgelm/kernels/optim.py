"""The update rule of learning (after Krause et al. 2018, arXiv 1709.07432)."""

from __future__ import annotations

from edgelm.kernels.jit import kernel


@kernel
def sum_of_squares(grad):  # type: ignore[no-untyped-def]
    """Sum over a flat gradient; not finite if one of its numbers is not."""
    total = grad[0] * 0
    for i in range(grad.shape[0]):
        total += grad[i] * grad[i]
    return total


@kernel
def pulled_step(grad, base, rate, pull, weight):  # type: ignore[no-untyped-def]
    """weight <- weight - rate grad + pull (base - weight), all flat; weight updated in place."""
    for i in range(weight.shape[0]):
        weight[i] += pull * (base[i] - weight[i]) - rate * grad[i]
