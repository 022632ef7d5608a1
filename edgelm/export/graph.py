"""A thin typed builder over ONNX protobufs; the only import of onnx."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgelm.errors import DeviceError

try:
    import onnx
    from onnx import TensorProto, helper, numpy_helper
except ImportError:
    raise DeviceError("making a graph needs the package onnx, which is not installed; install edgelm[export]") from None

OPSET = 21
IR_VERSION = 10
CONTRIB = "com.microsoft"
_TYPES = {
    np.dtype(np.float32): TensorProto.FLOAT,
    np.dtype(np.int64): TensorProto.INT64,
    np.dtype(np.uint8): TensorProto.UINT8,
}
_CONTRIB_OPS = {
    "CausalConvWithState", "GatedRMSNorm", "GatherBlockQuantized", "LinearAttention", "MatMulNBits", "MoE", "QMoE",
    "QuickGelu", "SkipSimplifiedLayerNormalization",
}  # fmt: skip


class GraphBuilder:
    """Collects nodes, inputs, outputs and constants in the order they are asked for."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._nodes: list[onnx.NodeProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._counter = 0

    def input(self, name: str, dtype: type, shape: Sequence[int | str]) -> str:
        """Declares a graph input; returns its name."""
        self._inputs.append(helper.make_tensor_value_info(name, _TYPES[np.dtype(dtype)], list(shape)))
        return name

    def output(self, name: str, dtype: type, shape: Sequence[int | str]) -> None:
        """Declares that the value ``name`` is a graph output."""
        self._outputs.append(helper.make_tensor_value_info(name, _TYPES[np.dtype(dtype)], list(shape)))

    def constant(self, name: str, array: np.ndarray) -> str:
        """A tensor kept in the graph; the same name twice is the same tensor."""
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def op(self, kind: str, inputs: Sequence[str], outputs: Sequence[str] | None = None, **attributes: Any) -> str:
        """Adds a node; returns its first output, named by itself unless ``outputs`` says so."""
        if outputs is None:
            self._counter += 1
            outputs = [f"{kind}_{self._counter}"]
        domain = CONTRIB if kind in _CONTRIB_OPS else ""
        node = helper.make_node(kind, list(inputs), list(outputs), domain=domain, **attributes)
        self._nodes.append(node)
        return outputs[0]

    def split(self, value: str, sizes: Mapping[str, int], prefix: str) -> list[str]:
        """Cuts the last axis into named parts."""
        names = [prefix + part for part in sizes]
        lengths = self.constant("sizes." + ".".join(map(str, sizes.values())), np.array([*sizes.values()], np.int64))
        self.op("Split", [value, lengths], names, axis=-1)
        return names

    def build(self, metadata: Mapping[str, str]) -> bytes:
        """The checked model, serialised."""
        graph = helper.make_graph(
            self._nodes, self._name, self._inputs, self._outputs, initializer=list(self._constants.values())
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="edgelm")
        helper.set_model_props(model, dict(metadata))
        return model.SerializeToString(deterministic=True)
