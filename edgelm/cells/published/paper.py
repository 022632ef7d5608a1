"""THE PAPER of ``published``: the block as it was published. If a kernel disagrees, the kernel is wrong.

Glossary as of ``gated_delta``; here both sections are running means n / z with fixed decays, near ones (S features in C
channels) and far ones (H heads of Vd), and every channel of the projection sees its own part of h alone::

    v | u = h W_in                         block-diagonal, [C, D/C, 2 (S + H Vd) / C]
    y = (n / z) SiLU(u) W_out              n <- lam n + v, z <- lam z + 1

Source: MCSD (arXiv 2406.12230).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from edgelm.cells.cell import Array, Cell, Parts, Shapes
from edgelm.cells.functions import advance_counts, rms_norm, running_mean, silu
from edgelm.errors import ConfigError
from edgelm.matrices.spec import TensorSpec


@dataclass(frozen=True)
class Published(Cell):
    """Vector states, fixed decays, block-diagonal projections.

    Parameters
    ----------
    d_model, norm_eps
        As of ``Cell``.
    n_heads, value_dim : int
        H far horizons of Vd features each.
    slope_dim, n_channels : int
        S near features in C channels, one horizon each.
    """

    KIND: ClassVar[str] = "published"
    MATRICES: ClassVar[Mapping[str, int]] = {"w_in": 0, "w_out": 0}

    n_heads: int
    value_dim: int
    slope_dim: int
    n_channels: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.slope_dim % self.n_channels:
            raise ConfigError(f"slope_dim {self.slope_dim} must divide into {self.n_channels} channels")
        if self.d_model % self.n_channels or 2 * self.mix_dim % self.n_channels:
            raise ConfigError(f"d_model and 2 * mix_dim must divide into {self.n_channels} channels")

    @property
    def mix_dim(self) -> int:
        """S + H Vd, near and far features together."""
        return self.slope_dim + self.n_heads * self.value_dim

    def tensors(self) -> dict[str, TensorSpec]:
        """As of ``Cell``."""
        c = self.n_channels
        return {
            "norm": TensorSpec((self.d_model,), learns=True, mean=1.0, spread=0.2),
            # Its products sum over the axis between the two others, which no integer product reads.
            "w_in": TensorSpec((c, self.d_model // c, 2 * self.mix_dim // c), spread=(self.d_model / c) ** -0.5),
            "w_out": TensorSpec((self.mix_dim, self.d_model), self.MATRICES["w_out"]),
        }

    def state(self) -> Shapes:
        """Running sums n, near and far."""
        return {
            "slope": (1, self.n_channels, 1, self.slope_dim // self.n_channels),
            "far": (1, self.n_heads, 1, self.value_dim),
        }

    def shared_state(self) -> Shapes:
        """Running counts z of the channels and heads."""
        return {"slope": (1, self.n_channels, 1, 1), "far": (1, self.n_heads, 1, 1)}

    def advance(self, shared: Parts, n_steps: int) -> None:
        """As of ``Cell``."""
        for name, decays in self.channel_decays().items():
            advance_counts(shared[name], decays, n_steps)

    def channel_decays(self) -> dict[str, Array]:
        """lam, float64: half-lives from 1 to 64 tokens over the channels, from 16 to 8192 over the heads."""
        near, far = np.geomspace(1, 64, self.n_channels), np.geomspace(16, 8192, self.n_heads)
        return {name: np.exp(-np.log(2) / half_lives) for name, half_lives in (("slope", near), ("far", far))}

    def decays(self) -> Array:
        """lam of every feature [S + H Vd], float64."""
        parts = [np.repeat(decays, self.state()[name][3]) for name, decays in self.channel_decays().items()]
        return np.concatenate(parts)

    def narrowed(self, width: int) -> Published:
        """As of ``Cell``."""
        return replace(self, d_model=width, value_dim=width // math.gcd(width, self.n_heads), slope_dim=width)

    @property
    def grain(self) -> int:
        """As of ``Cell``."""
        return self.n_channels

    def forward(self, x: Array, weights: Parts, state: Parts, shared: Parts) -> Array:
        """As of ``Cell``."""
        h = rms_norm(x, weights["norm"], self.norm_eps)
        parts = h.reshape(len(h), self.n_channels, -1)
        v, u = np.split(np.einsum("tci,cij->tcj", parts, weights["w_in"]), 2, axis=-1)
        n = np.concatenate([state[name].reshape(-1) for name in self.state()])
        z = np.concatenate([np.repeat(shared[name].reshape(-1), shape[3]) for name, shape in self.state().items()])
        y, n = running_mean(v.reshape(len(h), -1), self.decays().astype(x.dtype), n, z)
        near, far = np.split(n, [self.slope_dim])
        state["slope"], state["far"] = near.reshape(state["slope"].shape), far.reshape(state["far"].shape)
        return (y * silu(u.reshape(len(h), -1))) @ weights["w_out"]
