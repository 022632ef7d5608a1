"""The memory of RWKV-7 over a segment; equations and letters: ``edgelm.cells.rwkv7_time_mix.paper``.

``tanh``, keys and gates are for numbers [T,D], of which N side by side are a head's.
"""

from __future__ import annotations

import numpy as np

from edgelm.kernels.jit import entry, kernel
from edgelm.kernels.norm import ONE, ZERO, exp, sigmoid
from edgelm.kernels.signature import F1, F2, F3, F

_TWO = np.float32(2)


@entry(F2)
def tanh_forward(u):
    """u <- tanh(u), in place."""
    for t in range(len(u)):
        for j in range(u.shape[1]):
            u[t, j] = ONE - _TWO / (exp(_TWO * u[t, j]) + ONE)


@entry(F2)
def sigmoid_forward(u):
    """u <- sigmoid(u), in place."""
    for t in range(len(u)):
        for j in range(u.shape[1]):
            u[t, j] = sigmoid(u[t, j])


@entry(F2, F1, F, F2, F2)
def decay_forward(raw, w0, scale, gate, keep):
    """gate = sigmoid(w0 + raw), keep = exp(-scale gate), all [T,D], w0 [D]."""
    for t in range(len(raw)):
        for j in range(len(w0)):
            s = sigmoid(raw[t, j] + w0[j])
            gate[t, j] = s
            keep[t, j] = exp(-scale * s)


@entry(F2, F1, F2)
def biased_sigmoid(raw, bias, out):
    """out [T,D] = sigmoid(bias [D] + raw [T,D])."""
    for t in range(len(raw)):
        for j in range(len(bias)):
            out[t, j] = sigmoid(raw[t, j] + bias[j])


@entry(F2, F2, F1, F1, F, F2, F2, F2)
def keys_forward(k, a, k_k, k_a, least, inverse, kk, written):
    """kk [T,D], of length 1 in each head, and the keys that are written [T,D]; inverse [T,H] of the lengths."""
    size = k.shape[1] // inverse.shape[1]
    for t in range(len(k)):
        for i in range(inverse.shape[1]):
            total = ZERO
            for j in range(i * size, i * size + size):
                total += (k[t, j] * k_k[j]) * (k[t, j] * k_k[j])
            r = ONE / max(np.sqrt(total), least)
            inverse[t, i] = r
            for j in range(i * size, i * size + size):
                kk[t, j] = k[t, j] * k_k[j] * r
        for j in range(len(k_k)):
            written[t, j] = k[t, j] * (ONE + (a[t, j] - ONE) * k_a[j])


@entry((F2, F2), (F2, F2), (F1, F1), (F2, F2), (F2, F2), (F1, F1))
def keys_backward(dkeys, given, weights, made, grads, small):
    """Back through ``keys_forward``.

    Parameters
    ----------
    dkeys
        Gradients of kk, overwritten, and of the keys that are written [T,D].
    given
        k and a [T,D].
    weights
        k_k and k_a [D].
    made
        inverse [T,H], kk [T,D].
    grads
        dk [T,D] overwritten; da [T,D] added to.
    small
        Gradients of k_k and k_a, added to.
    """
    (dkk, dwritten), (k, a), (k_k, k_a), (inverse, kk) = dkeys, given, weights, made
    dk, da = grads
    size = k.shape[1] // inverse.shape[1]
    for t in range(len(k)):
        for i in range(inverse.shape[1]):
            along = ZERO
            for j in range(i * size, i * size + size):
                along += dkk[t, j] * kk[t, j]
            for j in range(i * size, i * size + size):
                dkk[t, j] = (dkk[t, j] - kk[t, j] * along) * inverse[t, i]
        for j in range(len(k_k)):
            small[0][j] += dkk[t, j] * k[t, j]
            small[1][j] += dwritten[t, j] * k[t, j] * (a[t, j] - ONE)
            dk[t, j] = dkk[t, j] * k_k[j] + dwritten[t, j] * (ONE + (a[t, j] - ONE) * k_a[j])
            da[t, j] += dwritten[t, j] * k[t, j] * k_a[j]


