"""THE PAPER of ``gated_delta``: two memories side by side. If a kernel disagrees, the kernel is wrong.

Glossary (row vectors throughout)::

    T       tokens of a segment            x    residual stream [T, D]; h its RMSNorm
    H       heads of the decay section     K, Vd  keys and values of a head; its state is K x Vd
    S, C    features and channels of the slope section, one horizon each
    lam     share that is kept per token   n, z  running sum and running count (slope)
    g       log of the share kept          beta  strength of a write, 0 to 1 (decay)
    S_      matrix memory [H, K, Vd]       e    what the memory did not know about v

    u, us, ud, g', b' = h W_in             u passes a causal convolution of 4 tokens, and is vs | q | k | vd
    ys = (n / z) SiLU(us)                  n <- lam n + vs, z <- lam z + 1
    S_ <- exp(g) S_ + beta k e',  e = v - (exp(g) S_)' k,  o = S_' q       q, k: unit vectors
    y = [ys | RMSNorm(o) SiLU(ud)] W_out

Sources: MCSD (arXiv 2406.12230) for the two sections; Gated DeltaNet (arXiv 2412.06464) for the update of the decay
section. There is no position encoding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from edgelm.cells.cell import Array, Cell, Parts, Shapes
from edgelm.cells.functions import advance_counts, l2_norm, rms_norm, running_mean, silu, softplus
from edgelm.errors import ConfigError
from edgelm.matrices.spec import TensorSpec

CONV_WIDTH = 4
"""Tokens seen by the depthwise causal convolution, the present one included."""


@dataclass(frozen=True)
class GatedDelta(Cell):
    """Slope and decay section.

    Parameters
    ----------
    d_model, norm_eps
        As of ``Cell``.
    n_heads, key_dim, value_dim : int
        H heads of the decay section, each with a state of K x Vd.
    slope_dim, n_channels : int
        S features of the slope section in C channels, one horizon each.
    """

    KIND: ClassVar[str] = "gated_delta"
    MATRICES: ClassVar[Mapping[str, int]] = {"w_in": 0, "w_out": 0}

    n_heads: int
    key_dim: int
    value_dim: int
    slope_dim: int
    n_channels: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.slope_dim % self.n_channels:
            raise ConfigError(f"slope_dim {self.slope_dim} must divide into {self.n_channels} channels")

    @property
    def decay_dim(self) -> int:
        """H Vd, features of the decay section."""
        return self.n_heads * self.value_dim

    @property
    def mix_dim(self) -> int:
        """S + H Vd, features of both sections together."""
        return self.slope_dim + self.decay_dim

    @property
    def conv_dim(self) -> int:
        """Features that pass the convolution: [vs | q | k | vd]."""
        return self.slope_dim + 2 * self.n_heads * self.key_dim + self.decay_dim

    def tensors(self) -> dict[str, TensorSpec]:
        """As of ``Cell``."""
        return {
            "norm": TensorSpec((self.d_model,), learns=True, mean=1.0, spread=0.2),
            "w_in": TensorSpec((self.d_model, self.conv_dim + self.mix_dim + 2 * self.n_heads), self.MATRICES["w_in"]),
            "conv": TensorSpec((self.conv_dim, CONV_WIDTH), spread=self.conv_dim**-0.5),
            "decay_bias": TensorSpec((self.n_heads,), learns=True, spread=0.3),
            "write_bias": TensorSpec((self.n_heads,), learns=True, spread=0.3),
            "decay_base": TensorSpec((1,), mean=-4, spread=0.2),
            "decay_step": TensorSpec((self.n_heads,), spread=0.3),
            "head_norm": TensorSpec((self.value_dim,), learns=True, mean=1.0, spread=0.2),
            "w_out": TensorSpec((self.mix_dim, self.d_model), self.MATRICES["w_out"]),
        }

    def state(self) -> Shapes:
        """Running sums n, the last three inputs of the convolution, matrix memories."""
        return {
            "slope": (1, self.n_channels, 1, self.slope_dim // self.n_channels),
            "conv": (1, CONV_WIDTH - 1, self.conv_dim),
            "decay": (1, self.n_heads, self.key_dim, self.value_dim),
        }

    def shared_state(self) -> Shapes:
        """Running counts z of the channels."""
        return {"slope": (1, self.n_channels, 1, 1)}

    def advance(self, shared: Parts, n_steps: int) -> None:
        """As of ``Cell``."""
        advance_counts(shared["slope"], self.channel_decays(), n_steps)

    def channel_decays(self) -> Array:
        """lam of every channel [C], float64: half-lives from 1 to 64 tokens, geometric."""
        return np.exp(-np.log(2) / np.geomspace(1, 64, self.n_channels))

    def narrowed(self, width: int) -> GatedDelta:
        """As of ``Cell``."""
        value_dim = width // math.gcd(width, self.n_heads)
        return replace(self, d_model=width, key_dim=4, value_dim=value_dim, slope_dim=width)

    @property
    def grain(self) -> int:
        """As of ``Cell``."""
        return self.n_channels

    def forward(self, x: Array, weights: Parts, state: Parts, shared: Parts) -> Array:
        """As of ``Cell``."""
        w, keys = weights, self.n_heads * self.key_dim
        h = rms_norm(x, w["norm"], self.norm_eps)
        sizes = [self.conv_dim, self.slope_dim, self.decay_dim, self.n_heads, self.n_heads]
        u, us, ud, g, b = np.split(h @ w["w_in"], np.cumsum(sizes)[:-1], axis=-1)
        u, state["conv"] = convolve(u, w["conv"], state["conv"])
        vs, q, k, vd = np.split(u, np.cumsum([self.slope_dim, keys, keys]), axis=-1)

        width = self.slope_dim // self.n_channels
        lam = np.repeat(self.channel_decays(), width).astype(x.dtype)
        z = np.repeat(shared["slope"].reshape(-1), width)
        ys, n = running_mean(vs, lam, state["slope"].reshape(-1), z)
        state["slope"] = n.reshape(state["slope"].shape)
        ys = ys * silu(us)

        q = l2_norm(silu(q).reshape(len(h), self.n_heads, self.key_dim))
        k = l2_norm(silu(k).reshape(len(h), self.n_heads, self.key_dim))
        vd = silu(vd).reshape(len(h), self.n_heads, self.value_dim)
        g = -decay_rates(w["decay_base"], w["decay_step"]) * softplus(g + w["decay_bias"])
        beta = 1 / (1 + np.exp(-(b + w["write_bias"])))
        o, memory = delta_rule(q, k, vd, g, beta, state["decay"][0])
        state["decay"] = memory[None]
        yd = rms_norm(o, w["head_norm"], self.norm_eps).reshape(len(h), -1) * silu(ud)
        return np.concatenate([ys, yd], -1) @ w["w_out"]


def decay_rates(base: Array, step: Array) -> Array:
    """A [H]: exp(base + cumsum(softplus(step))); rates grow from head to head, half-lives 1/A shrink."""
    return np.exp(base + np.cumsum(softplus(step)))


def convolve(u: Array, kernel: Array, last: Array) -> tuple[Array, Array]:
    """Depthwise causal convolution over 4 tokens: u [T,F], kernel [F,4], last [1,3,F]."""
    padded = np.concatenate([last[0], u])
    out = sum(padded[tap : tap + len(u)] * kernel[:, tap] for tap in range(CONV_WIDTH))
    return out, padded[None, len(u) :]


def delta_rule(q: Array, k: Array, v: Array, g: Array, beta: Array, memory: Array) -> tuple[Array, Array]:
    """Gated delta rule: q, k [T,H,K], v [T,H,Vd], g, beta [T,H], memory [H,K,Vd] to o [T,H,Vd]."""
    out = np.empty_like(v)
    memory = memory.copy()
    for t in range(len(q)):
        for h in range(q.shape[1]):
            kept = np.exp(g[t, h]) * memory[h]
            e = v[t, h] - kept.T @ k[t, h]
            memory[h] = kept + beta[t, h] * np.outer(k[t, h], e)
            out[t, h] = memory[h].T @ q[t, h]
    return out, memory
