"""LayerNorm, and the mixture of each token with the one before it."""

from __future__ import annotations

import numpy as np

from edgelm.kernels.jit import entry
from edgelm.kernels.norm import ONE, ZERO
from edgelm.kernels.signature import F1, F2, F


@entry(F2, F1, F1, F, F1, F2, F2)
def layer_forward(x, gain, bias, eps, inverse, plain, out):
    """out [T,D] = LayerNorm(x [T,D]); gain, bias [D].

    inverse [T] and plain [T,D] are overwritten with 1 / sqrt(variance + eps) and with what gain and bias are put on.
    """
    n_steps, width = x.shape
    for t in range(n_steps):
        total, squares = ZERO, ZERO
        for j in range(width):
            total += x[t, j]
        mean = total / np.float32(width)
        for j in range(width):
            squares += (x[t, j] - mean) * (x[t, j] - mean)
        r = ONE / np.sqrt(squares / np.float32(width) + eps)
        inverse[t] = r
        for j in range(width):
            z = (x[t, j] - mean) * r
            plain[t, j] = z
            out[t, j] = z * gain[j] + bias[j]


@entry(F2, F2, F1, F1, F2, F1, F1)
def layer_backward(dout, plain, gain, inverse, dx, dgain, dbias):
    """dx [T,D], dgain and dbias [D] are added to; plain and inverse are what ``layer_forward`` left."""
    n_steps, width = plain.shape
    for t in range(n_steps):
        along, total = ZERO, ZERO
        for j in range(width):
            d = dout[t, j] * gain[j]
            along += d * plain[t, j]
            total += d
        along, total, r = along / np.float32(width), total / np.float32(width), inverse[t]
        for j in range(width):
            dgain[j] += dout[t, j] * plain[t, j]
            dbias[j] += dout[t, j]
            dx[t, j] += (dout[t, j] * gain[j] - total - plain[t, j] * along) * r


@entry(F2, F1, F1, F2)
def mix_forward(h, before, share, out):
    """out [T,D] = h + (h_before - h) share; ``before`` [D] stood before the first token."""
    width = h.shape[1]
    for t in range(len(h)):
        last = h[t - 1] if t > 0 else before
        for j in range(width):
            out[t, j] = h[t, j] + (last[j] - h[t, j]) * share[j]


@entry(F2, F2, F1, F1, F2, F1)
def mix_backward(dout, h, before, share, dh, dshare):
    """dh [T,D] and dshare [D] are added to."""
    width = h.shape[1]
    for t in range(len(h)):
        last = h[t - 1] if t > 0 else before
        for j in range(width):
            dshare[j] += dout[t, j] * (last[j] - h[t, j])
            dh[t, j] += dout[t, j] * (ONE - share[j])
        if t > 0:
            for j in range(width):
                dh[t - 1, j] += dout[t, j] * share[j]
