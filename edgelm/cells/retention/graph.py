"""``retention`` as ONNX, line by line as in its paper."""

from __future__ import annotations

import numpy as np

from edgelm.cells.retention.paper import HEAD_EPS, Retention
from edgelm.graph.weighted import F32, WeightedGraph


def begin(graph: WeightedGraph, cell: Retention, ids: str) -> str:
    """What all layers share: log gamma of every token and head [1,T,H]."""
    g, heads = graph.g, cell.n_heads
    steps = g.op("Unsqueeze", [ids, g.constant("axes.2", np.array([2], np.int64))])
    zeros = g.op("Mul", [g.op("Cast", [steps], to=1), g.constant(f"zeros.{heads}", np.zeros((1, 1, heads), F32))])
    return g.op("Add", [zeros, g.constant(f"log_decay.retention.{heads}", np.log(cell.decays()).astype(F32))])


def build(graph: WeightedGraph, cell: Retention, name: str, layer: int, h: str, shared: str) -> str:
    """The part of one layer, whose tensors begin with ``name``, over the normed stream ``h``."""
    c, g = cell, graph.g
    sizes = {"q": c.keys, "k": c.keys, "v": c.values, "u": c.values}
    q, k, v, u = g.split(graph.matmul(h, name + "w_in"), sizes, name)
    attributes = {"q_num_heads": c.n_heads, "kv_num_heads": c.n_heads, "update_rule": "gated"}
    outputs = [name + "o", f"next.state.{layer}.memory"]
    inputs = [q, k, v, f"state.{layer}.memory", shared]
    o = g.op("LinearAttention", inputs, outputs, scale=c.key_dim**-0.5, **attributes)
    gain = g.constant(f"ones.{c.value_dim}", np.ones(c.value_dim, F32))
    o = g.op("LayerNormalization", [graph.reshape(o, c.n_heads, c.value_dim), gain], epsilon=HEAD_EPS, axis=-1)
    return graph.matmul(g.op("Mul", [graph.reshape(o, c.values), graph.silu(u)]), name + "w_out")
