"""Writes ONNX graphs, field by field (onnx.proto of the ONNX project), without a library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgelm.graph.protobuf import message, number, real, text

Attribute = int | float | str | Sequence[int]
OPSET = 21
IR_VERSION = 10
CONTRIB = "com.microsoft"
_TYPES = {
    np.dtype(kind): number_of
    for kind, number_of in ((np.float32, 1), (np.uint8, 2), (np.int8, 3), (np.int64, 7), (np.float16, 10))
}
_CONTRIB_OPS = {
    "CausalConvWithState", "GatedRMSNorm", "GatherBlockQuantized", "LinearAttention", "MatMulNBits", "MoE", "QMoE",
    "QuickGelu", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization",
}  # fmt: skip
# Numbers of fields, message by message.
_MODEL_VERSION, _MODEL_PRODUCER, _MODEL_GRAPH, _MODEL_OPSET, _MODEL_METADATA = 1, 2, 7, 8, 14
_OPSET_DOMAIN, _OPSET_VERSION = 1, 2
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
_GRAPH_NODE, _GRAPH_NAME, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT = 1, 2, 5, 11, 12
_NODE_INPUT, _NODE_OUTPUT, _NODE_OPERATOR, _NODE_ATTRIBUTE, _NODE_DOMAIN = 1, 2, 4, 5, 7
_ATTRIBUTE_NAME, _ATTRIBUTE_F, _ATTRIBUTE_I, _ATTRIBUTE_S, _ATTRIBUTE_INTS, _ATTRIBUTE_TYPE = 1, 2, 3, 4, 8, 20
_IS_FLOAT, _IS_INT, _IS_STRING, _IS_INTS = 1, 2, 3, 7
_VALUE_NAME, _VALUE_TYPE, _TYPE_TENSOR, _TENSOR_ELEMENT, _TENSOR_SHAPE = 1, 2, 1, 1, 2
_SHAPE_DIMENSION, _DIMENSION_VALUE, _DIMENSION_NAME = 1, 1, 2
_TENSOR_SIZES, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_RAW, _TENSOR_EXTERNAL, _TENSOR_LOCATION = 1, 2, 8, 9, 13, 14
_ELSEWHERE = 1


class GraphBuilder:
    """Collects nodes, inputs, outputs and constants in the order they are asked for."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._nodes: list[bytes] = []
        self._inputs: dict[str, bytes] = {}
        self._outputs: list[bytes] = []
        self._constants: dict[str, bytes] = {}
        self._counter = 0

    def input(self, name: str, dtype: type, shape: Sequence[int | str]) -> str:
        """Declares a graph input; returns its name."""
        self._inputs[name] = _value(name, dtype, shape)
        return name

    def output(self, name: str, dtype: type, shape: Sequence[int | str]) -> None:
        """Declares that the value ``name`` is a graph output."""
        self._outputs.append(_value(name, dtype, shape))

    def constant(self, name: str, array: np.ndarray) -> str:
        """A tensor kept in the graph; the same name twice is the same tensor."""
        if name not in self._constants:
            data = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
            self._constants[name] = _tensor(name, array) + message(_TENSOR_RAW, data)
        return name

    def declare(self, name: str, array: np.ndarray) -> None:
        """A constant of this shape and type, instead of an input of this name if there is one; its numbers are given by
        whoever loads the graph (``SessionOptions.add_external_initializers``)."""
        self._inputs.pop(name, None)
        where = text(_ENTRY_KEY, "location") + text(_ENTRY_VALUE, "memory")
        elsewhere = message(_TENSOR_EXTERNAL, where) + number(_TENSOR_LOCATION, _ELSEWHERE)
        self._constants[name] = _tensor(name, array) + elsewhere

    def op(self, kind: str, inputs: Sequence[str], outputs: Sequence[str] | None = None, **attributes: Any) -> str:
        """Adds a node; returns its first output, named by itself unless ``outputs`` says so."""
        if outputs is None:
            self._counter += 1
            outputs = [f"{kind}_{self._counter}"]
        parts = [text(_NODE_INPUT, name) for name in inputs]
        parts += [text(_NODE_OUTPUT, name) for name in outputs]
        parts.append(text(_NODE_OPERATOR, kind))
        parts += [message(_NODE_ATTRIBUTE, _attribute(name, value)) for name, value in sorted(attributes.items())]
        if kind in _CONTRIB_OPS:
            parts.append(text(_NODE_DOMAIN, CONTRIB))
        self._nodes.append(b"".join(parts))
        return outputs[0]

    def split(self, value: str, sizes: Mapping[str, int], prefix: str) -> list[str]:
        """Cuts the last axis into named parts."""
        names = [prefix + part for part in sizes]
        lengths = self.constant("sizes." + ".".join(map(str, sizes.values())), np.array([*sizes.values()], np.int64))
        self.op("Split", [value, lengths], names, axis=-1)
        return names

    def build(self, metadata: Mapping[str, str]) -> bytes:
        """The file."""
        graph = [message(_GRAPH_NODE, node) for node in self._nodes]
        graph.append(text(_GRAPH_NAME, self._name))
        graph += [message(_GRAPH_INITIALIZER, tensor) for tensor in self._constants.values()]
        graph += [message(_GRAPH_INPUT, value) for value in self._inputs.values()]
        graph += [message(_GRAPH_OUTPUT, value) for value in self._outputs]
        model = [number(_MODEL_VERSION, IR_VERSION), text(_MODEL_PRODUCER, "edgelm")]
        model.append(message(_MODEL_GRAPH, b"".join(graph)))
        for domain, version in (("", OPSET), (CONTRIB, 1)):
            model.append(message(_MODEL_OPSET, text(_OPSET_DOMAIN, domain) + number(_OPSET_VERSION, version)))
        for key, entry in metadata.items():
            model.append(message(_MODEL_METADATA, text(_ENTRY_KEY, key) + text(_ENTRY_VALUE, entry)))
        return b"".join(model)


def _value(name: str, dtype: type, shape: Sequence[int | str]) -> bytes:
    """A ValueInfoProto; a size that is a name is free."""
    dimensions = (
        number(_DIMENSION_VALUE, size) if isinstance(size, int) else text(_DIMENSION_NAME, size) for size in shape
    )
    sizes = b"".join(message(_SHAPE_DIMENSION, dimension) for dimension in dimensions)
    tensor = number(_TENSOR_ELEMENT, _TYPES[np.dtype(dtype)]) + message(_TENSOR_SHAPE, sizes)
    return text(_VALUE_NAME, name) + message(_VALUE_TYPE, message(_TYPE_TENSOR, tensor))


def _tensor(name: str, array: np.ndarray) -> bytes:
    """A TensorProto without its data."""
    sizes = b"".join(number(_TENSOR_SIZES, size) for size in array.shape)
    return sizes + number(_TENSOR_TYPE, _TYPES[array.dtype]) + text(_TENSOR_NAME, name)


def _attribute(name: str, value: Attribute) -> bytes:
    """An AttributeProto."""
    if isinstance(value, float):
        body, kind = real(_ATTRIBUTE_F, value), _IS_FLOAT
    elif isinstance(value, int):
        body, kind = number(_ATTRIBUTE_I, value), _IS_INT
    elif isinstance(value, str):
        body, kind = text(_ATTRIBUTE_S, value), _IS_STRING
    else:
        body, kind = b"".join(number(_ATTRIBUTE_INTS, item) for item in value), _IS_INTS
    return text(_ATTRIBUTE_NAME, name) + body + number(_ATTRIBUTE_TYPE, kind)
