"""Functions of numpy that the papers of several cells use."""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def silu(x: Array) -> Array:
    """x sigmoid(x)."""
    return x / (1 + np.exp(-x))


def softplus(x: Array) -> Array:
    """log(1 + e^x), without overflow."""
    return np.logaddexp(0, x)


def rms_norm(x: Array, gain: Array, eps: float) -> Array:
    """x / sqrt(mean(x^2) + eps) * gain, over the last axis."""
    return x / np.sqrt(np.mean(x * x, -1, keepdims=True) + x.dtype.type(eps)) * gain


def sigmoid(x: Array) -> Array:
    """1 / (1 + e^-x)."""
    return 1 / (1 + np.exp(-x))


def layer_norm(x: Array, gain: Array, bias: Array, eps: float) -> Array:
    """(x - mean) / sqrt(variance + eps) * gain + bias, over the last axis."""
    x = x - np.mean(x, -1, keepdims=True)
    return x / np.sqrt(np.mean(x * x, -1, keepdims=True) + x.dtype.type(eps)) * gain + bias


def shifted(h: Array, before: Array) -> Array:
    """What stood one token before each of h [T,D]; ``before`` [1,D] stood before the first."""
    return np.concatenate([before, h[:-1]])


def l2_norm(x: Array) -> Array:
    """x / sqrt(|x|^2 + 1e-6), over the last axis."""
    return x / np.sqrt(np.sum(x * x, -1, keepdims=True) + x.dtype.type(1e-6))


def advance_counts(count: Array, decay: Array, n_steps: int) -> None:
    """z_t = decay z_{t-1} + 1 for so many tokens, in place; count of any shape, decay of as many numbers."""
    decay = decay.astype(count.dtype).reshape(count.shape)
    for _ in range(n_steps):
        count[:] = decay * count + 1


def running_mean(v: Array, decay: Array, total: Array, count: Array) -> tuple[Array, Array]:
    """Exponential average n_t / z_t of v [T,F]: n_t = decay n_{t-1} + v_t, z_t = decay z_{t-1} + 1.

    Parameters
    ----------
    v : ndarray [T,F]
    decay, total, count : ndarray [F]
        Share that is kept for each token, n and z before the first one.

    Returns
    -------
    out : ndarray [T,F]
    total : ndarray [F]
        n after the last token.
    """
    out = np.empty_like(v)
    for t, v_t in enumerate(v):
        total = decay * total + v_t
        count = decay * count + 1
        out[t] = total / count
    return out, total
