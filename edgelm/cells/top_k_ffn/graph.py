"""``top_k_ffn`` as ONNX, line by line as in its paper."""

from __future__ import annotations

import numpy as np

from edgelm.cells.block_ffn.graph import begin, build_blocks, logits_and_gamma
from edgelm.cells.top_k_ffn.paper import TopKFfn
from edgelm.graph.weighted import F32, WeightedGraph

__all__ = ["begin", "build"]


def build(graph: WeightedGraph, cell: TopKFfn, name: str, layer: int, h: str, shared: None) -> str:
    """The part of one layer, whose tensors begin with ``name``, over the normed stream ``h``."""
    g, a = graph.g, f"activations.{layer}"
    z, gamma = logits_and_gamma(graph, name, h)
    p = g.op("Softmax", [z], axis=-1)
    strengths, awake = name + "strengths", name + "awake"
    most = g.constant(f"most.{cell.max_awake}", np.array([cell.max_awake], np.int64))
    g.op("TopK", [g.op("Mul", [p, gamma]), most], [strengths, awake], axis=-1)
    chosen = g.op("GatherElements", [p, awake], axis=-1)
    total = g.op("ReduceSum", [chosen, g.constant("axes.last", np.array([-1], np.int64))], keepdims=1)
    size = g.constant(f"size.{cell.max_awake}.{cell.n_blocks}", np.array([cell.size], F32))
    g.op("Mul", [g.op("Div", [p, total]), g.op("Mul", [gamma, size])], [a])
    return build_blocks(graph, cell, name, h, a)
