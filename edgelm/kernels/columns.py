"""What both sections of a mixer do with columns of the wide arrays that a product makes, and that a product takes.

Columns are read and written where they stand, or each section would copy what it needs. Equations:
``edgelm.cells.gated_delta.paper``. A loop names few arrays, each from its
first number on: of many, or of places that may lie before it, the compiler makes no vectors.
"""

from __future__ import annotations

import numpy as np

from edgelm.kernels.jit import entry, kernel
from edgelm.kernels.norm import ONE, ZERO, sigmoids
from edgelm.kernels.signature import F1, F2, F3, F, I


@entry(F2, F2, I, F2)
def gate_columns_forward(m, p, first, out):
    """out = m SiLU(u): m [T,S]; u are the columns of p [T,P] from ``first`` on; written are the first S of out."""
    n_steps, width = m.shape
    for t in range(n_steps):
        sigmoids(p, t * p.shape[1] + first, out, t * out.shape[1], width)
        _times(m[t], p[t, first : first + width], out[t])


@entry(F2, F2, F2, I, F2, F2)
def gate_columns_backward(dout, m, p, first, dm, dp):
    """dm [T,S] overwritten, and the columns of dp [T,P] that were u in p; dout stands in its first S columns."""
    n_steps, width = m.shape
    for t in range(n_steps):
        sigmoids(p, t * p.shape[1] + first, dm, t * width, width)
        u, du = p[t, first : first + width], dp[t, first : first + width]
        _gate_backward(dout[t], m[t], u, dm[t], du)


@kernel
def _times(x, y, out):
    """out *= x y."""
    for j in range(len(x)):
        out[j] *= x[j] * y[j]


@kernel
def _gate_backward(dout, m, u, sig, du):
    """du, and the gradient of m where ``sig`` holds the sigmoids of u."""
    for j in range(len(m)):
        du[j] = dout[j] * m[j] * sig[j] * (ONE + u[j] * (ONE - sig[j]))
    for j in range(len(m)):
        sig[j] = dout[j] * u[j] * sig[j]


@entry(F2, I, F, F2, F3, F3, F3)
def heads_forward(u, first, eps, inverse, q, k, v):
    """The columns of u [T,F] from ``first`` on are q | k | v: SiLU, and q and k then of unit length.

    q, k [T,H,K], v [T,H,Vd], inverse [T,2H] overwritten.
    """
    n_steps, n_heads, key_dim = q.shape
    keys = n_heads * key_dim
    for t in range(n_steps):
        _unit(u[t], first, eps, inverse[t], 0, q[t])
        _unit(u[t], first + keys, eps, inverse[t], n_heads, k[t])
        size = v.shape[2]
        sigmoids(u[t], first + 2 * keys, v, t * n_heads * size, n_heads * size)
        for h in range(n_heads):
            base = first + 2 * keys + h * size
            x, out = u[t, base : base + size], v[t, h]
            for j in range(size):
                out[j] *= x[j]


@kernel
def _unit(u, first, eps, inverse, place, out):
    """SiLU of what of a token stands from ``first`` on, each head [K] then of unit length."""
    n_heads, size = out.shape
    sigmoids(u, first, out, 0, n_heads * size)
    for h in range(n_heads):
        base, total = first + h * size, ZERO
        x, row = u[base : base + size], out[h]
        for j in range(size):
            row[j] *= x[j]
        for j in range(size):
            total += row[j] * row[j]
        r = ONE / np.sqrt(total + eps)
        inverse[place + h] = r
        for j in range(size):
            row[j] *= r


