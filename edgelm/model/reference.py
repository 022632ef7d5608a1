"""THE PAPER: the model in plain numpy. If a kernel disagrees, the kernel is wrong.

Glossary (row vectors throughout)::

    T       tokens of a segment            x    residual stream [T, D]
    V, D    vocabulary, width              h    its RMSNorm
    L, A    layers, blocks awake at most   M, B neuron blocks, neurons per block
    H       heads of the decay section     K, Vd  keys and values of a head; its state is K x Vd
    S, C    features and channels of the slope section, one horizon each
    lam     share that is kept per token   n, z  running sum and running count (slope)
    g       log of the share kept          beta  strength of a write, 0 to 1 (decay)
    S_      matrix memory [H, K, Vd]       e    what the memory did not know about v
    a       activations of the router [T, M]: a block is awake where a > 0

Sources: MCSD (arXiv 2406.12230) for the two sections; Gated DeltaNet (arXiv 2412.06464) for the update
of the decay section; BlockFFN (arXiv 2507.08771) for the feed-forward. Does NOT include: training
(``tools/pretrain``), gradients (``edgelm.learn``), batches, dropout, position encoding (there is none).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgelm.config import CONV_WIDTH, ModelConfig
from edgelm.model.weights import Weights

Array = np.ndarray


@dataclass
class State:
    """All that the model remembers; its size does not depend on how much was read.

    Attributes
    ----------
    conv : list of ndarray [3, conv_dim]
        The last three inputs of the convolution, a layer each (``mcsd``: no features).
    slope : list of ndarray [S] (``mcsd``: [S + H Vd])
        Running sums n.
    norm : ndarray [S] (``mcsd``: [S + H Vd])
        Running counts z; they depend on the position alone, so all layers share them.
    decay : list of ndarray [H, K, Vd]
        Matrix memories (``mcsd``: empty).
    """

    conv: list[Array]
    slope: list[Array]
    norm: Array
    decay: list[Array]

    @classmethod
    def empty(cls, config: ModelConfig, dtype: type = np.float32) -> State:
        """The state before the first token."""
        c = config
        matrix = (c.n_heads, c.key_dim, c.value_dim) if c.mixer == "mcsd_g" else (0, 0, 0)
        n_sums = len(slope_decays(c))
        conv_dim = c.conv_dim if c.mixer == "mcsd_g" else 0
        return cls(
            conv=[np.zeros((CONV_WIDTH - 1, conv_dim), dtype) for _ in range(c.n_layers)],
            slope=[np.zeros(n_sums, dtype) for _ in range(c.n_layers)],
            norm=np.zeros(n_sums, dtype),
            decay=[np.zeros(matrix, dtype) for _ in range(c.n_layers)],
        )

    def copy(self) -> State:
        """An independent copy."""
        copies = [[array.copy() for array in part] for part in (self.conv, self.slope, self.decay)]
        return State(copies[0], copies[1], self.norm.copy(), copies[2])

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays together."""
        return sum(array.nbytes for array in [*self.conv, *self.slope, *self.decay, self.norm])


def silu(x: Array) -> Array:
    """x sigmoid(x)."""
    return x / (1 + np.exp(-x))


def softplus(x: Array) -> Array:
    """log(1 + e^x), without overflow."""
    return np.logaddexp(0, x)


def rms_norm(x: Array, gain: Array, eps: float) -> Array:
    """x / sqrt(mean(x^2) + eps) * gain, over the last axis."""
    return x / np.sqrt(np.mean(x * x, -1, keepdims=True) + x.dtype.type(eps)) * gain


def l2_norm(x: Array) -> Array:
    """x / sqrt(|x|^2 + 1e-6), over the last axis."""
    return x / np.sqrt(np.sum(x * x, -1, keepdims=True) + x.dtype.type(1e-6))


