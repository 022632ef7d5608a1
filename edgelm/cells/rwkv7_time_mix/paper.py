"""THE PAPER of ``rwkv7_time_mix``: RWKV-7's memory. If a kernel disagrees, the kernel is wrong.

Glossary (row vectors throughout; primes transpose)::

    T      tokens of a segment                x     residual stream [T, D]; h its LayerNorm
    H, N   heads, features of a head          S     matrix memory [H, N keys, N values] of a head
    w      share of S that is kept, by key    kk    key whose value is removed, of length 1 in each head
    a      rate at which it is removed        g     gate of what is read

    h_x = h + (h_before - h) x_x              for x = r, w, k, v, a, g; h_before is h of the token before
    r, k, v = h_r R', h_k K', h_v V'
    w = exp(-e^(-1/2) sigmoid(w0 + tanh(h_w W1') W2'))
    a = sigmoid(a0 + h_a A1' A2'),  g = sigmoid(h_g G1') G2'
    v <- v + (v_first - v) sigmoid(v0 + h_v V1' V2')        v_first: v of the first layer, as it is before this line
    kk = k k_k / max(|k k_k|, 1e-12),  k <- k (1 + (a - 1) k_a)
    S <- diag(w) S - (kk a)' (kk S) + k' v,  y = r S
    y <- (y - mean y) / sqrt(var y + 64e-5) gain + bias + (sum_j r_j k_j r_k,j) v        all within a head
    out = (y g) O'

Source: RWKV-7 (arXiv 2503.14456) and its authors' ``RWKV-v7/rwkv_v7_numpy.py``; tensors bear the names of their files,
without ``att.`` and ``.weight``, but for ``head_norm`` (``ln_x``) and ``norm`` (``ln1``). Ranks are those of the pairs
of small matrices.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from edgelm.cells.cell import Array, Cell, Parts, Shapes
from edgelm.cells.functions import layer_norm, shifted, sigmoid
from edgelm.errors import ConfigError
from edgelm.matrices.spec import TensorSpec

HEAD_EPS = 64e-5
"""Epsilon of the norm over what a head reads."""
DECAY_SCALE = math.exp(-0.5)
"""The most that a logarithm of a share kept is below 0."""
LEAST_LENGTH = 1e-12
"""Of a key before it is made one of length 1."""
MIXES = ("x_r", "x_w", "x_k", "x_v", "x_a", "x_g")
"""How much of the token before goes into what each product reads."""


@dataclass(frozen=True)
class Rwkv7TimeMix(Cell):
    """Memories that decay by channel.

    Parameters
    ----------
    d_model, norm_eps
        As of ``Cell``; the width is H N.
    n_heads, head_dim : int
        H heads, each with a memory of N x N.
    decay_rank, rate_rank, mix_rank, gate_rank : int
        Of the small matrices that make w, a, the share of v_first, and g.
    """

    KIND: ClassVar[str] = "rwkv7_time_mix"
    MATRICES: ClassVar[Mapping[str, int]] = dict.fromkeys(
        ("receptance", "key", "value", "output", "w1", "w2", "a1", "a2", "v1", "v2", "g1", "g2"), -1
    )
    STEPS: ClassVar[int | None] = 1

    n_heads: int
    head_dim: int
    decay_rank: int
    rate_rank: int
    mix_rank: int
    gate_rank: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_heads * self.head_dim != self.d_model:
            raise ConfigError(f"d_model {self.d_model} is not {self.n_heads} heads of {self.head_dim}")

    def tensors(self) -> dict[str, TensorSpec]:
        """As of ``Cell``."""
        d, table = self.d_model, {}
        table["norm"] = TensorSpec((d,), learns=True, mean=1.0, spread=0.2)
        table["norm_bias"] = TensorSpec((d,), learns=True, spread=0.2)
        table |= {name: TensorSpec((d,), learns=True, mean=0.5, spread=0.3) for name in MIXES}
        ranks = {"w": self.decay_rank, "a": self.rate_rank, "v": self.mix_rank, "g": self.gate_rank}
        for name, rank in ranks.items():
            if name != "g":
                table[name + "0"] = TensorSpec((d,), spread=0.5)
            table[name + "1"] = TensorSpec((rank, d), -1, spread=d**-0.5)
            table[name + "2"] = TensorSpec((d, rank), -1, spread=rank**-0.5)
        table["k_k"] = TensorSpec((d,), mean=0.8, spread=0.2)
        table["k_a"] = TensorSpec((d,), mean=1.0, spread=0.2)
        table["r_k"] = TensorSpec((self.n_heads, self.head_dim), spread=0.3)
        table |= {name: TensorSpec((d, d), -1, spread=d**-0.5) for name in ("receptance", "key", "value", "output")}
        table["head_norm"] = TensorSpec((d,), learns=True, mean=1.0, spread=0.2)
        table["head_norm_bias"] = TensorSpec((d,), learns=True, spread=0.2)
        return table

    def state(self) -> Shapes:
        """h of the token before, and the memories."""
        return {"time_shift": (1, self.d_model), "memory": (1, self.n_heads, self.head_dim, self.head_dim)}

    def narrowed(self, width: int) -> Rwkv7TimeMix:
        """As of ``Cell``."""
        return replace(self, d_model=width, head_dim=width // self.n_heads)

    @property
    def grain(self) -> int:
        """As of ``Cell``."""
        return self.n_heads

    def forward(self, x: Array, weights: Parts, state: Parts, shared: Parts) -> Array:
        """As of ``Cell``. The first layer leaves v_first in ``shared``, for those after it and this segment."""
        w, heads = weights, (len(x), self.n_heads, self.head_dim)
        h = layer_norm(x, w["norm"], w["norm_bias"], self.norm_eps)
        change = shifted(h, state["time_shift"]) - h
        state["time_shift"] = h[-1:]
        h_r, h_w, h_k, h_v, h_a, h_g = (h + change * w[name] for name in MIXES)

        r, k, v = h_r @ w["receptance"].T, h_k @ w["key"].T, h_v @ w["value"].T
        keep = np.exp(-x.dtype.type(DECAY_SCALE) * sigmoid(w["w0"] + np.tanh(h_w @ w["w1"].T) @ w["w2"].T))
        a = sigmoid(w["a0"] + h_a @ w["a1"].T @ w["a2"].T)
        g = sigmoid(h_g @ w["g1"].T) @ w["g2"].T
        v = v + (shared.setdefault("v_first", v) - v) * sigmoid(w["v0"] + h_v @ w["v1"].T @ w["v2"].T)

        kk = (k * w["k_k"]).reshape(heads)
        kk = kk / np.maximum(np.sqrt(np.sum(kk * kk, -1, keepdims=True)), x.dtype.type(LEAST_LENGTH))
        k = k * (1 + (a - 1) * w["k_a"])
        r, k, v, keep, a = (part.reshape(heads) for part in (r, k, v, keep, a))
        y, memory = remember(r, keep, k, v, kk, a, state["memory"][0])
        state["memory"] = memory[None]

        gain, bias = (w[name].reshape(heads[1:]) for name in ("head_norm", "head_norm_bias"))
        y = layer_norm(y, gain, bias, HEAD_EPS) + np.sum(r * k * w["r_k"], -1, keepdims=True) * v
        return (y.reshape(len(x), -1) * g) @ w["output"].T


def remember(r: Array, keep: Array, k: Array, v: Array, kk: Array, a: Array, memory: Array) -> tuple[Array, Array]:
    """The recurrence: six arrays [T,H,N] and the memory [H,N,N] before to y [T,H,N] and the memory after."""
    out = np.empty_like(v)
    for t in range(len(r)):
        removed = np.einsum("hk,hkv->hv", kk[t], memory)
        memory = keep[t, :, :, None] * memory - (kk[t] * a[t])[:, :, None] * removed[:, None, :]
        memory = memory + k[t, :, :, None] * v[t, :, None, :]
        out[t] = np.einsum("hk,hkv->hv", r[t], memory)
    return out, memory
