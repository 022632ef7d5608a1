"""``gated_delta`` as ONNX, line by line as in its paper."""

from __future__ import annotations

import numpy as np

from edgelm.cells.gated_delta.paper import GatedDelta, decay_rates
from edgelm.graph.means import Means
from edgelm.graph.weighted import F32, WeightedGraph


def begin(graph: WeightedGraph, cell: GatedDelta, ids: str) -> Means:
    """What all layers share."""
    return Means.begin(graph, ids, "slope", cell.channel_decays())


def build(graph: WeightedGraph, cell: GatedDelta, name: str, layer: int, h: str, shared: Means) -> str:
    """The part of one layer, whose tensors begin with ``name``, over the normed stream ``h``."""
    c, g = cell, graph.g
    keys, heads = c.n_heads * c.key_dim, c.n_heads
    sizes = {"u": c.conv_dim, "us": c.slope_dim, "ud": c.decay_dim, "g": heads, "b": heads}
    u, us, ud, rate, write = g.split(graph.matmul(h, name + "w_in"), sizes, name)
    taps = g.op("Unsqueeze", [graph.weight(name + "conv"), g.constant("axes.1", np.array([1], np.int64))])
    outputs, state = [name + "mixed", f"next.state.{layer}.conv"], f"state.{layer}.conv"
    g.op("CausalConvWithState", [u, taps, "", state], outputs, ndim=1, channels_last=1, activation="none")
    vs, rest = g.split(name + "mixed", {"vs": c.slope_dim, "rest": 2 * keys + c.decay_dim}, name)
    ys = g.op("Mul", [shared.of(graph, vs, f"state.{layer}.slope"), graph.silu(us)])

    qk, vd = g.split(graph.silu(rest), {"qk": 2 * keys, "vd": c.decay_dim}, name)
    # q / sqrt(|q|^2 + 1e-6) is an RMSNorm with gain K^-1/2 and epsilon 1e-6 / K.
    gain = g.constant("unit_gain", np.full(c.key_dim, c.key_dim**-0.5, F32))
    qk = graph.reshape(qk, 2 * heads, c.key_dim)
    qk = g.op("SimplifiedLayerNormalization", [qk, gain], epsilon=1e-6 / c.key_dim, axis=-1)
    q, k = g.split(graph.reshape(qk, 2 * keys), {"q": keys, "k": keys}, name)
    kept = g.op("Softplus", [g.op("Add", [rate, graph.weight(name + "decay_bias")])])
    log_decay = g.op("Mul", [kept, _negative_rates(graph, name)])
    beta = g.op("Sigmoid", [g.op("Add", [write, graph.weight(name + "write_bias")])])
    attributes = {"q_num_heads": heads, "kv_num_heads": heads, "scale": 1.0, "update_rule": "gated_delta"}
    outputs = [name + "o", f"next.state.{layer}.decay"]
    g.op("LinearAttention", [q, k, vd, f"state.{layer}.decay", log_decay, beta], outputs, **attributes)
    gain = graph.weight(name + "head_norm")
    yd = g.op("GatedRMSNorm", [name + "o", gain, ud], epsilon=c.norm_eps, activation="silu")
    return graph.matmul(g.op("Concat", [ys, yd], axis=-1), name + "w_out")


def _negative_rates(graph: WeightedGraph, name: str) -> str:
    """-A, from decay_base and decay_step."""
    g = graph.g
    if graph.weights is not None:
        rates = decay_rates(graph.weights[name + "decay_base"], graph.weights[name + "decay_step"])
        return g.constant(name + "rate", -rates.astype(F32))
    axis = g.constant("axis.0", np.array(0, np.int64))
    total = g.op("CumSum", [g.op("Softplus", [graph.weight(name + "decay_step")]), axis])
    return g.op("Neg", [g.op("Exp", [g.op("Add", [total, graph.weight(name + "decay_base")])])])