def slope_decays(config: ModelConfig) -> Array:
    """lam of every vector-state feature, float64.

    ``mcsd_g`` [S]: half-lives from 1 to 64 tokens, geometric over the channels. ``mcsd`` [S + H Vd]:
    the same, then half-lives from 16 to 8192, geometric over the heads.
    """
    c = config
    half_lives = np.repeat(np.geomspace(1, 64, c.n_channels), c.slope_dim // c.n_channels)
    if c.mixer == "mcsd":
        half_lives = np.concatenate([half_lives, np.repeat(np.geomspace(16, 8192, c.n_heads), c.value_dim)])
    return np.exp(-np.log(2) / half_lives)


def decay_rates(base: Array, step: Array) -> Array:
    """A [H]: exp(base + cumsum(softplus(step))); rates grow from head to head, half-lives 1/A shrink."""
    return np.exp(base + np.cumsum(softplus(step)))


def conv4(u: Array, kernel: Array, last: Array) -> tuple[Array, Array]:
    """Depthwise causal convolution over 4 tokens: u [T, F], kernel [F, 4], last [3, F]."""
    padded = np.concatenate([last, u])
    steps = len(u)
    out = sum(padded[tap : tap + steps] * kernel[:, tap] for tap in range(CONV_WIDTH))
    return out, padded[steps:]


def slope_section(v: Array, decay: Array, n: Array, z: Array) -> tuple[Array, Array, Array]:
    """Normalised exponential average: v [T, S] to n_t / z_t [T, S]."""
    out = np.empty_like(v)
    for t, v_t in enumerate(v):
        n = decay * n + v_t
        z = decay * z + 1
        out[t] = n / z
    return out, n, z


def decay_section(q: Array, k: Array, v: Array, g: Array, beta: Array, memory: Array) -> tuple[Array, Array]:
    """Gated delta rule: q, k [T, H, K], v [T, H, Vd], g, beta [T, H] to o [T, H, Vd]."""
    out = np.empty_like(v)
    memory = memory.copy()
    for t in range(len(q)):
        for h in range(q.shape[1]):
            kept = np.exp(g[t, h]) * memory[h]
            e = v[t, h] - kept.T @ k[t, h]
            memory[h] = kept + beta[t, h] * np.outer(k[t, h], e)
            out[t, h] = memory[h].T @ q[t, h]
    return out, memory


def mixer(x: Array, w: Weights, name: str, state: State, layer: int, config: ModelConfig) -> Array:
    """Both sections of one layer: x [T, D] to its contribution [T, D]; ``state`` is updated in place."""
    c = config
    h = rms_norm(x, w[name + "norm"], c.norm_eps)
    lam = slope_decays(c).astype(x.dtype)
    if c.mixer == "mcsd":  # the published block: every channel sees its own part of h alone
        parts = h.reshape(len(h), c.n_channels, -1)
        v, u = np.split(np.einsum("tci,cij->tcj", parts, w[name + "w_in"]), 2, axis=-1)
        y, state.slope[layer], z = slope_section(v.reshape(len(h), -1), lam, state.slope[layer], state.norm)
        y = y * silu(u.reshape(len(h), -1))
    else:
        keys = c.n_heads * c.key_dim
        sizes = [c.conv_dim, c.slope_dim, c.decay_dim, c.n_heads, c.n_heads]
        u, us, ud, g, b = np.split(h @ w[name + "w_in"], np.cumsum(sizes)[:-1], axis=-1)
        u, state.conv[layer] = conv4(u, w[name + "conv"], state.conv[layer])
        vs, q, k, vd = np.split(u, np.cumsum([c.slope_dim, keys, keys]), axis=-1)

        ys, state.slope[layer], z = slope_section(vs, lam, state.slope[layer], state.norm)
        ys = ys * silu(us)

        q = l2_norm(silu(q).reshape(len(h), c.n_heads, c.key_dim))
        k = l2_norm(silu(k).reshape(len(h), c.n_heads, c.key_dim))
        vd = silu(vd).reshape(len(h), c.n_heads, c.value_dim)
        g = -decay_rates(w[name + "decay_base"], w[name + "decay_step"]) * softplus(g + w[name + "decay_bias"])
        beta = 1 / (1 + np.exp(-(b + w[name + "write_bias"])))
        o, state.decay[layer] = decay_section(q, k, vd, g, beta, state.decay[layer])
        yd = rms_norm(o, w[name + "head_norm"], c.norm_eps).reshape(len(h), -1) * silu(ud)
        y = np.concatenate([ys, yd], -1)
    if layer == c.n_layers - 1:
        state.norm = z  # every layer counts the same tokens
    return y @ w[name + "w_out"]


def activations(h: Array, w: Weights, name: str, config: ModelConfig) -> Array:
    """Router: h [T, M] to a [T, M]; ReLU, RMSNorm over all blocks, then at most A survive."""
    a1 = np.maximum(h @ w[name + "router"] + w[name + "router_bias"], 0)
    a = rms_norm(a1, np.exp(w[name + "log_gamma"]), 1e-5)
    if config.max_awake < config.n_blocks:
        asleep = np.argsort(-a, axis=-1, kind="stable")[:, config.max_awake :]
        np.put_along_axis(a, asleep, 0, axis=-1)
    return a


def block_ffn(x: Array, w: Weights, name: str, config: ModelConfig) -> tuple[Array, Array]:
    """Block-selected feed-forward: x [T, D] to its contribution [T, D] and the activations a [T, M]."""
    h = rms_norm(x, w[name + "norm"], config.norm_eps)
    a = activations(h, w, name, config)
    y = silu(h @ w[name + "shared_w1"]) @ w[name + "shared_w2"]
    for block in range(config.n_blocks):
        (awake,) = np.nonzero(a[:, block])
        hidden = silu(h[awake] @ w[name + "w1"][block].T)
        y[awake] += a[awake, block, None] * (hidden @ w[name + "w2"][block].T)
    return y, a


def forward(ids: Array, weights: Weights, state: State, config: ModelConfig) -> tuple[Array, State, Array]:
    """A segment of text.

    Parameters
    ----------
    ids : ndarray [T] of int
        Token ids, T >= 1.
    weights : dict of ndarray
        The tensors of ``edgelm.model.weights.shapes``; their dtype is that of the arithmetic.
    state : State
        What was remembered before; it is left as it is.
    config : ModelConfig

    Returns
    -------
    logits : ndarray [T, V]
        Unnormalised log-probabilities of the token after each.
    state : State
        What is remembered after.
    a : ndarray [L, T, M]
        Activations of the blocks; a block is awake where its activation is above 0.
    """
    state = state.copy()
    x = weights["embed"][ids]
    all_a = []
    for i in range(config.n_layers):
        x = x + mixer(x, weights, f"layers.{i}.mixer.", state, i, config)
        y, a = block_ffn(x, weights, f"layers.{i}.ffn.", config)
        x = x + y
        all_a.append(a)
    return rms_norm(x, weights["final_norm"], config.norm_eps) @ weights["embed"].T, state, np.stack(all_a)


def step(token_id: int, weights: Weights, state: State, config: ModelConfig) -> tuple[Array, State]:
    """One token: logits [V] and the state after. ``forward`` is this, token by token."""
    logits, state, _ = forward(np.array([token_id]), weights, state, config)
    return logits[0], state
