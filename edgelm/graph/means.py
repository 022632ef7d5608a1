"""Running means with fixed decays, which several kinds of layer part have, as ONNX."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgelm.graph.weighted import F32, WeightedGraph


@dataclass(frozen=True)
class Means:
    """The means n / z of one group of channels: n_t / z_t is read out of the same operator that sums, whose query is
    1 / z_t and whose key is 1. Query, key and decays are the same for every layer."""

    query: str
    key: str
    log_decay: str
    n_channels: int

    @classmethod
    def begin(cls, graph: WeightedGraph, ids: str, name: str, decays: np.ndarray) -> Means:
        """Counts z of the channels, from their shares kept a token [C]; ``state.norm.NAME`` is their state."""
        g, n = graph.g, len(decays)
        steps = g.op("Unsqueeze", [ids, g.constant("axes.2", np.array([2], np.int64))])
        zeros = g.op("Mul", [g.op("Cast", [steps], to=1), g.constant(f"zeros.{n}", np.zeros((1, 1, n), F32))])
        ones = g.op("Add", [zeros, g.constant("one", np.ones(1, F32))])
        log_decay = g.op("Add", [zeros, g.constant(f"log_decay.{name}", np.log(decays).astype(F32))])
        z = graph.running_sum(ones, ones, ones, log_decay, f"state.norm.{name}", n)
        return cls(g.op("Reciprocal", [z]), ones, log_decay, n)

    def of(self, graph: WeightedGraph, values: str, state: str) -> str:
        """The means of ``values`` [1,T,C W]; ``state`` is the name of the layer's sums."""
        return graph.running_sum(self.query, self.key, values, self.log_decay, state, self.n_channels)
