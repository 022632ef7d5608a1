"""RMSNorm, the L2 norm of keys and queries, and the gated norm of the heads."""

from __future__ import annotations

import numpy as np

from edgelm.kernels.jit import kernel


@kernel
def rms_forward(x, gain, eps, inverse, out):  # type: ignore[no-untyped-def]
    """x, out [T,D]; gain [D]; inverse [T] overwritten with 1 / sqrt(mean(x^2) + eps)."""
    n_steps, width = x.shape
    for t in range(n_steps):
        total = x[t, 0] * 0
        for j in range(width):
            total += x[t, j] * x[t, j]
        r = 1 / np.sqrt(total / width + eps)
        inverse[t] = r
        for j in range(width):
            out[t, j] = x[t, j] * r * gain[j]


@kernel
def rms_backward(dout, x, gain, inverse, dx, dgain):  # type: ignore[no-untyped-def]
    """dx [T,D] and dgain [D] are added to."""
    n_steps, width = x.shape
    for t in range(n_steps):
        r = inverse[t]
        dot = r * 0
        for j in range(width):
            dot += dout[t, j] * gain[j] * x[t, j]
        back = dot * r * r * r / width
        for j in range(width):
            dgain[j] += dout[t, j] * x[t, j] * r
            dx[t, j] += dout[t, j] * gain[j] * r - x[t, j] * back


@kernel
def silu_l2_forward(u, n_heads, eps, inverse, out):  # type: ignore[no-untyped-def]
    """SiLU, then unit length per head: u, out [T,H*K]; inverse [T,H] overwritten."""
    n_steps, width = u.shape
    size = width // n_heads
    for t in range(n_steps):
        for h in range(n_heads):
            total = eps * 0
            for j in range(h * size, (h + 1) * size):
                s = u[t, j] / (1 + np.exp(-u[t, j]))
                out[t, j] = s
                total += s * s
            r = 1 / np.sqrt(total + eps)
            inverse[t, h] = r
            for j in range(h * size, (h + 1) * size):
                out[t, j] *= r


@kernel
def silu_l2_backward(dout, u, n_heads, out, inverse, du):  # type: ignore[no-untyped-def]
    """du [T,H*K] overwritten, it may be dout itself; out is the forward result."""
    n_steps, width = u.shape
    size = width // n_heads
    for t in range(n_steps):
        for h in range(n_heads):
            r = inverse[t, h]
            dot = r * 0
            for j in range(h * size, (h + 1) * size):
                dot += dout[t, j] * out[t, j]
            for j in range(h * size, (h + 1) * size):
                sig = 1 / (1 + np.exp(-u[t, j]))
                slope = sig * (1 + u[t, j] * (1 - sig))
                du[t, j] = (dout[t, j] - out[t, j] * dot) * r * slope


@kernel
def silu_forward(u, out):  # type: ignore[no-untyped-def]
    """u, out [T,F]."""
    for t in range(u.shape[0]):
        for j in range(u.shape[1]):
            out[t, j] = u[t, j] / (1 + np.exp(-u[t, j]))


@kernel
def silu_backward(dout, u, du):  # type: ignore[no-untyped-def]
    """du [T,F] overwritten; it may be dout itself."""
    for t in range(u.shape[0]):
        for j in range(u.shape[1]):
            sig = 1 / (1 + np.exp(-u[t, j]))
            du[t, j] = dout[t, j] * sig * (1 + u[t, j] * (1 - sig))


@kernel
def gate_forward(m, u, out):  # type: ignore[no-untyped-def]
    """out = m SiLU(u), all [T,F]."""
    for t in range(u.shape[0]):
        for j in range(u.shape[1]):
            out[t, j] = m[t, j] * u[t, j] / (1 + np.exp(-u[t, j]))


@kernel
def gate_backward(dout, m, u, dm, du):  # type: ignore[no-untyped-def]
    """dm, du [T,F] overwritten; they may be m and u themselves."""
    for t in range(u.shape[0]):
        for j in range(u.shape[1]):
            x = u[t, j]
            sig = 1 / (1 + np.exp(-x))
            du[t, j] = dout[t, j] * m[t, j] * sig * (1 + x * (1 - sig))
            dm[t, j] = dout[t, j] * x * sig


@kernel
def gated_norm_forward(o, gain, u, eps, inverse, out):  # type: ignore[no-untyped-def]
    """out = RMSNorm_head(o) SiLU(u): o, u, out [T,H*Vd]; gain [Vd]; inverse [T,H] overwritten."""
    n_steps, width = o.shape
    size = gain.shape[0]
    for t in range(n_steps):
        for h in range(width // size):
            first = h * size
            total = eps * 0
            for j in range(size):
                total += o[t, first + j] * o[t, first + j]
            r = 1 / np.sqrt(total / size + eps)
            inverse[t, h] = r
            for j in range(size):
                x = u[t, first + j]
                out[t, first + j] = o[t, first + j] * r * gain[j] * x / (1 + np.exp(-x))


@kernel
def gated_norm_backward(dout, o, gain, u, inverse, do, du, dgain):  # type: ignore[no-untyped-def]
    """do, du [T,H*Vd] overwritten, du may be u itself; dgain [Vd] added to."""
    n_steps, width = o.shape
    size = gain.shape[0]
    for t in range(n_steps):
        for h in range(width // size):
            first = h * size
            r = inverse[t, h]
            dot = r * 0
            for j in range(size):
                i = first + j
                sig = 1 / (1 + np.exp(-u[t, i]))
                gate = u[t, i] * sig
                normed = o[t, i] * r
                du[t, i] = dout[t, i] * normed * gain[j] * sig * (1 + u[t, i] * (1 - sig))
                dgain[j] += dout[t, i] * normed * gate
                do[t, i] = dout[t, i] * gate * gain[j]
                dot += do[t, i] * o[t, i]
            back = dot * r * r * r / size
            for j in range(size):
                do[t, first + j] = do[t, first + j] * r - o[t, first + j] * back
