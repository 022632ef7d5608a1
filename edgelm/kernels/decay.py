"""Gated delta rule of the decay section: a matrix memory K x Vd per head.

Equations and shapes: ``edgelm.model.reference``. Backward: the derivation in ``docs/model.md``.
"""

from __future__ import annotations

import numpy as np

from edgelm.kernels.jit import entry, kernel
from edgelm.kernels.norm import ONE, ZERO, exp, sigmoid
from edgelm.kernels.signature import F1, F2, F3, F4

CHUNK = 16
"""Steps between stored states. Backward recomputes the states within a chunk, in cache."""


@entry(F3, F3, F3, F2, F2, F1, F4, F3, F3)
def decay_forward(q, k, v, g, beta, e, checkpoints, state, out):
    """One segment of one sequence.

    q, k [T,H,K] of unit length; v, out [T,H,Vd]; g, beta [T,H]; e [Vd] is overwritten;
    state [H,K,Vd] updated in place; checkpoints [ceil(T/CHUNK),H,K,Vd] overwritten with the states
    before steps 0, CHUNK, ...
    """
    n_steps, n_heads, key_dim = q.shape
    value_dim = v.shape[2]
    for h in range(n_heads):
        s = state[h]
        for t in range(n_steps):
            if t % CHUNK == 0:
                _copy(s, checkpoints[t // CHUNK, h])
            keep = exp(g[t, h])
            b = beta[t, h]
            o = out[t, h]
            for j in range(value_dim):
                e[j] = v[t, h, j]
                o[j] = 0
            # One pass reads e = v - P'k and P'q; S'q = P'q + (q.k) beta e then needs no other read.
            qk = ZERO
            for i in range(key_dim):
                kt = k[t, h, i] * keep
                qt = q[t, h, i] * keep
                qk += q[t, h, i] * k[t, h, i]
                for j in range(value_dim):
                    e[j] -= kt * s[i, j]
                    o[j] += qt * s[i, j]
            for j in range(value_dim):
                e[j] *= b
                o[j] += qk * e[j]
            for i in range(key_dim):
                ki = k[t, h, i]
                for j in range(value_dim):
                    s[i, j] = keep * s[i, j] + ki * e[j]


@entry(F3, F3, F3, F3, F2, F2, F4, F3, F3, F3, F3, F3, F2, F2)
def decay_backward(dout, q, k, v, g, beta, checkpoints, scratch, dstate, dq, dk, dv, dg, dbeta):
    """Gradients of one segment, given dout [T,H,Vd].

    dstate [H,K,Vd] holds dL/dS after the segment and is updated in place to dL/dS before it.
    scratch [CHUNK+3,K,Vd] is overwritten. dq, dk, dv, dg, dbeta are overwritten.
    """
    n_steps, n_heads = g.shape
    n_chunks = (n_steps + CHUNK - 1) // CHUNK
    e, de = scratch[CHUNK + 1, 0], scratch[CHUNK + 2, 0]
    for h in range(n_heads):
        for chunk in range(n_chunks - 1, -1, -1):
            t0 = chunk * CHUNK
            t1 = min(t0 + CHUNK, n_steps)
            _copy(checkpoints[chunk, h], scratch[0])
            for t in range(t0, t1):
                _state_step(scratch[t - t0], k[t, h], v[t, h], g[t, h], beta[t, h], e, scratch[t - t0 + 1])
            for t in range(t1 - 1, t0 - 1, -1):
                old, new = scratch[t - t0], scratch[t - t0 + 1]
                keep, b = exp(g[t, h]), beta[t, h]
                _read_backward(dout[t, h], q[t, h], k[t, h], v[t, h], old, new, keep, dstate[h], e, de, dq[t, h])
                db = ZERO
                for j in range(e.shape[0]):
                    db += de[j] * e[j]
                    de[j] *= b
                    dv[t, h, j] = de[j]
                dbeta[t, h] = db
                dg[t, h] = _write_backward(k[t, h], old, keep, b, e, de, dstate[h], dk[t, h])


@kernel
def _copy(matrix, out):
    """out = matrix. An assignment of a whole array would check its shape, and raise."""
    for i in range(matrix.shape[0]):
        for j in range(matrix.shape[1]):
            out[i, j] = matrix[i, j]


@kernel
def _read_backward(dout, q, k, v, old, new, keep, d, e, de, dq):
    """D += q dO'; then dq = S dO, de = D'k and e = v - P'k."""
    key_dim, value_dim = old.shape
    for j in range(value_dim):
        e[j] = v[j]
        de[j] = 0
    for i in range(key_dim):
        qi, ki, pk = q[i], k[i], keep * k[i]
        acc = ZERO
        for j in range(value_dim):
            acc += new[i, j] * dout[j]
            d[i, j] += qi * dout[j]
            de[j] += ki * d[i, j]
            e[j] -= pk * old[i, j]
        dq[i] = acc


@kernel
def _write_backward(k, old, keep, b, e, de, d, dk):
    """dk = beta D e - P de and D <- exp(g) (D - k de'); returns dg. de holds beta D'k."""
    key_dim, value_dim = old.shape
    dg = ZERO
    for i in range(key_dim):
        ki = k[i]
        acc_e, acc_p = ZERO, ZERO
        for j in range(value_dim):
            acc_e += d[i, j] * e[j]
            acc_p += old[i, j] * de[j]
            dp = keep * (d[i, j] - ki * de[j])
            dg += dp * old[i, j]
            d[i, j] = dp
        dk[i] = b * acc_e - keep * acc_p
    return dg


@kernel
def _state_step(old, k, v, g, beta, e, new):
    """new = P + beta k (v - P'k)' with P = exp(g) old; e [Vd] is overwritten."""
    key_dim, value_dim = old.shape
    keep = exp(g)
    for j in range(value_dim):
        e[j] = v[j]
    for i in range(key_dim):
        kt = k[i] * keep
        for j in range(value_dim):
            e[j] -= kt * old[i, j]
    for i in range(key_dim):
        kb = k[i] * beta
        for j in range(value_dim):
            new[i, j] = keep * old[i, j] + kb * e[j]


@entry(F1, F1, F1)
def rates_forward(base, step, rate):
    """A [H] = exp(base + cumsum(softplus(step))) of base [1] and step [H]."""
    total = base[0]
    for h in range(len(step)):
        total += max(step[h], ZERO) + np.log1p(exp(-abs(step[h])))
        rate[h] = exp(total)


@entry(F1, F1, F1, F1, F1)
def rates_backward(drate, rate, step, dbase, dstep):
    """dbase [1] and dstep [H] overwritten: each step moves its own rate and all later ones."""
    later = ZERO
    for h in range(len(step) - 1, -1, -1):
        later += drate[h] * rate[h]
        dstep[h] = later * sigmoid(step[h])
    dbase[0] = later


@entry(F2, F1, F1, F1, F2, F2)
def gates_forward(raw, decay_bias, write_bias, rate, g, beta):
    """g = -A softplus(raw + b), beta = sigmoid(raw' + b'): the last 2H columns of raw hold both, g, beta [T,H]."""
    n_steps, n_heads = g.shape
    first, second = raw.shape[1] - 2 * n_heads, raw.shape[1] - n_heads
    for t in range(n_steps):
        for h in range(n_heads):
            x = raw[t, first + h] + decay_bias[h]
            g[t, h] = -rate[h] * (max(x, ZERO) + np.log1p(exp(-abs(x))))
            beta[t, h] = sigmoid(raw[t, second + h] + write_bias[h])


@entry(F2, F2, F2, F1, F1, F2, F2, F2, F1, F1, F1)
def gates_backward(dg, dbeta, raw, decay_bias, rate, g, beta, draw, ddecay_bias, dwrite_bias, drate):
    """The last 2H columns of draw overwritten; ddecay_bias, dwrite_bias, drate [H] added to."""
    n_steps, n_heads = g.shape
    first, second = raw.shape[1] - 2 * n_heads, raw.shape[1] - n_heads
    for t in range(n_steps):
        for h in range(n_heads):
            dx = -dg[t, h] * rate[h] * sigmoid(raw[t, first + h] + decay_bias[h])
            db = dbeta[t, h] * beta[t, h] * (ONE - beta[t, h])
            draw[t, first + h] = dx
            draw[t, second + h] = db
            ddecay_bias[h] += dx
            dwrite_bias[h] += db
            drate[h] += dg[t, h] * g[t, h] / rate[h]
