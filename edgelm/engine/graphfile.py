"""Reads just enough of an ONNX file to refuse what must not reach ONNX Runtime, and gives a graph its weights.

A step graph is plain data flow: nodes of two domains, no control flow, nothing read from other files.
The file is protobuf; its fields are walked without a protobuf library, so that answering needs no onnx.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from edgelm.errors import ModelFileError

DOMAINS = ("", "ai.onnx", "com.microsoft")
# Field numbers of onnx.proto3.
_MODEL_GRAPH, _MODEL_FUNCTIONS = 7, 25
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_SPARSE = 1, 5, 11, 15
_INPUT_NAME = 1
_NODE_OPERATOR, _NODE_ATTRIBUTE, _NODE_DOMAIN = 4, 5, 7
_ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS = 5, 6, 11
_TENSOR_SIZES, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_EXTERNAL, _TENSOR_LOCATION = 1, 2, 8, 13, 14
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
_TYPES = {np.dtype(np.float32): 1, np.dtype(np.uint8): 2}


def check_graph(blob: bytes) -> None:
    """Raises ``ModelFileError`` unless ``blob`` is a graph without external data, subgraphs or foreign domains."""
    try:
        graphs = [value for number, value in _fields(blob) if number == _MODEL_GRAPH]
        if len(graphs) != 1 or any(number == _MODEL_FUNCTIONS for number, _ in _fields(blob)):
            raise ModelFileError("step.onnx: not one plain graph; get the model again")
        for number, value in _fields(_message(graphs[0])):
            if number == _GRAPH_NODE:
                _check_node(_message(value))
            elif number == _GRAPH_INITIALIZER:
                _check_tensor(_message(value))
            elif number == _GRAPH_SPARSE:
                raise ModelFileError("step.onnx: has sparse tensors, which no step graph has; get the model again")
    except (IndexError, ValueError):
        raise ModelFileError("step.onnx: not an ONNX file; get the model again") from None


def declare(graph: bytes, tensors: Mapping[str, np.ndarray]) -> bytes:
    """The graph with initialisers of these names, shapes and types (float32 or uint8), which it names and lacks, or has
    as inputs.

    Their data is said to lie elsewhere: whoever loads the graph has to give it
    (``SessionOptions.add_external_initializers``). Protobuf merges what follows into the message before it, so this is
    the graph and a few bytes for each tensor.
    """
    parts = [_field(_GRAPH_INITIALIZER, _declaration(name, array)) for name, array in tensors.items()]
    return _without_inputs(graph, set(tensors)) + _field(_MODEL_GRAPH, b"".join(parts))


def _without_inputs(graph: bytes, names: set[str]) -> bytes:
    def is_dropped(number: int, value: bytes | int) -> bool:
        return number == _GRAPH_INPUT and _text(_message(value), _INPUT_NAME) in names

    parts = []
    for number, value in _fields(graph):
        if number == _MODEL_GRAPH:
            fields = [field for field in _fields(_message(value)) if not is_dropped(*field)]
            value = b"".join(_number(n, x) if isinstance(x, int) else _field(n, x) for n, x in fields)
        parts.append(_number(number, value) if isinstance(value, int) else _field(number, value))
    return b"".join(parts)


def _text(message: bytes, field: int) -> str:
    return next((_message(x).decode("utf-8", "replace") for n, x in _fields(message) if n == field), "")


def _declaration(name: str, array: np.ndarray) -> bytes:
    sizes = b"".join(_number(_TENSOR_SIZES, size) for size in array.shape)
    where = _field(_ENTRY_KEY, b"location") + _field(_ENTRY_VALUE, b"memory")
    is_elsewhere = _field(_TENSOR_EXTERNAL, where) + _number(_TENSOR_LOCATION, 1)
    return sizes + _number(_TENSOR_TYPE, _TYPES[array.dtype]) + _field(_TENSOR_NAME, name.encode()) + is_elsewhere


def _number(number: int, value: int) -> bytes:
    return _to_varint(number << 3) + _to_varint(value)


def _field(number: int, value: bytes) -> bytes:
    return _to_varint(number << 3 | 2) + _to_varint(len(value)) + value


def _to_varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def _check_node(node: bytes) -> None:
    domain, operator = "", ""
    for number, value in _fields(node):
        if number == _NODE_DOMAIN:
            domain = _message(value).decode("utf-8", "replace")
        elif number == _NODE_OPERATOR:
            operator = _message(value).decode("utf-8", "replace")
        elif number == _NODE_ATTRIBUTE:
            for field, part in _fields(_message(value)):
                if field in (_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS):
                    raise ModelFileError("step.onnx: has control flow, which no step graph has; get the model again")
                if field == _ATTRIBUTE_TENSOR:
                    _check_tensor(_message(part))
    if domain not in DOMAINS:
        raise ModelFileError(f"step.onnx: operator {operator!r} of an unknown domain {domain!r}; get the model again")


def _check_tensor(tensor: bytes) -> None:
    for number, value in _fields(tensor):
        if number == _TENSOR_EXTERNAL or (number == _TENSOR_LOCATION and value != 0):
            raise ModelFileError("step.onnx: wants data of another file, which no step graph does; get the model again")


def _message(value: bytes | int) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number where a message was expected")
    return value


def _fields(blob: bytes) -> Iterator[tuple[int, bytes | int]]:
    """(number, value) of each field of a message; a value is bytes or, of numbers, an int."""
    position = 0
    while position < len(blob):
        tag, position = _varint(blob, position)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, position = _varint(blob, position)
            yield number, value
            continue
        if wire == 2:
            size, position = _varint(blob, position)
        else:
            size = {1: 8, 5: 4}.get(wire, -1)
        if size < 0 or position + size > len(blob):
            raise ValueError("cut or foreign")
        yield number, blob[position : position + size]
        position += size


def _varint(blob: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = blob[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise ValueError("a number without end")
