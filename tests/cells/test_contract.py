"""What every kind of layer part must keep to: its paper, its passes and its graph compute the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from edgelm.cells.cell import Array, Cell, Parts
from edgelm.cells.table import CELLS, graph_of, passes_of
from edgelm.graph.weighted import F32, FLOAT, WeightedGraph
from edgelm.matrices.matrix import Int8, workspace_size
from edgelm.matrices.quantize import to_int8
from edgelm.model.config import ModelConfig
from tests import naive
from tests.cells.examples import EVEN, SIZES, example
from tests.kernels.arrays import in_double

MOST = 17
RUNS = (1, 5, 1, MOST, 2, 1)
"""Tokens of one segment after the other."""
EPS = 1e-5

pytestmark = pytest.mark.parametrize("kind", CELLS)


def random_parts(cell: Cell, dtype: type = np.float64, seed: int = 0) -> Parts:
    """Weights of one layer, no number of which is special."""
    rng = np.random.default_rng(seed)
    return {
        name: (spec.mean + (spec.spread or spec.shape[-2] ** -0.5) * rng.standard_normal(spec.shape)).astype(dtype)
        for name, spec in cell.tensors().items()
    }


def stream(cell: Cell, n_steps: int = sum(RUNS), dtype: type = np.float64) -> Array:
    """A residual stream [T,D]."""
    return np.random.default_rng(1).standard_normal((n_steps, cell.d_model)).astype(dtype)


def empty(shapes: dict[str, tuple[int, ...]], dtype: type = np.float64) -> Parts:
    return {name: np.zeros(shape, dtype) for name, shape in shapes.items()}


def by_paper(cell: Cell, weights: Parts, x: Array, runs: tuple[int, ...] = RUNS) -> tuple[Array, Parts, Parts]:
    """What the part gives over segments of these lengths, and its state and what it shares after them."""
    state, shared, out = empty(cell.state(), x.dtype.type), empty(cell.shared_state(), x.dtype.type), []
    for part in np.split(x, np.cumsum(runs)[:-1]):
        out.append(cell.forward(part, weights, state, dict(shared)))
        cell.advance(shared, len(part))
    return np.concatenate(out), state, shared


def make_pass(cell: Cell, weights: Any, grads: Parts, dtype: type) -> Any:
    most = max(workspace_size(MOST, shape) for shape in _matrices(cell))
    return passes_of(cell).Pass(cell, weights, grads, MOST, {"workspace": np.full(most, np.nan, dtype)})


def _matrices(cell: Cell) -> list[tuple[int, ...]]:
    return [spec.shape for spec in cell.tensors().values() if len(spec.shape) == 2]


def by_passes(cell: Cell, weights: Any, x: Array) -> tuple[Array, Parts, Parts]:
    """The same by kernels."""
    dtype = x.dtype.type
    made = make_pass(cell, weights, empty({n: s.shape for n, s in cell.tensors().items()}, dtype), dtype)
    state, shared, out = empty(cell.state(), dtype), empty(cell.shared_state(), dtype), np.zeros_like(x)
    start = 0
    for n in RUNS:
        part = slice(start, start + n)
        made.forward(x[part], out[part], state, dict(shared))
        cell.advance(shared, n)
        start += n
    return out, state, shared


def assert_close(found: tuple[Array, Parts, Parts], expected: tuple[Array, Parts, Parts], bound: float) -> None:
    pairs = [(found[0], expected[0])]
    pairs += [(found[i][name], expected[i][name]) for i in (1, 2) for name in expected[i]]
    for one, other in pairs:
        assert one.shape == other.shape
        assert np.abs(one - other).max() <= bound * np.abs(other).max()


def test_there_is_an_example_of_each_kind(kind: str) -> None:
    assert kind in SIZES and kind in EVEN
    cell = example(kind)
    assert kind == cell.KIND and type(cell).__module__ == f"edgelm.cells.{kind}.paper"


def test_what_it_declares_fits_together(kind: str) -> None:
    cell = example(kind)
    tensors = cell.tensors()
    assert tensors["norm"].shape == (cell.d_model,), "the gain of the norm before it"
    for name, axis in cell.MATRICES.items():
        assert tensors[name].sums in (axis, None), name
    assert not cell.state().keys() & set("norm")
    assert all(shape[0] == 1 for shape in [*cell.state().values(), *cell.shared_state().values()])
    assert any(spec.learns for spec in tensors.values())
    others = {name: axis for other in CELLS.values() for name, axis in other.MATRICES.items()}
    assert cell.MATRICES.items() <= others.items(), "a matrix's name means the same in all cells"


def test_its_sizes_come_back_from_a_file(kind: str) -> None:
    parts = {"mixer": example("gated_delta"), "ffn": example("block_ffn")}
    place = "ffn" if hasattr(example(kind), "n_blocks") else "mixer"
    config = ModelConfig(23, 12, 2, **(parts | {place: example(kind)}))
    assert ModelConfig.from_dict(config.to_dict()) == config


def test_steps_are_the_segment(kind: str) -> None:
    cell = example(kind)
    weights, x = random_parts(cell), stream(cell)
    assert_close(by_paper(cell, weights, x, (1,) * len(x)), by_paper(cell, weights, x), 1e-12)


@pytest.mark.parametrize(("dtype", "bound"), [pytest.param(np.float64, 1e-12, marks=in_double), (np.float32, 1e-5)])
def test_passes_are_the_paper(kind: str, dtype: type, bound: float) -> None:
    cell = example(kind)
    weights, x = random_parts(cell), stream(cell)
    found = by_passes(cell, {name: w.astype(dtype) for name, w in weights.items()}, x.astype(dtype))
    assert_close(found, by_paper(cell, weights, x), bound)


def test_passes_with_integers_are_those_with_their_numbers(kind: str) -> None:
    cell = example(kind, even=True)
    floats, integers = random_parts(cell, np.float32), {}
    for name, spec in cell.tensors().items():
        integers[name] = floats[name]
        if spec.sums is not None:
            turned = floats[name].T if spec.sums == 0 else floats[name]
            q, scale = to_int8(np.ascontiguousarray(turned))
            integers[name] = Int8(q.view(np.uint8) ^ np.uint8(128), scale.astype(np.float32))
            numbers = np.asarray(integers[name])
            floats[name] = np.ascontiguousarray(numbers.T if spec.sums == 0 else numbers)
    x = stream(cell, dtype=np.float32)
    assert_close(by_passes(cell, integers, x), by_passes(cell, floats, x), 1e-4)


@in_double
def test_gradients_are_differences(kind: str) -> None:
    cell = example(kind)
    weights, x = random_parts(cell, seed=3), stream(cell, 9)
    dy, before = np.random.default_rng(2).standard_normal((2, *x.shape))
    grads = {name: np.full(spec.shape, 7.0) for name, spec in cell.tensors().items()}
    made, state = make_pass(cell, weights, grads, np.float64), by_paper(cell, weights, stream(cell))[1]
    shared = by_paper(cell, weights, stream(cell))[2]

    def total() -> float:
        parts = {name: array.copy() for name, array in state.items()}
        return float(np.sum(dy * cell.forward(x, weights, parts, dict(shared))))

    awake = cell.activations(x, weights, state) > 0
    made.forward(x, np.zeros_like(x), {name: array.copy() for name, array in state.items()}, dict(shared))
    dx = before.copy()
    made.backward(dy, dx)
    for found, array in [(dx - before, x), *((grads[name], weights[name]) for name in weights)]:
        expected = naive.gradient(total, array, EPS)
        if (asleep := (found == 7).reshape(len(found), -1).all(1)).any():
            assert len(found) == awake.shape[1] and not awake.any(0)[asleep].any(), "left as it was: it slept"
            found[asleep] = 0
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_the_graph_is_the_paper(kind: str) -> None:
    cell = example(kind)
    weights, x = random_parts(cell), stream(cell)
    specs = {f"layers.0.part.{name}": spec for name, spec in cell.tensors().items()}
    named = {f"layers.0.part.{name}": array.astype(np.float32) for name, array in weights.items()}
    graph = WeightedGraph(specs, named, FLOAT)
    g = graph.g
    g.input("ids", np.int64, (1, "T"))
    g.input("x", F32, (1, "T", cell.d_model))
    g.output("y", F32, (1, "T", cell.d_model))
    state = {f"state.0.{name}": shape for name, shape in cell.state().items()}
    state |= {f"state.norm.{name}": shape for name, shape in cell.shared_state().items()}
    for name, shape in state.items():
        g.input(name, F32, shape)
        g.output("next." + name, F32, shape)
    h = "layers.0.part.norm.out"
    given = ["x", graph.weight("layers.0.part.norm")]
    if "norm_bias" in weights:
        g.op("LayerNormalization", [*given, graph.weight("layers.0.part.norm_bias")], [h], epsilon=1e-5, axis=-1)
    else:
        g.op("SimplifiedLayerNormalization", given, [h], epsilon=1e-5, axis=-1)
    shared = graph_of(cell).begin(graph, cell, "ids")
    g.op("Identity", [graph_of(cell).build(graph, cell, "layers.0.part.", 0, h, shared)], ["y"])
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(g.build({}), options, providers=["CPUExecutionProvider"])
    now, out = empty(state, np.float32), []
    runs = RUNS if cell.STEPS is None else (cell.STEPS,) * len(x)
    for part in np.split(x.astype(np.float32), np.cumsum(runs)[:-1]):
        feeds = {"ids": np.zeros((1, len(part)), np.int64), "x": part[None]} | now
        used = {item.name for item in session.get_inputs()}
        given = {name: array for name, array in feeds.items() if name in used}
        y, *rest = session.run(["y", *("next." + name for name in state)], given)
        out.append(y[0])
        now = dict(zip(state, rest, strict=True))
    found = {name.rpartition(".")[2]: array for name, array in now.items() if not name.startswith("state.norm.")}
    counts = {name.rpartition(".")[2]: array for name, array in now.items() if name.startswith("state.norm.")}
    assert_close((np.concatenate(out), found, counts), by_paper(cell, weights, x), 1e-5)
