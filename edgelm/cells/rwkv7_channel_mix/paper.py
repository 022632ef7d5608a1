"""THE PAPER of ``rwkv7_channel_mix``: squared ReLU. If a kernel disagrees, the kernel is wrong.

Glossary (row vectors throughout; primes transpose)::

    x [T, D]  residual stream; h its LayerNorm       F  neurons
    a [T, F]  activations: a neuron is awake where a > 0

    h_k = h + (h_before - h) x_k          h_before is h of the token before
    a = ReLU(h_k K')^2,  y = a V

Squared ReLU leaves most neurons asleep in a trained model. What a neuron writes, its row of V [F, D], is neither read
nor changed for a token for which it sleeps: each neuron is a block of one.

Source: RWKV-7 (arXiv 2503.14456). Tensors bear the names of its authors' files, without ``ffn.`` and ``.weight``, but
for ``norm`` (``ln2``); V is the transpose of the file's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from edgelm.cells.cell import Array, Cell, Parts, Shapes
from edgelm.cells.functions import layer_norm, shifted
from edgelm.matrices.spec import TensorSpec


@dataclass(frozen=True)
class Rwkv7ChannelMix(Cell):
    """Neurons with squared ReLU.

    Parameters
    ----------
    d_model, norm_eps
        As of ``Cell``.
    hidden_size : int
        F neurons.
    """

    KIND: ClassVar[str] = "rwkv7_channel_mix"
    MATRICES: ClassVar[Mapping[str, int]] = {"key": -1, "value": -1}
    STEPS: ClassVar[int | None] = 1

    hidden_size: int

    @property
    def n_blocks(self) -> int:
        """F: each neuron is a block."""
        return self.hidden_size

    @property
    def max_awake(self) -> int:
        """F: nothing limits how many are awake."""
        return self.hidden_size

    def tensors(self) -> dict[str, TensorSpec]:
        """As of ``Cell``. Of the matrices learning changes what the neurons write, ``value``."""
        d, f = self.d_model, self.hidden_size
        return {
            "norm": TensorSpec((d,), learns=True, mean=1.0, spread=0.2),
            "norm_bias": TensorSpec((d,), learns=True, spread=0.2),
            "x_k": TensorSpec((d,), learns=True, mean=0.5, spread=0.3),
            "key": TensorSpec((f, d), -1, spread=d**-0.5),
            "value": TensorSpec((f, d), -1, learns=True, blocks=True, spread=f**-0.5),
        }

    def state(self) -> Shapes:
        """h of the token before."""
        return {"channel_shift": (1, self.d_model)}

    def share_awake(self, n_awake: float) -> float:
        """As of ``Cell``: all neurons read, those awake write."""
        return (1 + n_awake / self.hidden_size) / 2

    def narrowed(self, width: int) -> Rwkv7ChannelMix:
        """As of ``Cell``."""
        return replace(self, d_model=width)

    def with_blocks(self, weights: Parts, blocks: Array) -> tuple[Rwkv7ChannelMix, Parts]:
        """A smaller part, of some of the neurons alone; for a token that wakes none of the others it is the whole.

        ``blocks`` [K] of int are the neurons to keep, none twice. Returns the cell and its weights.
        """
        kept = weights | {name: np.take(weights[name], blocks, axis=0) for name in ("key", "value")}
        return replace(self, hidden_size=len(blocks)), kept

    def _neurons(self, x: Array, weights: Parts, before: Array) -> tuple[Array, Array]:
        """a [T,F], and h of the last token [1,D]."""
        h = layer_norm(x, weights["norm"], weights["norm_bias"], self.norm_eps)
        h_k = h + (shifted(h, before) - h) * weights["x_k"]
        return np.maximum(h_k @ weights["key"].T, 0) ** 2, h[-1:]

    def activations(self, x: Array, weights: Parts, state: Parts) -> Array:
        """a [T,F]; as of ``Cell``."""
        return self._neurons(x, weights, state["channel_shift"])[0]

    def forward(self, x: Array, weights: Parts, state: Parts, shared: Parts) -> Array:
        """As of ``Cell``."""
        a, state["channel_shift"] = self._neurons(x, weights, state["channel_shift"])
        return a @ weights["value"]
