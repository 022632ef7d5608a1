"""A graph and the weights in it, whatever they are kept as; what the cells write their equations with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgelm.graph.builder import GraphBuilder
from edgelm.matrices.quantize import BLOCK, PRECISIONS, WIDER, Packed, Precision, quantize
from edgelm.matrices.spec import TensorSpec

F32 = np.float32
FLOAT = PRECISIONS["none"]
ACCURACY_LEVEL = 4
"""Products with integers round what comes in to int8 as well; 1 would keep it float32."""


class WeightedGraph:
    """Builds one graph; weights are asked for by name.

    Parameters
    ----------
    tensors : mapping of str to TensorSpec
        Every weight of the model.
    weights : dict of ndarray, optional
        Kept in the graph as initialisers. Without them every weight is a graph input; if the precision is not float32,
        those that learning changes alone are, and the graph names the others and lacks their numbers.
    precision : Precision
        Of the matrices; anything but float32 rounds activations to int8 in most products.
    """

    def __init__(
        self, tensors: Mapping[str, TensorSpec], weights: Mapping[str, np.ndarray] | None, precision: Precision
    ) -> None:
        self.tensors, self.weights, self.precision = tensors, weights, precision
        self.g = GraphBuilder("edgelm_step")
        self._packed: dict[str, Packed] = {}
        self._inputs: set[str] = set()
        joined = weights is None and precision != FLOAT
        self._joined = {name for name, spec in tensors.items() if joined and not spec.learns}

    def weight(self, name: str) -> str:
        """A float32 tensor."""
        if self.weights is not None:
            return self.g.constant(name, self.weights[name])
        return name if name in self._joined else self._input(name, F32, self.tensors[name].shape)

    def _input(self, name: str, dtype: type, shape: tuple[int, ...]) -> str:
        if name not in self._inputs:
            self._inputs.add(name)
            self.g.input(name, dtype, shape)
        return name

    def packs(self, name: str) -> bool:
        """Whether the graph holds this weight as integers."""
        return self.precision.of(name) != "float32" and self.tensors[name].divides

    def integers(self, name: str, *shape: int) -> tuple[int, list[str]]:
        """Bits, and numbers (as ``shape``), scales and zero points of a matrix, its summed axis last."""
        if self.weights is None:
            return self._integers_from_outside(name, *shape)
        if name not in self._packed:
            array, first = self.weights[name], self.tensors[name].sums == 0
            self._packed[name] = quantize(np.ascontiguousarray(array.T) if first else array, self.precision.of(name))
        packed, g = self._packed[name], self.g
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
        if name not in self._joined:
            full = self.tensors[name].shape
            self._input(q, np.uint8, full)
            self._input(scale, F32, (*full[:-1], full[-1] // BLOCK))
        elif name == "embed" and len(shape) == 2:
            q = self.g.op("Reshape", [q, self.g.constant(f"shape{shape}", np.array(shape, np.int64))])
        return 8, [q, scale, ""]

    def matmul(self, h: str, name: str, output: str | None = None) -> str:
        """h W."""
        spec, outputs = self.tensors[name], [output] if output else None
        if not self.packs(name):
            w = self.weight(name)
            return self.g.op("MatMul", [h, w if spec.sums == 0 else self._transposed(w)], outputs)
        k, n = spec.shape if spec.sums == 0 else spec.shape[::-1]
        bits, inputs = self.integers(name, n, k // BLOCK, -1)
        attributes: dict[str, Any] = {"bits": bits, "block_size": BLOCK, "accuracy_level": ACCURACY_LEVEL}
        return self.g.op("MatMulNBits", [h, *inputs], outputs, K=k, N=n, **attributes)

    def matmul_back(self, x: str, name: str) -> str:
        """x W', of a matrix W' [out,in] whose runs lie along its last axis: each number of x weighs a row.

        Integers are made numbers at each run of the graph: no operator multiplies with them in this direction.
        """
        if not self.packs(name):
            return self.g.op("MatMul", [x, self.weight(name)])
        n_rows, width = self.tensors[name].shape
        n_runs = width // BLOCK
        bits, (q, scale, zero_point) = self.integers(name, n_rows, width if self._is_whole(name) else width // 2)
        if bits == 4:
            q = self._halves(q, n_rows, width)
            zero_point = zero_point and self._halves(zero_point, n_rows, n_runs)
        if not zero_point:
            middle = np.full((n_rows, n_runs), 1 << (bits - 1), np.uint8)
            zero_point = self.g.constant(f"middle {bits} {n_rows} {width}", middle)
        numbers = self.g.op("DequantizeLinear", [q, scale, zero_point], axis=1, block_size=BLOCK)
        return self.g.op("MatMul", [x, numbers])

    def _is_whole(self, name: str) -> bool:
        """Whether each number has a byte of its own."""
        return self.precision.of(name) == "int8"

    def _halves(self, q: str, n_rows: int, n: int) -> str:
        """Bytes that hold two numbers each, the first in the lower half, as n numbers of each of the rows."""
        g, last = self.g, self.g.constant("axes.2", np.array([2], np.int64))
        low = g.op("BitwiseAnd", [q, g.constant("lower half", np.array(15, np.uint8))])
        high = g.op("BitShift", [q, g.constant("half a byte", np.array(4, np.uint8))], direction="RIGHT")
        both = g.op("Concat", [g.op("Unsqueeze", [half, last]) for half in (low, high)], axis=2)
        shape = g.constant(f"shape{(n_rows, -1)}", np.array([n_rows, -1], np.int64))
        start, end = (g.constant(f"int.{i}", np.array([i], np.int64)) for i in (0, n))
        return g.op("Slice", [g.op("Reshape", [both, shape]), start, end, g.constant("int.1", np.array([1], np.int64))])

    def mixes(self, h: str, state: str, shares: Sequence[str]) -> list[str]:
        """h + (h_before - h) share for each share, of one token h [1,1,D]; ``state`` [1,D] is h of the one before."""
        g, flat = self.g, self.g.constant("shape.one row", np.array([1, -1], np.int64))
        g.op("Reshape", [h, flat], ["next." + state])
        change = g.op("Sub", [state, h])
        return [g.op("Add", [h, g.op("Mul", [change, self.weight(share)])]) for share in shares]

    def _transposed(self, w: str) -> str:
        return self.g.op("Transpose", [w], perm=[1, 0])

    def gather(self, name: str, ids: str) -> str:
        """Rows of a matrix whose products sum over its last axis."""
        if not self.packs(name):
            return self.g.op("Gather", [self.weight(name), ids])
        # Rows are gathered as integers: a float copy of the table would be four times its size.
        bits, (q, *rest) = self.integers(name, self.tensors[name].shape[0], -1)
        attributes: dict[str, Any] = {"bits": bits, "block_size": BLOCK, "gather_axis": 0, "quantize_axis": 1}
        return self.g.op("GatherBlockQuantized", [q, ids, *rest], **attributes)

    def reshape(self, x: str, *sizes: int) -> str:
        """x [1,T,...] to [1,T,*sizes]."""
        shape = self.g.constant("shape." + ".".join(map(str, sizes)), np.array([1, -1, *sizes], np.int64))
        return self.g.op("Reshape", [x, shape])

    def silu(self, x: str) -> str:
        """x sigmoid(x)."""
        return self.g.op("QuickGelu", [x], alpha=1.0)

    def running_sum(self, query: str, key: str, value: str, log_decay: str, state: str, n_heads: int) -> str:
        """Sums of key' value that decay, read by the query; ``state`` is the name of the state tensor [1,H,K,V]."""
        attributes = {"q_num_heads": n_heads, "kv_num_heads": n_heads, "scale": 1.0, "update_rule": "gated"}
        inputs = [query, key, value, state, log_decay]
        return self.g.op("LinearAttention", inputs, [state + ".out", "next." + state], **attributes)
