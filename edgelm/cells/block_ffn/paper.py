"""THE PAPER of ``block_ffn``: a router wakes a few neuron blocks for a token.

Glossary (row vectors throughout)::

    x [T, D]  residual stream; h its RMSNorm       M, B  neuron blocks, neurons per block
    a [T, M]  activations of the router: a block is awake where a > 0; at most A of them survive

    a1 = ReLU(h W_r + b_r)         a = a1 / rms(a1) exp(log_gamma), the A largest
    y = SiLU(h Ws1) Ws2 + sum over awake blocks i of a_i SiLU(h W1_i') W2_i'

If a kernel disagrees, the kernel is wrong. Source: BlockFFN (arXiv 2507.08771).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from edgelm.cells.cell import Array, Cell, Parts
from edgelm.cells.functions import rms_norm, silu
from edgelm.errors import ConfigError
from edgelm.matrices.spec import TensorSpec

ROUTER_EPS = 1e-5
"""Epsilon of the norm over a token's activations."""


@dataclass(frozen=True)
class BlockFfn(Cell):
    """Router, neuron blocks, and a block that is always awake.

    Parameters
    ----------
    d_model, norm_eps
        As of ``Cell``.
    n_blocks, block_size, max_awake : int
        M neuron blocks of B neurons; at most A of them wake for a token.
    shared_size : int
        Neurons of the block that is always awake.
    """

    KIND: ClassVar[str] = "block_ffn"
    MATRICES: ClassVar[Mapping[str, int]] = {"w1": -1, "w2": -1, "shared_w1": 0, "shared_w2": 0}

    n_blocks: int
    block_size: int
    max_awake: int
    shared_size: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_awake > self.n_blocks:
            raise ConfigError(f"max_awake {self.max_awake} is above n_blocks {self.n_blocks}")

    def tensors(self) -> dict[str, TensorSpec]:
        """As of ``Cell``. Of the matrices learning changes what the neurons write, w2, not what they read, w1."""
        d, m, b, axes = self.d_model, self.n_blocks, self.block_size, self.MATRICES
        return {
            "norm": TensorSpec((d,), learns=True, mean=1.0, spread=0.2),
            "router": TensorSpec((d, m), spread=d**-0.5),
            "router_bias": TensorSpec((m,), learns=True, spread=0.3),
            "log_gamma": TensorSpec((m,), learns=True, spread=0.3),
            "w1": TensorSpec((m, b, d), axes["w1"], blocks=True, also=b, spread=d**-0.5),
            "w2": TensorSpec((m, d, b), axes["w2"], learns=True, blocks=True, also=d, spread=(4 * b) ** -0.5),
            "shared_w1": TensorSpec((d, self.shared_size), axes["shared_w1"]),
            "shared_w2": TensorSpec((self.shared_size, d), axes["shared_w2"]),
        }

    def share_awake(self, n_awake: float) -> float:
        """As of ``Cell``; the shared block counts as awake."""
        total = self.n_blocks * self.block_size + self.shared_size
        return (n_awake * self.block_size + self.shared_size) / total

    def narrowed(self, width: int) -> BlockFfn:
        """As of ``Cell``."""
        return replace(self, d_model=width, block_size=width, shared_size=width)

    @property
    def size(self) -> float:
        """How large a token's activations are, where log_gamma is 0: the root of the sum of their squares."""
        return math.sqrt(self.n_blocks)

    def with_blocks(self, weights: Parts, blocks: Array) -> tuple[BlockFfn, Parts]:
        """A smaller part, of some of the blocks alone.

        For a token that woke none of the others it computes what the whole part does, but for the epsilon of the
        router's norm: the other size of the activations is made up for in log_gamma.

        Parameters
        ----------
        weights : dict of ndarray
            The tensors of the layer part. Read.
        blocks : ndarray [K] of int
            The blocks to keep, from 1 to M of them, none twice.

        Returns
        -------
        cell : BlockFfn
        weights : dict of ndarray
            Of the smaller part; what has nothing to do with blocks is the same array.
        """
        cell = replace(self, n_blocks=len(blocks), max_awake=min(self.max_awake, len(blocks)))
        kept = dict(weights)
        for name in ("router", "router_bias", "log_gamma", "w1", "w2"):
            kept[name] = np.take(weights[name], blocks, axis=-1 if name == "router" else 0)
        kept["log_gamma"] = kept["log_gamma"] + weights["log_gamma"].dtype.type(math.log(self.size / cell.size))
        return cell, kept

    def all_activations(self, x: Array, weights: Parts) -> Array:
        """Activations [T,M] before the weakest are put to sleep: ReLU, RMSNorm over all blocks."""
        h = rms_norm(x, weights["norm"], self.norm_eps)
        a1 = np.maximum(h @ weights["router"] + weights["router_bias"], 0)
        return rms_norm(a1, np.exp(weights["log_gamma"]), ROUTER_EPS)

    def activations(self, x: Array, weights: Parts, state: Parts) -> Array:
        """a [T,M]: of ``all_activations`` at most A survive, of equals the first."""
        a = self.all_activations(x, weights)
        if self.max_awake < self.n_blocks:
            asleep = np.argsort(-a, axis=-1, kind="stable")[:, self.max_awake :]
            np.put_along_axis(a, asleep, 0, axis=-1)
        return a

    def forward(self, x: Array, weights: Parts, state: Parts, shared: Parts) -> Array:
        """As of ``Cell``."""
        h, a = rms_norm(x, weights["norm"], self.norm_eps), self.activations(x, weights, state)
        y = silu(h @ weights["shared_w1"]) @ weights["shared_w2"]
        for block in range(self.n_blocks):
            (awake,) = np.nonzero(a[:, block])
            hidden = silu(h[awake] @ weights["w1"][block].T)
            y[awake] += a[awake, block, None] * (hidden @ weights["w2"][block].T)
        return y
