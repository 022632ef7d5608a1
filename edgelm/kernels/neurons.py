"""Neurons with squared ReLU: what they write is neither read nor changed where they sleep."""

from __future__ import annotations

import numpy as np

from edgelm.kernels.emit import LANES
from edgelm.kernels.halves import narrow_halves, widen_halves
from edgelm.kernels.jit import entry, kernel
from edgelm.kernels.norm import ZERO
from edgelm.kernels.optim import step
from edgelm.kernels.signature import B1, D1, F1, F2, I1, J1, U2, W2, F
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


@kernel
def _gradient(dy, a, i, row):
    """row [D] = sum_t a[t,i] dy[t]."""
    row[:] = 0
    for t in range(len(dy)):
        x, d = a[t, i], dy[t]
        if x > 0:
            for j in range(len(row)):
                row[j] += x * d[j]


@entry(F2, F2, B1, F2)
def rows_gradient(dy, a, awake, grad):
    """grad [F,D] = a' dy, of the neurons that are awake; of the others it is left as it is."""
    for i in range(len(awake)):
        if awake[i]:
            _gradient(dy, a, i, grad[i])


@entry(F2, F2, B1, F1, D1)
def rows_squares(dy, a, awake, row, squares):
    """squares [F] float64 of the neurons that are awake: the sum of the squares of a row of a' dy; row [D] is
    overwritten."""
    grad = row[: dy.shape[1]]
    for i in range(len(awake)):
        if awake[i]:
            _gradient(dy, a, i, grad)
            total = 0.0
            for j in range(len(grad)):
                total += np.float64(grad[j]) * np.float64(grad[j])
            squares[i] = total


@entry(F2, F2, B1, F2, F1, F, F1, F2)
def rows_step(dy, a, awake, base, rate, pull, row, w):
    """w <- w - rate a' dy + pull (base - w), w [F,D], of the neurons that are awake.

    dy [T,D], a [T,F]; rate [F]; row [2 D] is overwritten.
    """
    width = w.shape[1]
    grad, given = row[:width], row[width : 2 * width]
    for i in range(len(awake)):
        if awake[i]:
            _gradient(dy, a, i, grad)
            # Copied as the integers are made numbers: of two ways the compiler may round one otherwise.
            own = base[i]
            for j in range(len(given)):
                given[j] = own[j]
            step(grad, given, rate[i], pull, w[i])


@entry(F2, F2, B1, U2, F2, F1, F, F1, F2)
def rows_step_int8(dy, a, awake, q, scale, rate, pull, row, w):
    """``rows_step`` with the base as uint8 around 128, q [F,D], times scale [F,D/32]."""
    width = w.shape[1]
    grad, given = row[:width], row[width : 2 * width]
    for i in range(len(awake)):
        if awake[i]:
            _gradient(dy, a, i, grad)
            for j in range(0, width, LANES):
                widen(q, i * width + j, scale[i, j // RUN], given, j)
            step(grad, given, rate[i], pull, w[i])


@entry(F2, F2, B1, F1, F, F1, J1, W2)
def rows_step_halves(dy, a, awake, rate, pull, row, bits, change):
    """change <- change - rate a' dy - pull change, [F,D] as bits of binary16, of the neurons that are awake.

    dy [T,D], a [T,F]; rate [F]; row [2 D] is overwritten, and bits is its memory as int32.
    """
    width = change.shape[1]
    grad, now, of_now = row[:width], row[width : 2 * width], bits[width : 2 * width]
    for i in range(len(awake)):
        if awake[i]:
            _gradient(dy, a, i, grad)
            own, by = change[i], rate[i]
            widen_halves(own, of_now, now)
            for j in range(len(grad)):
                now[j] -= pull * now[j] + by * grad[j]
            narrow_halves(now, of_now, own)


@entry(U2, F2, W2, I1, F1, J1, F2)
def changed_rows(q, scale, change, ids, row, bits, out):
    """out [N,D] = the rows ids [N] of q [F,D] around 128 times scale [F,D/32], and their change added.

    change [F,D] holds bits of binary16; row [D] is overwritten, and bits is its memory as int32.
    """
    width = q.shape[1]
    for n in range(len(ids)):
        i, given = ids[n], out[n]
        for j in range(0, width, LANES):
            widen(q, i * width + j, scale[i, j // RUN], out, n * width + j)
        widen_halves(change[i], bits, row)
        for j in range(len(given)):
            given[j] += row[j]
