"""What must not reach ONNX Runtime is refused."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgelm.config import PRESETS
from edgelm.engine.graphfile import check_graph, declare
from edgelm.errors import ModelFileError
from edgelm.export.step import build_graph


def graph(node: object, initializer: TensorProto | None = None) -> bytes:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    inner = helper.make_graph([node], "g", [x], [y], initializer=[initializer] if initializer else [])
    return helper.make_model(inner).SerializeToString()  # type: ignore[no-any-return]


def test_a_step_graph_passes() -> None:
    check_graph(build_graph(PRESETS["nano"]))
    check_graph(graph(helper.make_node("Relu", ["x"], ["y"])))


def test_tensors_are_declared_as_onnx_has_them() -> None:
    plain = graph(helper.make_node("Add", ["x", "w"], ["y"]))
    tensors = {"w": np.zeros((2, 300), np.float32), "q": np.zeros(3, np.uint8), "none": np.zeros((0, 2), np.float32)}
    joined = onnx.load_from_string(declare(plain, tensors))
    found = {t.name: (tuple(t.dims), helper.tensor_dtype_to_np_dtype(t.data_type)) for t in joined.graph.initializer}
    assert found == {name: (array.shape, array.dtype) for name, array in tensors.items()}
    assert all(t.data_location == TensorProto.EXTERNAL and not t.raw_data for t in joined.graph.initializer)
    del joined.graph.initializer[:]
    assert joined == onnx.load_from_string(plain) == onnx.load_from_string(declare(plain, {}))


def test_an_input_that_is_declared_is_none_any_more() -> None:
    plain = onnx.load_from_string(build_graph(PRESETS["nano"]))
    name = plain.graph.input[-1].name
    joined = onnx.load_from_string(declare(plain.SerializeToString(), {name: np.zeros(3, np.float32)}))
    assert [tensor.name for tensor in joined.graph.initializer if tensor.external_data] == [name]
    assert [item.name for item in joined.graph.input] == [item.name for item in plain.graph.input[:-1]]
    assert joined.graph.node == plain.graph.node and joined.metadata_props == plain.metadata_props


def test_external_data_is_refused() -> None:
    tensor = numpy_helper.from_array(np.ones(1, np.float32), "w")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"
    with pytest.raises(ModelFileError, match="another file"):
        check_graph(graph(helper.make_node("Add", ["x", "w"], ["y"]), tensor))


def test_control_flow_is_refused() -> None:
    body = helper.make_graph([], "b", [], [])
    node = helper.make_node("If", ["x"], ["y"], then_branch=body, else_branch=body)
    with pytest.raises(ModelFileError, match="control flow"):
        check_graph(graph(node))


def test_a_foreign_domain_is_refused() -> None:
    with pytest.raises(ModelFileError, match=r"evil\.org"):
        check_graph(graph(helper.make_node("Relu", ["x"], ["y"], domain="evil.org")))


@given(st.binary(max_size=200))
def test_noise_is_refused_or_harmless(blob: bytes) -> None:
    with pytest.raises(ModelFileError):
        check_graph(blob)


@pytest.mark.parametrize("cut", [1, 100, 5000])
def test_a_cut_file_is_refused(cut: int) -> None:
    with pytest.raises(ModelFileError):
        check_graph(build_graph(PRESETS["nano"])[:-cut])
