"""Neurons with squared ReLU: what they write is neither read nor changed where they sleep."""

from __future__ import annotations

import numpy as np

from edgelm.kernels.emit import LANES
from edgelm.kernels.emit_panel import WIDE
from edgelm.kernels.halves import add_halves, step_halves
from edgelm.kernels.jit import entry, kernel
from edgelm.kernels.norm import ZERO
from edgelm.kernels.optim import step
from edgelm.kernels.panel import panel
from edgelm.kernels.signature import B1, D1, F1, F2, I1, U2, W2, F
from edgelm.kernels.tile import RUN, widen


@entry(F2, F2, B1)
def squared_relu(u, a, awake):
    """u [T,F] <- ReLU(u), in place, and a [T,F] = u^2; awake [F]: whether any token wakes the neuron."""
    awake[:] = False
    for t in range(len(u)):
        for j in range(len(awake)):
            x = max(u[t, j], ZERO)
            u[t, j] = x
            a[t, j] = x * x
        for j in range(len(awake)):
            awake[j] |= u[t, j] > 0


GROUP = 8
"""Neurons whose gradients are made together."""


def room(n_steps: int, width: int) -> int:
    """Numbers of what steps and gradients overwrite, for at most ``n_steps`` tokens."""
    return (GROUP + 1) * width + GROUP * n_steps


@kernel
def _gradients(dy, a, awake, first, rows):
    """How many rows of a' dy, from neuron ``first`` on, stand in ``rows`` behind its first D numbers; none if all these
    neurons sleep."""
    n_steps, width = dy.shape
    n, packed = min(GROUP, a.shape[1] - first), (GROUP + 1) * width
    if not awake[first : first + n].any():
        return 0
    for t in range(n_steps):
        for r in range(n):
            rows[packed + t * n + r] = a[t, first + r]
    wide = width - width % WIDE
    for j in range(0, wide, WIDE):
        out = (rows, width + j, width)
        panel(False, True, False, False, (rows, packed, n), (dy, j, width), out, (rows, 0), n, n_steps)
    for r in range(n):
        own = rows[(r + 1) * width : (r + 2) * width]
        for j in range(wide, width):
            total = a[0, first + r] * dy[0, j]
            for t in range(1, n_steps):
                total += a[t, first + r] * dy[t, j]
            own[j] = total
    return n


@entry(F2, F2, B1, F1, F2)
def rows_gradient(dy, a, awake, rows, grad):
    """grad [F,D] = a' dy, of the neurons that are awake; of the others it is left as it is. rows is overwritten."""
    width = dy.shape[1]
    for first in range(0, len(awake), GROUP):
        for r in range(_gradients(dy, a, awake, first, rows)):
            if awake[first + r]:
                for j in range(width):
                    grad[first + r, j] = rows[(r + 1) * width + j]


@entry(F2, F2, B1, F1, D1)
def rows_squares(dy, a, awake, rows, squares):
    """squares [F] float64 of the neurons that are awake: the sum of the squares of a row of a' dy; rows is
    overwritten."""
    width = dy.shape[1]
    for first in range(0, len(awake), GROUP):
        for r in range(_gradients(dy, a, awake, first, rows)):
            if awake[first + r]:
                grad, total = rows[(r + 1) * width : (r + 2) * width], 0.0
                for j in range(width):
                    total += np.float64(grad[j]) * np.float64(grad[j])
                squares[first + r] = total


@entry(F2, F2, B1, F2, F1, F, F1, F2)
def rows_step(dy, a, awake, base, rate, pull, rows, w):
    """w <- w - rate a' dy + pull (base - w), w [F,D], of the neurons that are awake.

    dy [T,D], a [T,F]; rate [F]; rows, of ``room``, is overwritten.
    """
    width = w.shape[1]
    given = rows[:width]
    for first in range(0, len(awake), GROUP):
        for r in range(_gradients(dy, a, awake, first, rows)):
            i = first + r
            if awake[i]:
                # Copied as the integers are made numbers: of two ways the compiler may round one otherwise.
                own = base[i]
                for j in range(len(given)):
                    given[j] = own[j]
                step(rows[(r + 1) * width : (r + 2) * width], given, rate[i], pull, w[i])


@entry(F2, F2, B1, U2, F2, F1, F, F1, F2)
def rows_step_int8(dy, a, awake, q, scale, rate, pull, rows, w):
    """``rows_step`` with the base as uint8 around 128, q [F,D], times scale [F,D/32]."""
    width = w.shape[1]
    given = rows[:width]
    for first in range(0, len(awake), GROUP):
        for r in range(_gradients(dy, a, awake, first, rows)):
            i = first + r
            if awake[i]:
                for j in range(0, width, LANES):
                    widen(q, i * width + j, scale[i, j // RUN], given, j)
                step(rows[(r + 1) * width : (r + 2) * width], given, rate[i], pull, w[i])


@entry(F2, F2, B1, F1, F, F1, W2)
def rows_step_halves(dy, a, awake, rate, pull, rows, change):
    """change <- change - rate a' dy - pull change, [F,D] as bits of binary16, of the neurons that are awake.

    dy [T,D], a [T,F]; rate [F]; rows, of ``room``, is overwritten.
    """
    width = change.shape[1]
    whole = width - width % LANES
    for first in range(0, len(awake), GROUP):
        for r in range(_gradients(dy, a, awake, first, rows)):
            i, grad = first + r, (r + 1) * width
            if awake[i]:
                for j in range(0, whole, LANES):
                    step_halves(LANES, rows, grad + j, rate[i], pull, change, i * width + j)
                for j in range(whole, width):
                    step_halves(1, rows, grad + j, rate[i], pull, change, i * width + j)


@kernel
def changed_row(q, scale, change, i, out, out0):
    """out [D], from number out0 on, = row i of q [F,D] around 128 times scale [F,D/32], and of its change added,
    bits of binary16 [F,D]."""
    width = q.shape[1]
    for j in range(0, width, LANES):
        widen(q, i * width + j, scale[i, j // RUN], out, out0 + j)
        add_halves(LANES, change, i * width + j, out, out0 + j)


@entry(U2, F2, W2, I1, F2)
def changed_rows(q, scale, change, ids, out):
    """out [N,D] = the rows ids [N] of a matrix of integers and its change: ``changed_row``."""
    for n in range(len(ids)):
        changed_row(q, scale, change, ids[n], out, n * q.shape[1])