@entry((F2, F2, F2, F2, F2, F2), F3, F2)
def wkv_forward(given, memory, y):
    """y [T,D] of r, keep, k, v, kk, a [T,D] each; memory [H,N,N] moves on."""
    r, keep, k, v, kk, a = given
    n_heads, size = memory.shape[:2]
    for i in range(n_heads):
        part = slice(i * size, i * size + size)
        for t in range(len(y)):
            out = y[t, part]
            _step(memory[i], r[t, part], keep[t, part], k[t, part], v[t, part], kk[t, part], a[t, part], out)


@kernel
def _step(s, r, keep, k, v, kk, a, y):
    """One token of a head; s [N,N] changes in place, y [N] is overwritten."""
    _removed(s, kk, y)
    for i in range(len(r)):
        b = kk[i] * a[i]
        row = s[i]
        for j in range(len(y)):
            row[j] = keep[i] * row[j] - b * y[j] + k[i] * v[j]
    y[:] = 0
    for i in range(len(r)):
        row, x = s[i], r[i]
        for j in range(len(y)):
            y[j] += x * row[j]


@kernel
def _removed(s, kk, u):
    """u [N] = kk s."""
    u[:] = 0
    for i in range(len(kk)):
        row, x = s[i], kk[i]
        for j in range(len(u)):
            u[j] += x * row[j]


@entry(F2, (F2, F2, F2, F2, F2, F2), F3, (F3, F2, F1, F2), (F2, F2, F2, F2, F2, F2))
def wkv_backward(dy, given, before, workspace, grads):
    """Back through ``wkv_forward``.

    Parameters
    ----------
    dy
        [T,D]; read.
    given
        r, keep, k, v, kk, a [T,D].
    before
        The memory before the segment, [H,N,N]; read.
    workspace
        Memories of one head [T+1,N,N], what was removed [T,N], du [N], the gradient of a memory [N,N].
    grads
        Of what is given, all overwritten.
    """
    r, keep, k, v, kk, a = given
    dr, dkeep, dk, dv, dkk, da = grads
    history, removed, du, ds = workspace
    n_heads, size = before.shape[:2]
    for h in range(n_heads):
        part = slice(h * size, h * size + size)
        first, given_first = history[0], before[h]
        for i in range(size):
            row, own = first[i], given_first[i]
            for j in range(len(row)):
                row[j] = own[j]
        for t in range(len(dy)):
            _removed(history[t], kk[t, part], removed[t])
            _next(
                history[t], keep[t, part], k[t, part], v[t, part], kk[t, part], a[t, part], removed[t], history[t + 1]
            )
        ds[:] = 0
        for t in range(len(dy) - 1, -1, -1):
            _step_backward(
                dy[t, part], history[t], history[t + 1], removed[t],
                (r[t, part], keep[t, part], k[t, part], v[t, part], kk[t, part], a[t, part]), du, ds,
                (dr[t, part], dkeep[t, part], dk[t, part], dv[t, part], dkk[t, part], da[t, part]),
            )  # fmt: skip


@kernel
def _next(s, keep, k, v, kk, a, u, after):
    """The memory after a token."""
    for i in range(len(k)):
        b, kept, x = kk[i] * a[i], keep[i], k[i]
        row, new = s[i], after[i]
        for j in range(len(v)):
            new[j] = kept * row[j] - b * u[j] + x * v[j]


