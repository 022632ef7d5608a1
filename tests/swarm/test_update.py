"""What is sent of a change, what is taken from outside, and the layer that is made of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgelm.errors import ConfigError, InputError
from edgelm.log.change import misfit
from edgelm.model import hub
from edgelm.model.hub import Model
from edgelm.model.layers import Layer, with_layers
from edgelm.model.weights import block_names, shapes
from edgelm.swarm.update import UpdateConfig, dense, incoming, norm_of, nothing, outgoing, shared_layer
from tests.learn.packed import random_changes

EXACT = UpdateConfig(clip=1000, noise=0, budget_bytes=1 << 20)


@pytest.fixture
def model(tiny_model: Path) -> Model:
    """A tiny one of its own."""
    return hub.load(str(tiny_model))


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_a_change_arrives_to_within_one_step_of_a_scale(model: Model) -> None:
    change = random_changes(model, 1)
    update = outgoing(change, model, EXACT, _rng())
    arrived, sent = incoming(update, model, EXACT), dense(change, model.config)
    for name in block_names(model.config):
        each = tuple(range(1, sent[name].ndim))
        steps = np.abs(sent[name]).max(each, keepdims=True) / 127
        assert (np.abs(arrived[name] - sent[name]) <= steps * 1.001).all()
        assert sent[name].any()
    assert np.abs(arrived["final_norm"] - sent["final_norm"]).max() <= np.abs(sent["final_norm"]).max() / 126


def test_rounding_is_right_in_the_mean(model: Model) -> None:
    change, rng = random_changes(model, 1), _rng()
    name, n_times = block_names(model.config)[0], 400
    whole = dense(change, model.config)[name]
    total = sum(incoming(outgoing(change, model, EXACT, rng), model, EXACT)[name] for _ in range(n_times))
    step = np.abs(whole).max() / 127
    assert np.abs(total / n_times - whole).max() < 5 * 0.5 * step / n_times**0.5


@pytest.mark.parametrize("n_blocks", [0, 1, 3])
def test_the_largest_blocks_that_the_budget_allows_are_sent(model: Model, n_blocks: int) -> None:
    change = random_changes(model, 2)
    whole, names = dense(change, model.config), block_names(model.config)
    of_nothing = outgoing({}, model, EXACT, _rng())
    size = int(np.prod(shapes(model.config)[names[0]][1:]))
    budget = sum(array.nbytes for array in of_nothing.values()) + n_blocks * (size + 8) + size
    update = outgoing(change, model, UpdateConfig(clip=1000, noise=0, budget_bytes=budget), _rng())
    assert sum(array.nbytes for array in update.values()) <= budget
    norms = np.concatenate([np.square(whole[name]).reshape(len(whole[name]), -1).sum(1) for name in names])
    assert sorted(update["blocks"].tolist()) == sorted(np.argsort(-norms)[:n_blocks].tolist())


def test_a_budget_without_room_for_anything_is_refused(model: Model) -> None:
    with pytest.raises(InputError, match="budget_bytes is 10, but tensors without blocks take"):
        outgoing({}, model, UpdateConfig(budget_bytes=10), _rng())


def test_what_is_sent_is_no_longer_than_the_clip(model: Model) -> None:
    change = random_changes(model, 3, size=0.5)
    config = UpdateConfig(clip=0.25, noise=0, budget_bytes=1 << 20)
    arrived = incoming(outgoing(change, model, config, _rng()), model, config)
    assert norm_of(dense(change, model.config)) > 1
    assert 0.24 < norm_of(arrived) <= 0.25 * 1.000001


@pytest.mark.parametrize("times", [1000, 1e38])
def test_a_device_that_does_not_clip_is_clipped(model: Model, times: float) -> None:
    honest, config = random_changes(model, 3, size=0.5), UpdateConfig(clip=0.25, noise=0, budget_bytes=1 << 20)
    update = outgoing(honest, model, EXACT, _rng())
    update["scales"] = update["scales"] * np.float32(times)
    assert np.isfinite(update["scales"]).all()
    assert norm_of(incoming(update, model, config)) == pytest.approx(0.25, rel=1e-5)


def test_noise_has_the_size_that_it_should_have(model: Model) -> None:
    config = UpdateConfig(clip=2.0, noise=0.05, budget_bytes=1 << 20)
    rng, found = _rng(), []
    for _ in range(300):
        update = outgoing({}, model, config, rng)
        assert not len(update["blocks"])
        found.append(incoming(update, model, config)["final_norm"])
    assert np.std(np.stack(found)) == pytest.approx(0.1, rel=0.05)
    assert abs(np.mean(np.stack(found))) < 0.01


def test_the_same_randomness_gives_the_same_update(model: Model) -> None:
    change, config = random_changes(model, 4), UpdateConfig(budget_bytes=1 << 20)
    one, same, other = (outgoing(change, model, config, _rng(seed)) for seed in (1, 1, 2))
    assert all((one[name] == same[name]).all() for name in one)
    assert (one["values"] != other["values"]).any()


def _bad() -> dict[str, tuple[str, object]]:
    """What is wrong: which array, and what it becomes (a function of it)."""
    return {
        "float32 values": ("values", lambda a: a.astype(np.float32)),
        "float64 scales": ("scales", lambda a: a.astype(np.float64)),
        "int64 blocks": ("blocks", lambda a: a.astype(np.int64)),
        "two axes": ("values", lambda a: a[None]),
        "too few values": ("values", lambda a: a[:-1]),
        "too many values": ("values", lambda a: np.append(a, np.int8(1))),
        "too few scales": ("scales", lambda a: a[:-1]),
        "not a number": ("scales", lambda a: np.where(np.arange(len(a)) == 1, np.nan, a).astype(np.float32)),
        "infinite": ("scales", lambda a: np.where(np.arange(len(a)) == 1, np.inf, a).astype(np.float32)),
        "negative": ("scales", lambda a: -np.abs(a) - np.float32(1)),
        "-128": ("values", lambda a: np.where(np.arange(len(a)) == 1, -128, a).astype(np.int8)),
        "twice": ("blocks", lambda a: np.where(np.arange(len(a)) == 1, a[0], a).astype(np.int32)),
        "below 0": ("blocks", lambda a: np.where(np.arange(len(a)) == 0, -1, a).astype(np.int32)),
        "beyond": ("blocks", lambda a: np.where(np.arange(len(a)) == len(a) - 1, 10**6, a).astype(np.int32)),
        "objects": ("values", lambda a: np.array(["x"] * len(a), object)),
    }


@pytest.mark.parametrize("what", _bad())
def test_what_is_no_update_is_refused_in_one_line(model: Model, what: str) -> None:
    update = outgoing(random_changes(model, 5), model, EXACT, _rng())
    name, change = _bad()[what]
    assert callable(change)
    update[name] = change(update[name])
    with pytest.raises(InputError) as caught:
        incoming(update, model, EXACT)
    assert "\n" not in str(caught.value)


def test_other_arrays_are_refused(model: Model) -> None:
    update = outgoing({}, model, EXACT, _rng())
    for wrong in ({}, {"values": update["values"]}, update | {"x\n" * 100: update["values"]}):
        with pytest.raises(InputError, match="an update is blocks, scales and values, not"):
            incoming(wrong, model, EXACT)


def test_more_than_the_budget_is_refused(model: Model) -> None:
    update = outgoing(random_changes(model, 5), model, EXACT, _rng())
    with pytest.raises(InputError, match="at most 500 bytes, not"):
        incoming(update, model, UpdateConfig(budget_bytes=500))


def test_a_change_that_is_not_finite_is_not_sent(model: Model) -> None:
    change = random_changes(model, 6)
    change["final_norm"][0] = np.nan
    with pytest.raises(InputError, match="not finite"):
        outgoing(change, model, EXACT, _rng())


def test_the_layer_is_what_arrived(model: Model) -> None:
    arrived = incoming(outgoing(random_changes(model, 7), model, EXACT, _rng()), model, EXACT)
    layer = shared_layer(arrived, model)
    assert not misfit(layer, model.config)
    for name, array in nothing(model.config).items():
        again = with_layers(array, name, [Layer("swarm", "", layer)])
        assert np.abs(again - arrived[name]).max() <= 2**-11 * np.abs(arrived[name]).max()
    assert shared_layer(nothing(model.config), model) == {}


@pytest.mark.parametrize(
    "values", [{"clip": 0}, {"clip": 1001}, {"noise": -1}, {"noise": float("nan")}, {"budget_bytes": 0}]
)
def test_settings_out_of_range_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        UpdateConfig(**values)  # type: ignore[arg-type]
