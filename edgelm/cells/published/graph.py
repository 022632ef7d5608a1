"""``published`` as ONNX, line by line as in its paper."""

from __future__ import annotations

from edgelm.cells.published.paper import Published
from edgelm.graph.means import Means
from edgelm.graph.weighted import WeightedGraph

Shared = dict[str, Means]


def begin(graph: WeightedGraph, cell: Published, ids: str) -> Shared:
    """What all layers share."""
    return {name: Means.begin(graph, ids, name, decays) for name, decays in cell.channel_decays().items()}


def build(graph: WeightedGraph, cell: Published, name: str, layer: int, h: str, shared: Shared) -> str:
    """The part of one layer, whose tensors begin with ``name``, over the normed stream ``h``."""
    c, g = cell, graph.g
    parts = graph.reshape(h, c.n_channels, c.d_model // c.n_channels)
    parts = g.op("MatMul", [g.op("Transpose", [parts], perm=[0, 2, 1, 3]), graph.weight(name + "w_in")])
    half = c.mix_dim // c.n_channels
    v, u = g.split(g.op("Transpose", [parts], perm=[0, 2, 1, 3]), {"v": half, "u": half}, name)
    v, u = (graph.reshape(part, c.mix_dim) for part in (v, u))
    values = g.split(v, {"near": c.slope_dim, "far": c.mix_dim - c.slope_dim}, name)
    means = [shared[kind].of(graph, v, f"state.{layer}.{kind}") for kind, v in zip(c.state(), values, strict=True)]
    return graph.matmul(g.op("Mul", [g.op("Concat", means, axis=-1), graph.silu(u)]), name + "w_out")
