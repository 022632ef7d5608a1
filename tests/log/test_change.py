"""The learned change as tensors: what is kept of it, and what is refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from edgelm.errors import DivergenceError
from edgelm.log.change import apply_change, digest, misfit, pack_change
from edgelm.matrices.changed import ChangedRows
from edgelm.matrices.matrix import Int8
from edgelm.matrices.quantize import to_int8
from edgelm.model.config import ModelConfig
from edgelm.model.weights import Weights, adaptable_names, shapes, tensors
from tests.tiny import random_model, tiny_config

W2, GAIN = "layers.0.ffn.w2", "final_norm"
BLOCKS = W2 + ".blocks"


def _base(config: ModelConfig, weights: Weights) -> Weights:
    return {name: weights[name].copy() for name in adaptable_names(config)}


def _learn(config: ModelConfig, weights: Weights, scale: float, seed: int = 1) -> None:
    """Changes two blocks of the first layer, all of the second's, and every other tensor."""
    rng = np.random.default_rng(seed)
    for name in adaptable_names(config):
        part = weights[name][[1, 3]] if name.startswith("layers.0") and tensors(config)[name].blocks else weights[name]
        changed = part + rng.normal(0, scale, part.shape).astype(np.float32)
        weights[name][[1, 3] if part.shape != weights[name].shape else slice(None)] = changed


@pytest.mark.parametrize("scale", [1e-8, 1e-5, 1e-2, 1.0])
def test_it_comes_back_and_is_rounded_once(scale: float) -> None:
    config, weights = random_model()
    base = _base(config, weights)
    _learn(config, weights, scale)
    learned = {name: weights[name].copy() for name in base}
    changes = pack_change(weights, base, config)
    assert misfit(changes, config) == ""
    apply_change(changes, base, weights)
    for name, array in learned.items():
        change = np.abs(array - base[name])
        # Half a step of float16, and float32's own rounding of the sum.
        assert (np.abs(weights[name] - array) <= change * 2**-11 + 2**-25 + np.abs(array) * 2**-23).all(), name
    once = {name: weights[name].copy() for name in base}
    for _ in range(3):
        again = pack_change(weights, base, config)
        apply_change(again, base, weights)
        for name, array in once.items():
            np.testing.assert_array_equal(weights[name], array)


def test_without_a_copy_it_says_the_same() -> None:
    config, weights = random_model()
    base = _base(config, weights)
    _learn(config, weights, 1e-2)
    copied, other = (pack_change(weights, base, config, copy=copy) for copy in (True, False))
    expected = {name: array.copy() for name, array in base.items()}
    apply_change(copied, base, expected)
    assert misfit(other, config) == ""
    apply_change(other, base, weights)
    for name, array in expected.items():
        np.testing.assert_array_equal(weights[name], array)


def test_some_blocks_at_a_time_are_what_all_are(monkeypatch: pytest.MonkeyPatch) -> None:
    config, weights = random_model()
    base = _base(config, weights)
    _learn(config, weights, 1e-2)
    at_once = pack_change(weights, base, config)
    found = {name: array.copy() for name, array in base.items()}
    monkeypatch.setattr("edgelm.matrices.changed._NUMBERS", 1)
    one_by_one = pack_change(weights, base, config)
    assert list(one_by_one) == list(at_once)
    for name, array in at_once.items():
        np.testing.assert_array_equal(one_by_one[name], array)
    apply_change(one_by_one, base, found)
    for name, array in base.items():
        change, blocks = at_once.get(name), at_once.get(name + ".blocks")
        expected = array.copy()
        if change is not None:
            expected[... if blocks is None else blocks] += change.astype(np.float32)
        np.testing.assert_array_equal(found[name], expected)


def test_changed_rows_need_no_copy_where_most_changed() -> None:
    rng = np.random.default_rng(0)
    q, scale = to_int8(rng.standard_normal((96, 32)).astype(np.float32))
    base = Int8(q.view(np.uint8) ^ np.uint8(128), scale.astype(np.float32))
    config = tiny_config("rwkv7", d_model=32)
    name, weights = "layers.0.ffn.value", ChangedRows(base)
    others = {other: np.zeros(shape, np.float32) for other, shape in shapes(config).items()}
    for n_changed, is_view in ((95, True), (40, False)):
        change = np.zeros((96, 32), np.float16)
        change[:n_changed] = rng.standard_normal((n_changed, 32))
        weights.set_change(change)
        changes = pack_change(others | {name: weights}, others | {name: base}, config, copy=False)
        assert np.shares_memory(changes[name], weights.change) == is_view
        assert len(changes[name + ".blocks"]) == (96 if is_view else n_changed)
        again = ChangedRows(base)
        again.set_change(changes[name], changes[name + ".blocks"])
        np.testing.assert_array_equal(again.change, change)


