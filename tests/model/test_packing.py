"""Block-wise int8: what it costs, what it keeps, and the graph that computes with it."""

from __future__ import annotations

import numpy as np
import pytest

from edgelm.engine.ort_session import OrtSession, run_exported
from edgelm.errors import ModelFileError
from edgelm.export.step import build_graph
from edgelm.matrices.matrix import Int8
from edgelm.matrices.quantize import BLOCK, PRECISIONS, dequantize, quantize, to_int8
from edgelm.model.packing import check_packed, integers, is_ternary, narrowed, operand, pack, unpack
from edgelm.model.reference import forward
from edgelm.model.state import empty_state
from edgelm.model.weights import is_quantizable, shapes, sums_over_first, tensors, ternary_names
from tests.tiny import MIXERS, random_ids, random_model

EVEN = {
    "d_model": 64, "key_dim": 8, "value_dim": 16, "slope_dim": 32, "n_channels": 4, "block_size": 32, "shared_size": 32,
}  # fmt: skip
"""Sizes that all divide into runs."""


def from_int8(q: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The inverse of ``to_int8``, float32."""
    return np.asarray(Int8(q.view(np.uint8) ^ np.uint8(128), scale.astype(np.float32)))


def runs_of(array: np.ndarray) -> np.ndarray:
    return array.reshape(*array.shape[:-1], -1, BLOCK)


@pytest.mark.parametrize("shape", [(32,), (3, 64), (2, 5, 96)])
@pytest.mark.parametrize("size", [1e-3, 1, 1e3])
def test_round_trip_is_within_half_a_step(shape: tuple[int, ...], size: float) -> None:
    array = (size * np.random.default_rng(0).standard_normal(shape)).astype(np.float32)
    q, scale = to_int8(array)
    assert (q.dtype, q.shape) == (np.int8, shape)
    assert (scale.dtype, scale.shape) == (np.float16, (*shape[:-1], shape[-1] // BLOCK))
    assert (np.abs(runs_of(q).astype(int)).max(-1) == 127).all(), "all steps are used"
    back = from_int8(q, scale)
    assert (back.dtype, back.shape) == (np.float32, shape)
    # Half a step; float16 may round a scale down by 2^-11 of it, which cuts the largest of 127 steps by 2^-4.
    error = np.abs(runs_of(back) - runs_of(array))
    assert (error <= scale.astype(np.float32)[..., None] * (0.5 + 2**-4)).all()
    largest = np.abs(runs_of(array)).max(-1)
    assert (error.max(-1) <= largest / 127 * 0.563).all()


def test_what_was_quantised_stays() -> None:
    array = np.random.default_rng(0).standard_normal((4, 64)).astype(np.float32)
    once = from_int8(*to_int8(array))
    np.testing.assert_allclose(from_int8(*to_int8(once)), once, rtol=2e-3, atol=0)


@pytest.mark.parametrize("tiny", [0, 1e-45, 1e-12, 1e-8, 1e-6, 1e-5])
def test_zeros_and_tiny_numbers(tiny: float) -> None:
    array = np.full((2, 64), tiny, np.float32)
    array[1, :BLOCK] = -1
    back = from_int8(*to_int8(array))
    np.testing.assert_allclose(back[1, :BLOCK], -1, rtol=1e-3)
    # The smallest float16 are 2^-24 apart, so 127 steps of them are off by 127 2^-25 at most.
    assert np.abs(back[0] - array[0]).max() <= min(tiny, 127 * 2**-25)


@pytest.mark.parametrize("mixer", MIXERS)
def test_pack_and_unpack(mixer: str) -> None:
    config, weights = random_model(mixer, **EVEN)
    packed = pack(weights)
    back = unpack(packed)
    assert {name: array.shape for name, array in back.items()} == shapes(config)
    for name, array in weights.items():
        if name in packed:
            assert packed[name] is array and back[name] is array
            assert not is_quantizable(name) or array.shape[0 if sums_over_first(name) else -1] % BLOCK
            continue
        assert is_quantizable(name)
        assert back[name].dtype == np.float32 and back[name].flags.c_contiguous
        axis = 0 if sums_over_first(name) else -1
        runs = np.moveaxis(packed[name + ".q"], -1, axis) if array.ndim == 2 and axis == 0 else packed[name + ".q"]
        assert runs.shape == array.shape
        assert 0 < np.abs(back[name] - array).max() <= np.abs(array).max() / 127 * 0.563


@pytest.mark.parametrize("name", ["int8", "int4"])
def test_a_packed_file_holds_what_quantising_leaves(name: str) -> None:
    _, weights = random_model(**EVEN)
    precision = PRECISIONS[name]
    packed = pack(weights, precision)
    back = unpack(packed)
    for tensor, array in weights.items():
        if not is_quantizable(tensor):
            assert back[tensor] is array
            continue
        is_turned = sums_over_first(tensor)
        expected = dequantize(quantize(np.ascontiguousarray(array.T) if is_turned else array, precision.of(tensor)))
        np.testing.assert_array_equal(back[tensor], expected.T if is_turned else expected)
    size = sum(array.nbytes for array in packed.values()) / sum(array.nbytes for array in weights.values())
    assert size < {"int8": 0.34, "int4": 0.24}[name]


def test_a_packed_file_holds_ternary_matrices_where_nothing_is_learned() -> None:
    config, weights = random_model(**EVEN)
    names = ternary_names(config)
    packed = pack(weights, ternary=names)
    back, int8 = unpack(packed), unpack(pack(weights))
    ends = {name.rsplit(".", 1)[-1] for name in names}
    assert ends == {"w_in", "w_out", "w1", "shared_w1", "shared_w2"}, "the embedding is read, and w2 learns"
    for name, array in weights.items():
        assert is_ternary(packed, name) == (name in names)
        if name not in names:
            np.testing.assert_array_equal(back[name], int8[name])
            continue
        scale = np.abs(array).mean()
        assert packed[name + ".scale"] == pytest.approx([scale], rel=1e-3)
        assert packed[name + ".q"].nbytes == array.size / 4
        near = np.abs(np.abs(array) / scale - 0.5) < 1e-2
        expected = np.clip(np.rint(array / scale), -1, 1) * scale
        np.testing.assert_allclose(np.where(near, 0, back[name]), np.where(near, 0, expected), rtol=1e-3)
        assert operand(packed, name).nbytes == array.size / 4 + 4
    narrow = narrowed(packed)
    assert narrow["layers.0.ffn.w1.scale"].dtype == np.float16


def test_a_ternary_file_is_checked() -> None:
    config, weights = random_model(**EVEN)
    packed, w1, w2 = pack(weights, ternary=ternary_names(config)), "layers.0.ffn.w1", "layers.0.ffn.w2"
    check_packed(packed, config, "a/file")
    q, scale = packed[w1 + ".q"], packed[w1 + ".scale"]
    learning = pack(weights, ternary={w2})
    cases = {
        rf"{w1}.q is uint8": packed | {w1 + ".q": q[1:]},
        rf"{w1}.q is float32": packed | {w1 + ".q": q.astype(np.float32)},
        rf"{w1}.scale is float32 \(2,\)": packed | {w1 + ".scale": np.ones(2, np.float32)},
        rf"{w1}.scale is float64": packed | {w1 + ".scale": scale.astype(np.float64)},
        rf"{w1} holds values that are not": packed | {w1 + ".scale": scale * np.float32("nan")},
        rf"{w1}.q is uint8 .*, expected uint8 ": packed | {w1 + ".zero": q},
        rf"{w2}.q is uint8": learning,
    }
    for says, broken in cases.items():
        with pytest.raises(ModelFileError, match=says):
            check_packed(broken, config, "a/file")


def test_packed_as_none_is_what_it_was() -> None:
    _, weights = random_model(**EVEN)
    assert all(pack(weights, PRECISIONS["none"])[name] is array for name, array in weights.items())


def test_matrices_that_do_not_divide_stay_as_they_are() -> None:
    _, weights = random_model()
    packed = pack(weights)
    assert packed.keys() == weights.keys()
    assert unpack(packed).keys() == weights.keys()


@pytest.mark.parametrize("name", ["none", "int8", "int4"])
def test_a_file_is_checked(name: str) -> None:
    config, weights = random_model(**EVEN)
    packed = pack(weights, PRECISIONS[name])
    check_packed(packed, config, "a/file")
    cases = {
        "lacks 'final_norm'": {k: v for k, v in packed.items() if k != "final_norm"},
        "unknown tensor 'extra'": packed | {"extra": np.zeros(1, np.float32)},
        "unknown tensor 'extra.scale'": packed | {"extra.scale": np.zeros(1, np.float16)},
        r"final_norm is \(63,\), expected \(64,\)": packed | {"final_norm": weights["final_norm"][1:]},
        "final_norm is float64": packed | {"final_norm": weights["final_norm"].astype(np.float64)},
        "final_norm holds values that are not finite": packed | {"final_norm": weights["final_norm"] * np.nan},
    }
    w2 = "layers.0.ffn.w2"
    for end in (".q", ".scale", ".zero"):
        if (array := packed.get(w2 + end)) is not None:
            expected = rf"w2{end} is {array.dtype} .*, expected {array.dtype} "
            cases[expected] = packed | {w2 + end: array[1:]}
            cases[rf"w2{end} is float64"] = packed | {w2 + end: array.astype(np.float64)}
    if w2 + ".scale" in packed:
        cases["w2.scale is missing"] = {k: v for k, v in packed.items() if k != w2 + ".scale"}
        cases[f"{w2} has scales below 0"] = packed | {w2 + ".scale": -packed[w2 + ".scale"]}
        cases[rf"{w2} holds values that are not"] = packed | {
            w2 + ".scale": packed[w2 + ".scale"] * packed[w2 + ".scale"].dtype.type("inf")
        }
    for says, broken in cases.items():
        with pytest.raises(ModelFileError, match=says) as raised:
            check_packed(broken, config, "a/file")
        assert str(raised.value).startswith("a/file")


@pytest.mark.parametrize("name", ["none", "int8", "int4", "ternary"])
def test_integers_of_any_file(name: str) -> None:
    config, weights = random_model(**EVEN)
    packed = pack(weights, ternary=ternary_names(config)) if name == "ternary" else pack(weights, PRECISIONS[name])
    plain = unpack(packed)
    assert not any(array.dtype == np.int8 for array in packed.values())
    for tensor, spec in tensors(config).items():
        if not spec.divides:
            continue
        q, scale = integers(packed, tensor, blocks=spec.blocks)
        assert (q.dtype, scale.dtype) == (np.uint8, np.float32)
        rows = plain[tensor].T if sums_over_first(tensor) else plain[tensor]
        assert q.shape == (rows.shape if spec.blocks else (*scale.shape, BLOCK))
        assert scale.shape == (*rows.shape[:-1], rows.shape[-1] // BLOCK)
        values = (q.reshape(*scale.shape, BLOCK).astype(np.float32) - 128) * scale[..., None]
        atol = 0 if name == "int8" else 0.563 * float(scale.max())
        np.testing.assert_allclose(values.reshape(rows.shape), rows, rtol=0, atol=atol)


@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("max_awake", [2, 5])
def test_int8_graph_is_close_to_the_reference(mixer: str, max_awake: int) -> None:
    config, weights = random_model(mixer, 5, **EVEN, max_awake=max_awake)
    weights = unpack(pack(weights))
    ids = random_ids(config, 60)
    expected, _, _ = forward(ids, weights, empty_state(config), config)
    graph = build_graph(config, weights, PRECISIONS["int8"])
    assert len(graph) < 0.5 * len(build_graph(config, weights))
    session = OrtSession(graph, {})
    for found in (run_exported(graph, ids), np.concatenate([session.run(ids[i : i + 1]).copy() for i in range(60)])):
        # Products round what comes in to int8 too. Under a cap that now and then wakes another block, most of all where
        # every token wakes as many as it may.
        difference = np.abs(found - expected) / np.abs(expected).max()
        assert np.median(difference) <= 0.01
        assert difference.max() <= ((0.3 if mixer == "top_k" else 0.2) if max_awake < config.n_blocks else 0.1)
