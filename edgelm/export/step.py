"""Configuration (and weights) to an ONNX graph, part by part as in ``edgelm/model/reference.py``.

One graph serves prefill (T > 1) and decode (T = 1). Its inputs are ``ids`` [1,T], ``first_logit`` [1]
(logits are computed from this position on) and the state; its outputs ``logits``, the next state
(``next.`` + name) and the activations of the router. There is no loop, scan or branch in it.

Weights are graph inputs, shared with whoever changes them, or initialisers, float32 or small integers; or those that
learning changes are inputs, and the frozen ones names, constants that whoever loads the graph has to give.
"""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np

from edgelm.config import CONV_WIDTH, ModelConfig
from edgelm.export.graph import GraphBuilder
from edgelm.model.packing import divides, sums_over_first
from edgelm.model.quantize import BLOCK, PRECISIONS, WIDER, Packed, Precision, quantize
from edgelm.model.reference import decay_rates, slope_decays
from edgelm.model.weights import Weights, adaptable_names, shapes

F32 = np.float32
FLOAT = PRECISIONS["none"]
ACCURACY_LEVEL = 4
"""Products with integers round what comes in to int8 as well; 1 would keep it float32."""


def state_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every state tensor, as the graph holds them."""
    c = config
    channels = [("slope", c.n_channels, c.slope_dim // c.n_channels)]
    if c.mixer == "mcsd":
        channels.append(("far", c.n_heads, c.value_dim))
    table: dict[str, tuple[int, ...]] = {f"state.norm.{name}": (1, n, 1, 1) for name, n, _ in channels}
    for i in range(c.n_layers):
        table |= {f"state.{i}.{name}": (1, n, 1, width) for name, n, width in channels}
        if c.mixer == "mcsd_g":
            table[f"state.{i}.conv"] = (1, CONV_WIDTH - 1, c.conv_dim)
            table[f"state.{i}.decay"] = (1, c.n_heads, c.key_dim, c.value_dim)
    return table


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
    graph = StepGraph(config, weights, precision)
    for name, array in (given or {}).items():
        graph.g.declare(name, array)
    return graph.build()


def weight_bytes(config: ModelConfig, precision: Precision = FLOAT) -> dict[str, int]:
    """Bytes of every weight as the running graph reads it: integers with a float32 scale for every 32, or float32.

    Ternary numbers are widened to 4 bits when the graph is loaded.
    """
    packs, table = StepGraph(config, None, precision).packs, {}
    for name, shape in shapes(config).items():
        table[name] = 4 * math.prod(shape)
        if packs(name):
            kind, n_runs = precision.of(name), math.prod(shape) // BLOCK
            runs_of_row = shape[0 if sums_over_first(name) else -1] // BLOCK
            zero_points = n_runs // runs_of_row * math.ceil(runs_of_row / 2) if kind == "int4" else 0
            table[name] = n_runs * (4 + (BLOCK if kind == "int8" else BLOCK // 2)) + zero_points
    return table


class StepGraph:
    """Builds one graph; a method a part of the reference."""

    def __init__(self, config: ModelConfig, weights: Weights | None, precision: Precision) -> None:
        self.config, self.weights, self.precision = config, weights, precision
        self.g = GraphBuilder("edgelm_step")
        self.packed: dict[str, Packed] = {}
        self.inputs: set[str] = set()
        joined = weights is None and precision != FLOAT
        self.joined = set(shapes(config)) - set(adaptable_names(config)) if joined else set()

    def build(self) -> bytes:
        """Embedding, layers, head."""
        c, g = self.config, self.g
        ids = g.input("ids", np.int64, (1, "T"))
        first = g.input("first_logit", np.int64, (1,))
        for name, shape in state_shapes(c).items():
            g.input(name, F32, shape)
        x = self._embed(ids)
        self._position_scale(ids)
        y = None
        for i in range(c.n_layers):
            x, h = self._add_and_norm(x, y, f"layers.{i}.mixer.norm")
            y = self._mixer(h, i) if c.mixer == "mcsd_g" else self._published_mixer(h, i)
            x, h = self._add_and_norm(x, y, f"layers.{i}.ffn.norm")
            y = self._block_ffn(h, i)
        _, h = self._add_and_norm(x, y, "final_norm")
        end = g.constant("int.max", np.array([2**62], np.int64))
        h = g.op("Slice", [h, first, end, g.constant("int.1", np.array([1], np.int64))])
        self._head(h)
        g.output("logits", F32, (1, "N", c.vocab_size))
        for name, shape in state_shapes(c).items():
            g.output("next." + name, F32, shape)
        for i in range(c.n_layers):
            g.output(f"activations.{i}", F32, (1, "T", c.n_blocks))
            # ONNX Runtime 1.31 may run MoE in place over its input while it still reads it. A graph output is
            # never written over.
            g.output(f"layers.{i}.ffn.norm.out", F32, (1, "T", c.d_model))
        return g.build({"config": json.dumps(dataclasses.asdict(c))})

    def _weight(self, name: str) -> str:
        if self.weights is not None:
            return self.g.constant(name, self.weights[name])
        return name if name in self.joined else self._input(name, F32, shapes(self.config)[name])

    def _input(self, name: str, dtype: type, shape: tuple[int, ...]) -> str:
        if name not in self.inputs:
            self.inputs.add(name)
            self.g.input(name, dtype, shape)
        return name

    def packs(self, name: str) -> bool:
        """Whether the graph holds this weight as integers."""
        return self.precision.of(name) != "float32" and divides(name, self.config)

    def _integers(self, name: str, *shape: int) -> tuple[int, list[str]]:
        """Bits, and numbers (as ``shape``), scales and zero points of a matrix, its summed axis last."""
        if self.weights is None:
            return self._integers_from_outside(name, *shape)
        if name not in self.packed:
            array = np.ascontiguousarray(self.weights[name].T) if sums_over_first(name) else self.weights[name]
            self.packed[name] = quantize(array, self.precision.of(name))
        packed, g = self.packed[name], self.g
        # The file holds less than the operators want. Made from constants alone, it is widened once, at load.
        q, scale = g.constant(name + ".q", packed.q), g.op("Cast", [g.constant(name + ".scale", packed.scale)], to=1)
        if packed.bits == 2:
            # Operators of 2 bits take up to 100 times as long as those of 4.
            q = g.op("Gather", [g.constant("wider", WIDER), g.op("Cast", [q], to=6)])
        # Not a constant in its final shape: without graph optimisation the scale is none either, and MatMulNBits of
        # a constant q and a scale that is none is wrong in ONNX Runtime 1.31.
        q = g.op("Reshape", [q, g.constant(f"shape{shape}", np.array(shape, np.int64))])
        zero_point = "" if packed.zero_point is None else g.constant(name + ".zero_point", packed.zero_point)
        return max(packed.bits, 4), [q, scale, zero_point]

    def _integers_from_outside(self, name: str, *shape: int) -> tuple[int, list[str]]:
        """They come as the operators want them; rows of the embedding are gathered whole, though."""
        q, scale = name + ".q", name + ".scale"
        if name not in self.joined:
            full = shapes(self.config)[name]
            self._input(q, np.uint8, full)
            self._input(scale, F32, (*full[:-1], full[-1] // BLOCK))
        elif name == "embed" and len(shape) == 2:
            q = self.g.op("Reshape", [q, self.g.constant(f"shape{shape}", np.array(shape, np.int64))])
        return 8, [q, scale, ""]

    def _matmul(self, h: str, name: str) -> str:
        if not self.packs(name):
            return self.g.op("MatMul", [h, self._weight(name)])
        k, n = shapes(self.config)[name]
        bits, inputs = self._integers(name, n, k // BLOCK, -1)
        return self._product(h, inputs, bits, n, k)

    def _product(self, h: str, integers: list[str], bits: int, n: int, k: int, output: str | None = None) -> str:
        attributes: dict[str, Any] = {"bits": bits, "block_size": BLOCK, "accuracy_level": ACCURACY_LEVEL}
        return self.g.op("MatMulNBits", [h, *integers], [output] if output else None, K=k, N=n, **attributes)

    def _embed(self, ids: str) -> str:
        if not self.packs("embed"):
            return self.g.op("Gather", [self._weight("embed"), ids])
        # Rows are gathered as integers: a float copy of the table would be four times its size.
        bits, (q, *rest) = self._integers("embed", self.config.vocab_size, -1)
        attributes: dict[str, Any] = {"bits": bits, "block_size": BLOCK, "gather_axis": 0, "quantize_axis": 1}
        return self.g.op("GatherBlockQuantized", [q, ids, *rest], **attributes)

    def _head(self, h: str) -> None:
        g, n, k = self.g, self.config.vocab_size, self.config.d_model
        if not self.packs("embed"):
            g.op("MatMul", [h, g.op("Transpose", [self._weight("embed")], perm=[1, 0])], ["logits"])
            return
        bits, inputs = self._integers("embed", n, k // BLOCK, -1)
        self._product(h, inputs, bits, n, k, "logits")

    def _shape(self, *sizes: int) -> str:
        return self.g.constant("shape." + ".".join(map(str, sizes)), np.array([1, -1, *sizes], np.int64))

    def _add_and_norm(self, x: str, y: str | None, gain: str) -> tuple[str, str]:
        """x + y and its RMSNorm."""
        eps, gain = self.config.norm_eps, self._weight(gain)
        if y is None:
            return x, self.g.op("SimplifiedLayerNormalization", [x, gain], epsilon=eps, axis=-1)
        total, normed = gain + ".sum", gain + ".out"
        outputs = [normed, "", "", total]
        self.g.op("SkipSimplifiedLayerNormalization", [x, y, gain], outputs, epsilon=eps)
        return total, normed

    def _position_scale(self, ids: str) -> None:
        """1/z per step and channel, and the decays: the same for every layer.

        n_t / z_t is read out of the same operator that sums: its query is 1 / z_t, its key is 1.
        """
        g = self.g
        steps = g.op("Unsqueeze", [ids, g.constant("axes.2", np.array([2], np.int64))])
        decays = slope_decays(self.config)
        self.channels: dict[str, tuple[str, str, str]] = {}
        first = 0
        for state, (_, n, _, _) in state_shapes(self.config).items():
            if not state.startswith("state.norm."):
                break
            name = state.removeprefix("state.norm.")
            width = state_shapes(self.config)[f"state.0.{name}"][3]
            log_decay = np.log(decays[first : first + n * width : width]).astype(F32)
            first += n * width
            zeros = g.op("Mul", [g.op("Cast", [steps], to=1), g.constant(f"zeros.{n}", np.zeros((1, 1, n), F32))])
            ones = g.op("Add", [zeros, g.constant("one", np.ones(1, F32))])
            decay = g.op("Add", [zeros, g.constant(f"log_decay.{name}", log_decay)])
            z = self._sum(ones, ones, ones, decay, state, n)
            self.channels[name] = (g.op("Reciprocal", [z]), ones, decay)

    def _sum(self, query: str, key: str, value: str, decay: str, state: str, heads: int) -> str:
        attributes = {"q_num_heads": heads, "kv_num_heads": heads, "scale": 1.0, "update_rule": "gated"}
        inputs = [query, key, value, state, decay]
        return self.g.op("LinearAttention", inputs, [state + ".out", "next." + state], **attributes)

    def _slope(self, v: str, layer: int, name: str) -> str:
        query, key, decay = self.channels[name]
        n = state_shapes(self.config)[f"state.{layer}.{name}"][1]
        return self._sum(query, key, v, decay, f"state.{layer}.{name}", n)

    def _silu(self, x: str) -> str:
        return self.g.op("QuickGelu", [x], alpha=1.0)

    def _mixer(self, h: str, i: int) -> str:
        c, g, name = self.config, self.g, f"layers.{i}.mixer."
        keys, heads = c.n_heads * c.key_dim, c.n_heads
        sizes = {"u": c.conv_dim, "us": c.slope_dim, "ud": c.decay_dim, "g": heads, "b": heads}
        u, us, ud, rate, write = g.split(self._matmul(h, name + "w_in"), sizes, name)
        taps = g.op("Unsqueeze", [self._weight(name + "conv"), g.constant("axes.1", np.array([1], np.int64))])
        outputs, state = [name + "mixed", f"next.state.{i}.conv"], f"state.{i}.conv"
        g.op("CausalConvWithState", [u, taps, "", state], outputs, ndim=1, channels_last=1, activation="none")
        vs, rest = g.split(name + "mixed", {"vs": c.slope_dim, "rest": 2 * keys + c.decay_dim}, name)
        ys = g.op("Mul", [self._slope(vs, i, "slope"), self._silu(us)])

        qk, vd = g.split(self._silu(rest), {"qk": 2 * keys, "vd": c.decay_dim}, name)
        # q / sqrt(|q|^2 + 1e-6) is an RMSNorm with gain K^-1/2 and epsilon 1e-6 / K.
        gain = g.constant("unit_gain", np.full(c.key_dim, c.key_dim**-0.5, F32))
        qk = g.op("Reshape", [qk, self._shape(2 * heads, c.key_dim)])
        qk = g.op("SimplifiedLayerNormalization", [qk, gain], epsilon=1e-6 / c.key_dim, axis=-1)
        q, k = g.split(g.op("Reshape", [qk, self._shape(2 * keys)]), {"q": keys, "k": keys}, name)
        log_decay = g.op(
            "Mul", [g.op("Softplus", [g.op("Add", [rate, self._weight(name + "decay_bias")])]), self._rate(name)]
        )
        beta = g.op("Sigmoid", [g.op("Add", [write, self._weight(name + "write_bias")])])
        attributes = {"q_num_heads": heads, "kv_num_heads": heads, "scale": 1.0, "update_rule": "gated_delta"}
        outputs = [name + "o", f"next.state.{i}.decay"]
        g.op("LinearAttention", [q, k, vd, f"state.{i}.decay", log_decay, beta], outputs, **attributes)
        gain = self._weight(name + "head_norm")
        yd = g.op("GatedRMSNorm", [name + "o", gain, ud], epsilon=c.norm_eps, activation="silu")
        return self._matmul(g.op("Concat", [ys, yd], axis=-1), name + "w_out")

    def _rate(self, name: str) -> str:
        """-A, from decay_base and decay_step."""
        g = self.g
        if self.weights is not None:
            rate = decay_rates(self.weights[name + "decay_base"], self.weights[name + "decay_step"])
            return g.constant(name + "rate", -rate.astype(F32))
        axis = g.constant("axis.0", np.array(0, np.int64))
        total = g.op("CumSum", [g.op("Softplus", [self._weight(name + "decay_step")]), axis])
        return g.op("Neg", [g.op("Exp", [g.op("Add", [total, self._weight(name + "decay_base")])])])

    def _published_mixer(self, h: str, i: int) -> str:
        c, g, name = self.config, self.g, f"layers.{i}.mixer."
        parts = g.op("Reshape", [h, self._shape(c.n_channels, c.d_model // c.n_channels)])
        parts = g.op("MatMul", [g.op("Transpose", [parts], perm=[0, 2, 1, 3]), self._weight(name + "w_in")])
        half = c.mix_dim // c.n_channels
        v, u = g.split(g.op("Transpose", [parts], perm=[0, 2, 1, 3]), {"v": half, "u": half}, name)
        v, u = (g.op("Reshape", [part, self._shape(c.mix_dim)]) for part in (v, u))
        near, far = g.split(v, {"near": c.slope_dim, "far": c.decay_dim}, name)
        m = g.op("Concat", [self._slope(near, i, "slope"), self._slope(far, i, "far")], axis=-1)
        return self._matmul(g.op("Mul", [m, self._silu(u)]), name + "w_out")

    def _block_ffn(self, h: str, i: int) -> str:
        g, name = self.g, f"layers.{i}.ffn."
        a0 = g.op("Add", [g.op("MatMul", [h, self._weight(name + "router")]), self._weight(name + "router_bias")])
        gamma = g.op("Exp", [self._weight(name + "log_gamma")])
        a = f"activations.{i}"
        g.op("SimplifiedLayerNormalization", [g.op("Relu", [a0]), gamma], [a], epsilon=1e-5, axis=-1)
        y = self._experts(h, a, name)
        shared = self._matmul(self._silu(self._matmul(h, name + "shared_w1")), name + "shared_w2")
        return g.op("Add", [y, shared])

    def _experts(self, h: str, a: str, name: str) -> str:
        c, g = self.config, self.g
        rows = g.constant("shape.rows", np.array([-1, c.n_blocks], np.int64))
        attributes: dict[str, Any] = {"k": c.max_awake, "activation_type": "silu", "normalize_routing_weights": 0}
        if self.packs(name + "w1"):
            chosen = g.op("Reshape", [a, rows])
            bits, (q1, scale1, zero1) = self._integers(name + "w1", c.n_blocks, c.block_size, -1)
            _, (q2, scale2, zero2) = self._integers(name + "w2", c.n_blocks, c.d_model, -1)
            # The second input only chooses blocks; the last one weighs what they give.
            inputs = [h, chosen, q1, scale1, "", q2, scale2, "", "", "", "", zero1, zero2, "", chosen]
            return g.op("QMoE", inputs, expert_weight_bits=bits, block_size=BLOCK, **attributes)
        # MoE weighs its experts by softmax(router) = a / sum(a); the sum is given back after.
        logits = g.op("Log", [g.op("Max", [a, g.constant("tiny", np.array(1e-30, F32))])])
        inputs = [h, g.op("Reshape", [logits, rows]), self._weight(name + "w1"), "", self._weight(name + "w2")]
        total = g.op("ReduceSum", [a, g.constant("axes.last", np.array([-1], np.int64))], keepdims=1)
        return g.op("Mul", [g.op("MoE", inputs, **attributes), total])
