"""``block_ffn`` as ONNX, line by line as in its paper."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgelm.cells.block_ffn.paper import ROUTER_EPS, BlockFfn
from edgelm.graph.weighted import F32, WeightedGraph
from edgelm.matrices.quantize import BLOCK


def begin(graph: WeightedGraph, cell: BlockFfn, ids: str) -> None:
    """Layers share nothing."""


def build(graph: WeightedGraph, cell: BlockFfn, name: str, layer: int, h: str, shared: None) -> str:
    """The part of one layer, whose tensors begin with ``name``, over the normed stream ``h``."""
    a = f"activations.{layer}"
    a0, gamma = logits_and_gamma(graph, name, h)
    rectified = [graph.g.op("Relu", [a0]), gamma]
    graph.g.op("SimplifiedLayerNormalization", rectified, [a], epsilon=ROUTER_EPS, axis=-1)
    return build_blocks(graph, cell, name, h, a)


def logits_and_gamma(graph: WeightedGraph, name: str, h: str) -> tuple[str, str]:
    """h W_r + b_r, and exp(log_gamma)."""
    g = graph.g
    a0 = g.op("Add", [g.op("MatMul", [h, graph.weight(name + "router")]), graph.weight(name + "router_bias")])
    return a0, g.op("Exp", [graph.weight(name + "log_gamma")])


def build_blocks(graph: WeightedGraph, cell: BlockFfn, name: str, h: str, a: str) -> str:
    """The blocks of the largest activations ``a`` [1,T,M], and the one that is always awake."""
    g = graph.g
    y = _experts(graph, cell, name, h, a)
    g.output(a, F32, (1, "T", cell.n_blocks))
    # ONNX Runtime 1.31 may run MoE in place over its input while it still reads it. A graph output is
    # never written over.
    g.output(h, F32, (1, "T", cell.d_model))
    shared_block = graph.matmul(graph.silu(graph.matmul(h, name + "shared_w1")), name + "shared_w2")
    return g.op("Add", [y, shared_block])


def _experts(graph: WeightedGraph, cell: BlockFfn, name: str, h: str, a: str) -> str:
    c, g = cell, graph.g
    rows = g.constant("shape.rows", np.array([-1, c.n_blocks], np.int64))
    attributes: dict[str, Any] = {"k": c.max_awake, "activation_type": "silu", "normalize_routing_weights": 0}
    if graph.packs(name + "w1"):
        chosen = g.op("Reshape", [a, rows])
        bits, (q1, scale1, zero1) = graph.integers(name + "w1", c.n_blocks, c.block_size, -1)
        _, (q2, scale2, zero2) = graph.integers(name + "w2", c.n_blocks, c.d_model, -1)
        # The second input only chooses blocks; the last one weighs what they give.
        inputs = [h, chosen, q1, scale1, "", q2, scale2, "", "", "", "", zero1, zero2, "", chosen]
        return g.op("QMoE", inputs, expert_weight_bits=bits, block_size=BLOCK, **attributes)
    # MoE weighs its experts by softmax(router) = a / sum(a); the sum is given back after.
    logits = g.op("Log", [g.op("Max", [a, g.constant("tiny", np.array(1e-30, F32))])])
    inputs = [h, g.op("Reshape", [logits, rows]), graph.weight(name + "w1"), "", graph.weight(name + "w2")]
    total = g.op("ReduceSum", [a, g.constant("axes.last", np.array([-1], np.int64))], keepdims=1)
    return g.op("Mul", [g.op("MoE", inputs, **attributes), total])