@entry(F3, F3, F3, F2, I, F3, F3, F2, F2)
def heads_backward(dq, dk, dv, u, first, q, k, inverse, du):
    """The columns of du [T,F] that were q | k | v in u are overwritten; q, k and inverse are those of forward."""
    n_steps, n_heads, key_dim = q.shape
    keys = n_heads * key_dim
    for t in range(n_steps):
        sigmoids(u, t * u.shape[1] + first, du, t * du.shape[1] + first, 2 * keys + n_heads * dv.shape[2])
        _unit_backward(dq[t], u[t], first, q[t], inverse[t], 0, du[t])
        _unit_backward(dk[t], u[t], first + keys, k[t], inverse[t], n_heads, du[t])
        for h in range(n_heads):
            base = first + 2 * keys + h * dv.shape[2]
            x, sig, flow = u[t, base : base + dv.shape[2]], du[t, base : base + dv.shape[2]], dv[t, h]
            for j in range(dv.shape[2]):
                sig[j] = flow[j] * sig[j] * (ONE + x[j] * (ONE - sig[j]))


@kernel
def _unit_backward(dout, u, first, out, inverse, place, du):
    """What flows back through ``_unit``, to where du holds the sigmoids of u."""
    n_heads, size = out.shape
    for h in range(n_heads):
        base, dot, r = first + h * size, ZERO, inverse[place + h]
        x, sig, flow, row = u[base : base + size], du[base : base + size], dout[h], out[h]
        for j in range(size):
            dot += flow[j] * row[j]
        for j in range(size):
            sig[j] = (flow[j] - row[j] * dot) * r * sig[j] * (ONE + x[j] * (ONE - sig[j]))


@entry(F2, F1, F2, I, F, F2, F2)
def norm_columns_forward(o, gain, p, first, eps, inverse, out):
    """out = RMSNorm_head(o) SiLU(u): o [T,H*Vd]; gain [Vd]; u are the columns of p [T,P] from ``first`` on.

    inverse [T,H] overwritten, and the last H*Vd columns of out.
    """
    n_steps, width = o.shape
    size, place = gain.shape[0], out.shape[1] - o.shape[1]
    for t in range(n_steps):
        sigmoids(p, t * p.shape[1] + first, out[t], place, width)
        for h in range(width // size):
            base, total = h * size, ZERO
            old, x = o[t, base : base + size], p[t, first + base : first + base + size]
            new = out[t, place + base : place + base + size]
            for j in range(size):
                total += old[j] * old[j]
            r = ONE / np.sqrt(total / np.float32(size) + eps)
            inverse[t, h] = r
            for j in range(size):
                new[j] *= old[j] * r * gain[j] * x[j]


@entry(F2, F2, F1, F2, I, F2, F2, F2, F1)
def norm_columns_backward(dout, o, gain, p, first, inverse, do, dp, dgain):
    """do [T,H*Vd] overwritten, and the columns of dp [T,P] that were u in p; dgain [Vd] added to.

    What flows back stands in the last H*Vd columns of dout.
    """
    n_steps, width = o.shape
    size, place = gain.shape[0], dout.shape[1] - o.shape[1]
    for t in range(n_steps):
        sigmoids(p, t * p.shape[1] + first, do, t * width, width)
        for h in range(width // size):
            r, base = inverse[t, h], h * size
            flow, x, sig, old = (
                dout[t, place + base : place + base + size], p[t, first + base : first + base + size],
                do[t, base : base + size], o[t, base : base + size],
            )  # fmt: skip
            _norm_backward(flow, old, gain, x, r, sig, dp[t, first + base : first + base + size], dgain)


@kernel
def _norm_backward(dout, o, gain, u, r, sig, du, dgain):
    """Of one head: du, dgain, and what flows back to o where ``sig`` held the sigmoids of u."""
    size, dot = len(o), ZERO
    for j in range(size):
        du[j] = dout[j] * o[j] * r * gain[j] * sig[j] * (ONE + u[j] * (ONE - sig[j]))
    for j in range(size):
        dgain[j] += dout[j] * o[j] * r * u[j] * sig[j]
    for j in range(size):
        sig[j] = dout[j] * u[j] * sig[j] * gain[j]
    for j in range(size):
        dot += sig[j] * o[j]
    back = dot * r * r * r / np.float32(size)
    for j in range(size):
        sig[j] = sig[j] * r - o[j] * back
