"""Configuration (and weights) to an ONNX graph: the stack of cells, each written by its own ``graph.py``.

One graph serves prefill (T > 1) and decode (T = 1); that of a model with a cell that no operator computes over a
segment takes one token at a time. Its inputs are ``ids`` [1,T], ``first_logit`` [1]
(logits are computed from this position on) and the state; its outputs ``logits``, the next state
(``next.`` + name) and the activations of routers. There is no loop, scan or branch in it.

Weights are graph inputs, shared with whoever changes them, or initialisers, float32 or small integers; or those that
learning changes are inputs, and the frozen ones names, constants that whoever loads the graph has to give.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from edgelm.cells.table import graph_of
from edgelm.graph.weighted import F32, FLOAT, WeightedGraph
from edgelm.matrices.quantize import BLOCK, Precision
from edgelm.model.config import ModelConfig
from edgelm.model.state import state_shapes
from edgelm.model.weights import Weights, tensors


def build_graph(
    config: ModelConfig, weights: Weights | None = None, precision: Precision = FLOAT, given: Weights | None = None
) -> bytes:
    """The serialised ONNX model.

    Parameters
    ----------
    config : ModelConfig
    weights : dict of ndarray, optional
        Kept in the graph as initialisers. Without them every weight is a graph input; if the precision is int8, those
        that learning changes alone, and the graph lacks the others (``edgelm.engine.opening`` gives them).
    precision : Precision
        Of the matrices; anything but float32 rounds activations to int8 in most products.
    given : dict of ndarray, optional
        Constants whose numbers whoever loads the graph gives; their names, shapes and types are all that is kept.
    """
    graph = WeightedGraph(tensors(config), weights, precision)
    g = graph.g
    ids = g.input("ids", np.int64, (1, config.steps or "T"))
    first = g.input("first_logit", np.int64, (1,))
    g.output("logits", F32, (1, "N", config.vocab_size))
    for name, shape in state_shapes(config).items():
        g.input(name, F32, shape)
        g.output("next." + name, F32, shape)
    h = _stack(graph, config, ids)
    end = g.constant("int.max", np.array([2**62], np.int64))
    h = g.op("Slice", [h, first, end, g.constant("int.1", np.array([1], np.int64))])
    graph.matmul(h, config.head, "logits")
    for name, array in (given or {}).items():
        g.declare(name, array)
    return g.build({"config": json.dumps(config.to_dict())})


def _stack(graph: WeightedGraph, config: ModelConfig, ids: str) -> str:
    """Embedding and layers; the normed stream."""
    x, y = graph.gather("embed", ids), None
    shared: dict[Any, Any] = {}
    for prefix, cell in config.parts():
        if cell not in shared:
            shared[cell] = graph_of(cell).begin(graph, cell, ids)
        x, h = _add_and_norm(graph, x, y, prefix + "norm", config.norm_eps)
        y = graph_of(cell).build(graph, cell, prefix, int(prefix.split(".")[1]), h, shared[cell])
    return _add_and_norm(graph, x, y, "final_norm", config.norm_eps)[1]


def _add_and_norm(graph: WeightedGraph, x: str, y: str | None, gain: str, eps: float) -> tuple[str, str]:
    """x + y and its RMSNorm, or, where the norm has a bias, its LayerNorm."""
    total, normed, bias = gain + ".sum", gain + ".out", gain + "_bias"
    simplified, weights = "Simplified", [graph.weight(gain)]
    if bias in graph.tensors:
        simplified, weights = "", [*weights, graph.weight(bias)]
    if y is None:
        return x, graph.g.op(f"{simplified}LayerNormalization", [x, *weights], epsilon=eps, axis=-1)
    graph.g.op(f"Skip{simplified}LayerNormalization", [x, y, *weights], [normed, "", "", total], epsilon=eps)
    return total, normed


def weight_bytes(config: ModelConfig, precision: Precision = FLOAT) -> dict[str, int]:
    """Bytes of every weight as the running graph reads it: integers with a float32 scale for every 32, or float32.

    Ternary numbers are widened to 4 bits when the graph is loaded.
    """
    table = {}
    for name, spec in tensors(config).items():
        table[name], kind = 4 * math.prod(spec.shape), precision.of(name)
        if spec.sums is not None and spec.divides and kind != "float32":
            n_runs, runs_of_row = math.prod(spec.shape) // BLOCK, spec.shape[spec.sums] // BLOCK
            zero_points = n_runs // runs_of_row * math.ceil(runs_of_row / 2) if kind == "int4" else 0
            table[name] = n_runs * (4 + (BLOCK if kind == "int8" else BLOCK // 2)) + zero_points
    return table
