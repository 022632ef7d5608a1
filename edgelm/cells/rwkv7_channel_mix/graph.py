"""``rwkv7_channel_mix`` as ONNX, line by line as in its paper, for one token at a time."""

from __future__ import annotations

from edgelm.cells.rwkv7_channel_mix.paper import Rwkv7ChannelMix
from edgelm.graph.weighted import F32, WeightedGraph


def begin(graph: WeightedGraph, cell: Rwkv7ChannelMix, ids: str) -> None:
    """Layers share nothing."""


def build(graph: WeightedGraph, cell: Rwkv7ChannelMix, name: str, layer: int, h: str, shared: None) -> str:
    """The part of one layer, whose tensors begin with ``name``, over the normed stream ``h`` [1,1,D]."""
    g, a = graph.g, f"activations.{layer}"
    (h_k,) = graph.mixes(h, f"state.{layer}.channel_shift", [name + "x_k"])
    u = g.op("Relu", [graph.matmul(h_k, name + "key")])
    g.op("Mul", [u, u], [a])
    g.output(a, F32, (1, "T", cell.n_blocks))
    return graph.matmul_back(a, name + "value")
