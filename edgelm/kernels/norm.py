"""RMSNorm, SiLU and gates, the gated norm of the heads, and the exponential of all kernels."""

from __future__ import annotations

import numpy as np

from edgelm.kernels.emit_sigmoid import HIGH, LN2, LN2_REST, LOG2E, LOW, TERMS, emit_exps, emit_sigmoids
from edgelm.kernels.jit import entry, kernel, lowered
from edgelm.kernels.signature import F1, F2, F

# Numbers of the narrowest type: a sum that begins with them has the type of what is added. Beside a float32 a plain
# 0 or 1 makes float64, and halves what a vector holds.
ZERO, ONE = np.float32(0), np.float32(1)
_LOW, _HIGH, _LOG2E, _LN2, _LN2_REST = LOW, HIGH, LOG2E, LN2, LN2_REST
_HALF = np.float32(0.5)
_C7, _C6, _C5, _C4, _C3, _C2 = TERMS


@kernel
def exp(x):
    """e^x of a number; of a float32 to its last bit or so, at least e^-87, and unlike a call it vectorises.

    The polynomial of Cephes (``expf``) on [-ln2/2, ln2/2], times a power of two put together from its bits.
    """
    if not isinstance(x, np.float32):
        return np.exp(x)
    # No number counts as -87 here, so that n is an integer, and stays no number in x.
    n = x if x > _LOW else _LOW
    n = n if n < _HIGH else _HIGH
    n = np.floor(n * _LOG2E + _HALF)
    x = _LOW if x < _LOW else x
    r = x - n * _LN2 + n * _LN2_REST
    p = ((((_C7 * r + _C6) * r + _C5) * r + _C4) * r + _C3) * r + _C2
    return (p * r * r + r + ONE) * np.int32((np.int32(n) + 127) << 23).view(np.float32)


@kernel
def sigmoid(x):
    """1 / (1 + e^-x) of a number."""
    return ONE / (ONE + exp(-x))


@lowered(emit_exps, literals=0)
def exps(x, x0, out, out0, n):
    """out [n] = ``exp`` of x [n], numbers side by side from a place of each array on."""
    out.reshape(-1)[out0 : out0 + n] = np.exp(x.reshape(-1)[x0 : x0 + n])


@lowered(emit_sigmoids, literals=0)
def sigmoids(x, x0, out, out0, n):
    """out [n] = ``sigmoid`` of x [n], numbers side by side from a place of each array on."""
    out.reshape(-1)[out0 : out0 + n] = ONE / (ONE + np.exp(-x.reshape(-1)[x0 : x0 + n]))


@entry(F2, F1, F, F1, F2)
def rms_forward(x, gain, eps, inverse, out):
    """x, out [T,D]; gain [D]; inverse [T] overwritten with 1 / sqrt(mean(x^2) + eps)."""
    n_steps, width = x.shape
    for t in range(n_steps):
        total = ZERO
        for j in range(width):
            total += x[t, j] * x[t, j]
        r = ONE / np.sqrt(total / np.float32(width) + eps)
        inverse[t] = r
        for j in range(width):
            out[t, j] = x[t, j] * r * gain[j]


@entry(F2, F2, F1, F1, F2, F1)
def rms_backward(dout, x, gain, inverse, dx, dgain):
    """dx [T,D] and dgain [D] are added to."""
    n_steps, width = x.shape
    for t in range(n_steps):
        r = inverse[t]
        dot = ZERO
        for j in range(width):
            dot += dout[t, j] * gain[j] * x[t, j]
        back = dot * r * r * r / np.float32(width)
        for j in range(width):
            dgain[j] += dout[t, j] * x[t, j] * r
            dx[t, j] += dout[t, j] * gain[j] * r - x[t, j] * back


@entry(F2, F2)
def silu_forward(u, out):
    """u, out [T,F]."""
    for t in range(u.shape[0]):
        for j in range(u.shape[1]):
            out[t, j] = u[t, j] * sigmoid(u[t, j])


@entry(F2, F2, F2)
def silu_backward(dout, u, du):
    """du [T,F] overwritten; it may be dout itself."""
    for t in range(u.shape[0]):
        for j in range(u.shape[1]):
            sig = sigmoid(u[t, j])
            du[t, j] = dout[t, j] * sig * (ONE + u[t, j] * (ONE - sig))


@entry(F2, F2, F2)
def gate_forward(m, u, out):
    """out = m SiLU(u), all [T,F]."""
    for t in range(u.shape[0]):
        for j in range(u.shape[1]):
            out[t, j] = m[t, j] * u[t, j] * sigmoid(u[t, j])


@entry(F2, F2, F2, F2, F2)
def gate_backward(dout, m, u, dm, du):
    """dm, du [T,F] overwritten; they may be m and u themselves."""
    for t in range(u.shape[0]):
        for j in range(u.shape[1]):
            x = u[t, j]
            sig = sigmoid(x)
            du[t, j] = dout[t, j] * m[t, j] * sig * (ONE + x * (ONE - sig))
            dm[t, j] = dout[t, j] * x * sig


@entry(F2, F1, F2, F, F2, F2)
def gated_norm_forward(o, gain, u, eps, inverse, out):
    """out = RMSNorm_head(o) SiLU(u): o, u, out [T,H*Vd]; gain [Vd]; inverse [T,H] overwritten."""
    n_steps, width = o.shape
    size = gain.shape[0]
    for t in range(n_steps):
        for h in range(width // size):
            first = h * size
            total = ZERO
            for j in range(size):
                total += o[t, first + j] * o[t, first + j]
            r = ONE / np.sqrt(total / np.float32(size) + eps)
            inverse[t, h] = r
            for j in range(size):
                x = u[t, first + j]
                out[t, first + j] = o[t, first + j] * r * gain[j] * x * sigmoid(x)


@entry(F2, F2, F1, F2, F2, F2, F2, F1)
def gated_norm_backward(dout, o, gain, u, inverse, do, du, dgain):
    """do, du [T,H*Vd] overwritten, du may be u itself; dgain [Vd] added to."""
    n_steps, width = o.shape
    size = gain.shape[0]
    for t in range(n_steps):
        for h in range(width // size):
            first = h * size
            r = inverse[t, h]
            dot = ZERO
            for j in range(size):
                i = first + j
                sig = sigmoid(u[t, i])
                gate = u[t, i] * sig
                normed = o[t, i] * r
                du[t, i] = dout[t, i] * normed * gain[j] * sig * (ONE + u[t, i] * (ONE - sig))
                dgain[j] += dout[t, i] * normed * gate
                do[t, i] = dout[t, i] * gate * gain[j]
                dot += do[t, i] * o[t, i]
            back = dot * r * r * r / np.float32(size)
            for j in range(size):
                do[t, first + j] = do[t, first + j] * r - o[t, first + j] * back
