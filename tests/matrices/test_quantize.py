"""Matrices as small integers: what is lost, and that ONNX Runtime reads them as they were meant."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgelm.engine.ort_session import OrtSession, run_exported
from edgelm.export.step import build_graph
from edgelm.graph import weighted
from edgelm.matrices.quantize import BLOCK, PRECISIONS, Packed, Precision, dequantize, quantize
from edgelm.measure.score import score_text
from edgelm.model import hub
from edgelm.model.state import state_shapes
from edgelm.model.weights import Weights, is_quantizable, sums_over_first
from edgelm.text.general import general_text
from tests.tiny import MIXERS, random_ids, random_model

KINDS = ("int8", "int4", "ternary")
BITS = {"int8": 8, "int4": 4, "ternary": 2}
EVEN = {
    "d_model": 96, "key_dim": 8, "value_dim": 16, "slope_dim": 32, "n_channels": 4, "block_size": 32, "shared_size": 32,
}  # fmt: skip
"""Sizes that all divide into runs, an odd number of them too."""

matrices = st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(0, 2**32 - 1), st.floats(-7, 3)).map(
    lambda a: (np.random.default_rng(a[2]).standard_normal((a[0], a[1] * BLOCK)) * 10 ** a[3]).astype(np.float32)
)
"""Numbers that float16 scales can hold, of any size in it."""


def _runs(array: np.ndarray) -> np.ndarray:
    return array.reshape(-1, BLOCK)


def _squares(array: np.ndarray, packed: Packed) -> np.ndarray:
    """Squared error of each run."""
    return ((_runs(array) - _runs(dequantize(packed))) ** 2).sum(-1)


@pytest.mark.parametrize("kind", KINDS)
@given(array=matrices)
@settings(max_examples=40, deadline=None)
def test_shapes_and_the_largest_error(kind: str, array: np.ndarray) -> None:
    packed, n_runs = quantize(array, kind), array.shape[-1] // BLOCK
    assert (packed.bits, packed.q.dtype, packed.scale.dtype) == (BITS[kind], np.uint8, np.float16)
    assert packed.q.shape == (len(array), n_runs, BLOCK * packed.bits // 8)
    assert packed.scale.shape == (len(array), n_runs)
    if kind == "int4":
        assert packed.zero_point is not None and packed.zero_point.shape == (len(array), -(-n_runs // 2))
    back = dequantize(packed)
    assert (back.dtype, back.shape) == (np.float32, array.shape)
    runs, tiny = _runs(array), 2.0**-24
    spread = np.maximum(runs.max(-1), 0) - np.minimum(runs.min(-1), 0)
    largest = {"int8": spread / 127, "int4": spread / 5, "ternary": spread}[kind]
    assert (np.abs(runs - _runs(back)).max(-1) <= largest + 128 * tiny).all()


@given(array=matrices)
@settings(max_examples=40, deadline=None)
def test_int4_loses_less_than_even_steps_from_smallest_to_largest(array: np.ndarray) -> None:
    runs = _runs(array).astype(np.float64)
    low, high = np.minimum(runs.min(-1, keepdims=True), 0), np.maximum(runs.max(-1, keepdims=True), 0)
    scale = (high - low) / 15
    zero_point = np.rint(-low / scale)
    plain = (np.clip(np.rint(runs / scale) + zero_point, 0, 15) - zero_point) * scale
    lost = ((runs - plain) ** 2).sum(-1)
    # A fitted scale is rounded to float16: 2^-11 of a number, 2^-25 at least.
    assert (_squares(array, quantize(array, "int4")) <= lost * 1.05 + BLOCK * (15 * 2.0**-24) ** 2).all()


@given(array=matrices)
@settings(max_examples=40, deadline=None)
def test_ternary_finds_the_best_scale(array: np.ndarray) -> None:
    runs = _runs(array).astype(np.float64)
    magnitudes = -np.sort(-np.abs(runs), -1)
    best = np.full(len(runs), np.inf)
    for k in range(1, BLOCK + 1):
        scale = magnitudes[:, :k].mean(-1, keepdims=True)
        kept = np.where(np.arange(BLOCK) < k, scale, 0)
        best = np.minimum(best, ((magnitudes - kept) ** 2).sum(-1))
    assert (_squares(array, quantize(array, "ternary")) <= best * (1 + 1e-3) + BLOCK * 2.0**-48).all()


@given(
    steps=arrays.arrays(np.int8, (2, 64), elements=st.integers(-1, 1)), scale=st.floats(2**-10, 2**10, width=16),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_what_is_ternary_stays(steps: np.ndarray, scale: float) -> None:
    array = steps.astype(np.float32) * np.float32(scale)
    np.testing.assert_array_equal(dequantize(quantize(array, "ternary")), array)


@pytest.mark.parametrize("first", [0, -1, -8, -15])
def test_what_is_16_steps_stays(first: int) -> None:
    steps = np.random.default_rng(0).permuted(np.tile(np.arange(first, first + 16), (4, 4)), axis=1)
    array = steps.astype(np.float32) * np.float32(0.375)
    np.testing.assert_array_equal(dequantize(quantize(array, "int4")), array)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tiny", [0, 1e-45, 1e-12, 1e-7])
def test_zeros_and_tiny_numbers(kind: str, tiny: float) -> None:
    array = np.full((2, 64), tiny, np.float32)
    array[1, :BLOCK] = -1
    back = dequantize(quantize(array, kind))
    np.testing.assert_allclose(back[1, :BLOCK], -1, rtol=1e-3)
    assert np.abs(back[0] - array[0]).max() <= max(tiny, 2.0**-24)


def _as_computed(weights: Weights, precision: Precision) -> Weights:
    """float32 weights, as a graph of this precision holds them."""
    held = dict(weights)
    for name, array in weights.items():
        kind = precision.of(name)
        if kind == "float32" or not is_quantizable(name) or array.shape[0 if sums_over_first(name) else -1] % BLOCK:
            continue
        back = dequantize(quantize(np.ascontiguousarray(array.T) if sums_over_first(name) else array, kind))
        held[name] = np.ascontiguousarray(back.T) if sums_over_first(name) else back
    return held


@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("matrices", ["int4", "ternary"])
@pytest.mark.parametrize("embed", [*KINDS, "float32"])
def test_a_graph_computes_with_what_it_holds(
    mixer: str, matrices: str, embed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weighted, "ACCURACY_LEVEL", 1)
    precision = Precision(matrices, embed)
    config, weights = random_model(mixer, 5, **EVEN)
    ids = random_ids(config, 60)
    graph = build_graph(config, weights, precision)
    expected = OrtSession(build_graph(config), _as_computed(weights, precision)).run(ids, 0)
    session = OrtSession(graph, {})
    for found in (run_exported(graph, ids), np.concatenate([session.run(ids[i : i + 1]).copy() for i in range(60)])):
        assert np.abs(found - expected).max() / np.abs(expected).max() <= 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_a_graph_that_is_not_optimised_is_right_too(kind: str) -> None:
    config, weights = random_model(**EVEN, max_awake=5)
    ids = random_ids(config, 20)
    graph = build_graph(config, weights, Precision(kind, kind))
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    feeds = {name: np.zeros(shape, np.float32) for name, shape in state_shapes(config).items()}
    (found,) = session.run(["logits"], feeds | {"ids": ids[None], "first_logit": np.zeros(1, np.int64)})
    expected = OrtSession(build_graph(config), _as_computed(weights, Precision(kind, kind))).run(ids, 0)
    assert np.median(np.abs(found[0] - expected)) / np.abs(expected).max() <= 0.01


def test_fewer_bits_are_fewer_bytes() -> None:
    config, weights = random_model(**EVEN)
    sizes = [len(build_graph(config, weights, Precision(kind, kind))) for kind in ("float32", *KINDS)]
    assert sizes == sorted(sizes, reverse=True)


def test_what_the_bundled_model_loses() -> None:
    model, text = hub.load(), general_text()[:3000]

    def bits(precision: str) -> float:
        session = OrtSession(build_graph(model.config, model.weights, PRECISIONS[precision]), {})
        return score_text(session, model.tokenizer, model.config, text).bits_per_byte

    exact = bits("none")
    assert abs(bits("int8") / exact - 1) < 0.005
    assert abs(bits("int4") / exact - 1) < 0.02
    assert bits("ternary") / exact - 1 < 0.6