@kernel
def _step_backward(dy, before, after, u, given, du, ds, grads):
    """Back through one token of a head; ds [N,N], the gradient of the memory after, becomes that of the one before."""
    r, keep, k, v, kk, a = given
    dr, dkeep, dk, dv, dkk, da = grads
    du[:] = 0
    dv[:] = 0
    for i in range(len(r)):
        row, new, old, b, x, y = ds[i], after[i], before[i], kk[i] * a[i], k[i], r[i]
        for j in range(len(v)):
            row[j] += y * dy[j]
        of_r, of_k, of_keep, of_b = ZERO, ZERO, ZERO, ZERO
        for j in range(len(v)):
            of_r += new[j] * dy[j]
            of_k += row[j] * v[j]
            of_keep += row[j] * old[j]
            of_b -= row[j] * u[j]
        dr[i], dk[i], dkeep[i] = of_r, of_k, of_keep
        dkk[i], da[i] = of_b * a[i], of_b * kk[i]
        for j in range(len(v)):
            dv[j] += x * row[j]
        for j in range(len(v)):
            du[j] -= b * row[j]
    for i in range(len(r)):
        row, old, kept, x = ds[i], before[i], keep[i], kk[i]
        of_kk = ZERO
        for j in range(len(v)):
            of_kk += old[j] * du[j]
        dkk[i] += of_kk
        for j in range(len(v)):
            row[j] = kept * row[j] + x * du[j]


@entry(F2, (F2, F2, F2, F2), (F1, F1, F2), F, (F2, F2, F2), F2)
def read_forward(y, given, weights, eps, made, mix):
    """The norm of the heads, what a token reads of itself, and the gate.

    Parameters
    ----------
    y
        What was read of the memories, [T,D].
    given
        r, k, v, g [T,D].
    weights
        Gain and bias of the norm [D], r_k [H,N].
    eps
        Of the norm.
    made
        Overwritten: 1 / sqrt(variance + eps) [T,H], y without mean and scale [T,D], what the gate is put on [T,D].
    mix
        [T,D], overwritten.
    """
    (r, k, v, g), (gain, bias, r_k), (inverse, plain, open_) = given, weights, made
    n_heads, size = r_k.shape
    for t in range(len(y)):
        for i in range(n_heads):
            first = i * size
            total, own, squares = ZERO, ZERO, ZERO
            for j in range(size):
                total += y[t, first + j]
                own += r[t, first + j] * k[t, first + j] * r_k[i, j]
            mean = total / np.float32(size)
            for j in range(first, first + size):
                squares += (y[t, j] - mean) * (y[t, j] - mean)
            inverse[t, i] = ONE / np.sqrt(squares / np.float32(size) + eps)
            for j in range(first, first + size):
                z = (y[t, j] - mean) * inverse[t, i]
                plain[t, j] = z
                open_[t, j] = z * gain[j] + bias[j] + own * v[t, j]
        for j in range(len(gain)):
            mix[t, j] = open_[t, j] * g[t, j]


@entry(F2, (F2, F2, F2, F2), (F1, F2), (F2, F2, F2), (F2, F2, F2, F2, F2), (F1, F1, F2))
def read_backward(dmix, given, weights, made, grads, small):
    """Back through ``read_forward``: dy, dr, dk, dv, dg [T,D] are overwritten; gradients of gain, bias and r_k are
    added to. ``weights`` are gain and r_k."""
    (r, k, v, g), (gain, r_k), (inverse, plain, open_) = given, weights, made
    dy, dr, dk, dv, dg = grads
    dgain, dbias, dr_k = small
    n_heads, size = r_k.shape
    for t in range(len(dmix)):
        for j in range(len(gain)):
            d = dmix[t, j] * g[t, j]
            dg[t, j] = dmix[t, j] * open_[t, j]
            dy[t, j] = d
            dgain[j] += d * plain[t, j]
            dbias[j] += d
        for i in range(n_heads):
            first = i * size
            own, down, along, total = ZERO, ZERO, ZERO, ZERO
            for j in range(size):
                d = dy[t, first + j]
                own += r[t, first + j] * k[t, first + j] * r_k[i, j]
                down += d * v[t, first + j]
                along += d * gain[first + j] * plain[t, first + j]
                total += d * gain[first + j]
            along, total = along / np.float32(size), total / np.float32(size)
            for j in range(size):
                n = first + j
                dv[t, n] = own * dy[t, n]
                dr[t, n] = down * k[t, n] * r_k[i, j]
                dk[t, n] = down * r[t, n] * r_k[i, j]
                dr_k[i, j] += down * r[t, n] * k[t, n]
                dy[t, n] = (dy[t, n] * gain[n] - total - plain[t, n] * along) * inverse[t, i]
