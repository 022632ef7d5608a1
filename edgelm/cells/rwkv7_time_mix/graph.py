"""``rwkv7_time_mix`` as ONNX, line by line as in its paper, of primitive operators and for one token at a time.

No operator has a rule with a key of its own for what is removed.
"""

from __future__ import annotations

import numpy as np

from edgelm.cells.rwkv7_time_mix.paper import DECAY_SCALE, HEAD_EPS, LEAST_LENGTH, MIXES, Rwkv7TimeMix
from edgelm.graph.weighted import F32, WeightedGraph


def begin(graph: WeightedGraph, cell: Rwkv7TimeMix, ids: str) -> dict[str, str]:
    """What a layer leaves for those after it: the name of v_first, once there is one."""
    return {}


def build(graph: WeightedGraph, cell: Rwkv7TimeMix, name: str, layer: int, h: str, shared: dict[str, str]) -> str:
    """The part of one layer, whose tensors begin with ``name``, over the normed stream ``h`` [1,1,D]."""
    c, g = cell, graph.g
    one = g.constant("one", np.ones(1, F32))
    mixes = graph.mixes(h, f"state.{layer}.time_shift", [name + mix for mix in MIXES])
    h_r, h_w, h_k, h_v, h_a, h_g = mixes
    r, k, v = (graph.matmul(i, name + w) for i, w in ((h_r, "receptance"), (h_k, "key"), (h_v, "value")))

    def low_rank(i: str, part: str, between: str = "") -> str:
        low = graph.matmul(i, name + part + "1")
        return graph.matmul(g.op(between, [low]) if between else low, name + part + "2")

    def share(i: str, part: str, between: str = "") -> str:
        return g.op("Sigmoid", [g.op("Add", [low_rank(i, part, between), graph.weight(f"{name}{part}0")])])

    scale = g.constant("decay scale", np.array([-DECAY_SCALE], F32))
    keep = g.op("Exp", [g.op("Mul", [share(h_w, "w", "Tanh"), scale])])
    a, gate = share(h_a, "a"), low_rank(h_g, "g", "Sigmoid")
    first = shared.setdefault("v_first", v)
    v = g.op("Add", [v, g.op("Mul", [g.op("Sub", [first, v]), share(h_v, "v")])])

    heads, rows, columns = (1, c.n_heads, c.head_dim), (c.n_heads, c.head_dim, 1), (c.n_heads, 1, c.head_dim)
    kk = graph.reshape(g.op("Mul", [k, graph.weight(name + "k_k")]), c.n_heads, c.head_dim)
    length = g.op("ReduceL2", [kk, g.constant("axes.last", np.array([-1], np.int64))], keepdims=1)
    kk = g.op("Div", [kk, g.op("Max", [length, g.constant("least length", np.array([LEAST_LENGTH], F32))])])
    rate = g.op("Mul", [g.op("Sub", [a, one]), graph.weight(name + "k_a")])
    k = g.op("Mul", [k, g.op("Add", [rate, one])])

    def shaped(x: str, sizes: tuple[int, ...]) -> str:
        shape = g.constant("shape." + ".".join(map(str, sizes)) + ".of one", np.array([1, *sizes], np.int64))
        return g.op("Reshape", [x, shape])

    memory = f"state.{layer}.memory"
    removed = g.op("MatMul", [shaped(kk, columns), memory])
    written = g.op("Mul", [shaped(k, rows), shaped(v, columns)])
    taken = g.op("Mul", [g.op("Mul", [shaped(kk, rows), shaped(a, rows)]), removed])
    kept = g.op("Mul", [memory, shaped(keep, rows)])
    g.op("Add", [g.op("Sub", [kept, taken]), written], ["next." + memory])
    y = shaped(g.op("MatMul", [shaped(r, columns), "next." + memory]), heads)

    ones = g.constant(f"ones.{c.head_dim}", np.ones(c.head_dim, F32))
    y = g.op("LayerNormalization", [y, ones], epsilon=HEAD_EPS, axis=-1)
    y = g.op("Mul", [graph.reshape(y, c.d_model), graph.weight(name + "head_norm")])
    y = g.op("Add", [y, graph.weight(name + "head_norm_bias")])
    r_k = g.op("Mul", [shaped(g.op("Mul", [r, k]), heads), graph.weight(name + "r_k")])
    own = g.op("ReduceSum", [r_k, g.constant("axes.last", np.array([-1], np.int64))], keepdims=1)
    y = g.op("Add", [y, graph.reshape(g.op("Mul", [own, shaped(v, heads)]), c.d_model)])
    return graph.matmul(g.op("Mul", [y, gate]), name + "output")