def test_only_what_changed_is_kept() -> None:
    config, weights = random_model()
    base = _base(config, weights)
    assert pack_change(weights, base, config) == {}
    _learn(config, weights, 1e-2)
    weights["layers.1.mixer.norm"][:] = base["layers.1.mixer.norm"]
    changes = pack_change(weights, base, config)
    np.testing.assert_array_equal(changes[BLOCKS], [1, 3])
    assert changes[BLOCKS].dtype == np.int32
    assert changes[W2].shape == (2, *weights[W2].shape[1:])
    assert len(changes["layers.1.ffn.w2.blocks"]) == config.n_blocks
    assert "layers.1.mixer.norm" not in changes
    assert "embed" not in changes
    assert {a.dtype for name, a in changes.items() if not name.endswith(".blocks")} == {np.dtype(np.float16)}


def test_nothing_brings_the_base_back() -> None:
    config, weights = random_model()
    base = _base(config, weights)
    rest = {name: weights[name].copy() for name in weights if name not in base}
    _learn(config, weights, 1.0)
    apply_change({}, base, weights)
    for name, array in (base | rest).items():
        np.testing.assert_array_equal(weights[name], array)


@pytest.mark.parametrize("value", [1e6, np.inf, np.nan])
@pytest.mark.parametrize("name", [W2, GAIN])
def test_a_change_too_large_to_be_kept(name: str, value: float) -> None:
    config, weights = random_model()
    base = _base(config, weights)
    weights[name].reshape(-1)[3] = value
    with pytest.raises(DivergenceError, match=f"the change of {name} is too large"):
        pack_change(weights, base, config)


@pytest.mark.parametrize(
    ("says", "change"),
    [
        ("embed", lambda t: t.update(embed=np.zeros((23, 12), np.float16))),
        ("nothing", lambda t: t.update(nothing=np.zeros(1, np.float16))),
        ("", lambda t: t.update({"": np.zeros(1, np.float16)})),
        ("nothing.blocks", lambda t: t.update({"nothing.blocks": np.zeros(1, np.int32)})),
        (GAIN, lambda t: t.update({GAIN: np.full(12, np.nan, np.float16)})),
        (GAIN, lambda t: t.update({GAIN: np.full(12, np.inf, np.float16)})),
        (GAIN, lambda t: t.update({GAIN: np.zeros(1, np.float16)})),
        (GAIN, lambda t: t.update({GAIN: np.zeros((12, 1), np.float16)})),
        (GAIN, lambda t: t.update({GAIN: np.zeros(12, np.float32)})),
        (GAIN, lambda t: t.update({GAIN + ".blocks": np.array([0], np.int32)})),
        (W2, lambda t: t.update({W2: t[W2][:1]})),
        (W2, lambda t: t.pop(W2)),
        (W2, lambda t: t.pop(BLOCKS)),
        (W2, lambda t: t.update({BLOCKS: np.array([1, 5], np.int32)})),
        (W2, lambda t: t.update({BLOCKS: np.array([-1, 2], np.int32)})),
        (W2, lambda t: t.update({BLOCKS: np.array([2, 2], np.int32)})),
        (W2, lambda t: t.update({BLOCKS: np.array([3, 1], np.int32)})),
        (W2, lambda t: t.update({BLOCKS: np.array([[1, 3]], np.int32)})),
        (W2, lambda t: t.update({BLOCKS: np.array([1, 3], np.int64)})),
        (W2, lambda t: t.update({BLOCKS: np.array([1, 3], np.float32)})),
    ],
)
def test_what_is_no_change(says: str, change: Callable[[Weights], object]) -> None:
    config, weights = random_model()
    base = _base(config, weights)
    _learn(config, weights, 1e-2)
    changes = pack_change(weights, base, config)
    assert misfit(changes, config) == ""
    change(changes)
    found = misfit(changes, config)
    assert found.removesuffix(".blocks") == says.removesuffix(".blocks")
    assert found or "" in changes


def test_the_digest_tells_every_bit() -> None:
    arrays = {"a": np.arange(6, dtype=np.float32), "b": np.zeros((2, 3))}
    first = digest(arrays)
    assert len(first) == 64
    assert digest(dict(reversed(arrays.items()))) == first
    assert digest({"a": arrays["a"].reshape(2, 3).T.T, "b": np.asfortranarray(arrays["b"])}) == first
    for name in arrays:
        other = {key: array.copy() for key, array in arrays.items()}
        other[name].reshape(-1)[-1] = np.nextafter(other[name].reshape(-1)[-1], 9, dtype=other[name].dtype)
        assert digest(other) != first
    assert digest({"a": arrays["a"]}) != first
    assert digest({"c": arrays["a"], "b": arrays["b"]}) != first
