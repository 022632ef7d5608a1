"""What a server makes of many updates, and what liars make of that."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from edgelm.errors import ConfigError, DeviceError, InputError
from edgelm.model import hub
from edgelm.model.weights import Weights, block_names
from edgelm.swarm.aggregate import STRATEGIES, AggregateConfig, aggregate, aggregate_round, stepped, strategy
from edgelm.swarm.update import Received, UpdateConfig, incoming, outgoing
from tests.learn.packed import random_changes

N_DEVICES, LIARS = 11, 0.2
FASTER = [name for name in STRATEGIES if name != "bulyan"]
"""Flower's Bulyan takes seconds for a few numbers; one test is enough for it."""


def _updates(n: int = N_DEVICES, seed: int = 0) -> list[Weights]:
    """Around one truth, each with noise of its own."""
    rng = np.random.default_rng(seed)
    truth = {"a": rng.normal(size=(6, 5)), "b": rng.normal(size=40)}
    return [
        {name: (array + 0.1 * rng.normal(size=array.shape)).astype(np.float32) for name, array in truth.items()}
        for _ in range(n)
    ]


def _distance(one: Weights, other: Weights) -> float:
    return float(np.sqrt(sum(np.square(one[name] - other[name]).sum() for name in one)))


@pytest.fixture(autouse=True)
def _flower() -> None:
    pytest.importorskip("flwr")


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_is_near_the_mean_of_the_honest(name: str) -> None:
    updates = _updates()
    mean = {key: np.mean([update[key] for update in updates], 0) for key in updates[0]}
    found = aggregate(strategy(name, N_DEVICES, LIARS), updates)
    assert {key: (array.dtype, array.shape) for key, array in found.items()} == {
        "a": (np.dtype(np.float32), (6, 5)), "b": (np.dtype(np.float32), (40,)),
    }  # fmt: skip
    assert _distance(found, mean) < 1.1 * 0.1 * 70**0.5


@pytest.mark.parametrize("name", FASTER)
def test_liars_move_the_mean_alone(name: str) -> None:
    updates = _updates()
    honest = aggregate(strategy(name, N_DEVICES, LIARS), updates)
    for update in updates[:2]:
        for array in update.values():
            array *= -50
    moved = _distance(aggregate(strategy(name, N_DEVICES, LIARS), updates), honest)
    assert moved > 50 if name == "mean" else moved < 2


def test_the_trimmed_mean_and_the_median_are_what_they_say() -> None:
    updates = _updates()
    stack = np.sort(np.stack([update["b"] for update in updates]), 0)
    trimmed = aggregate(strategy("trimmed-mean", N_DEVICES, LIARS), updates)["b"]
    median = aggregate(strategy("median", N_DEVICES, LIARS), updates)["b"]
    assert np.allclose(trimmed, stack[2:-2].mean(0), atol=1e-6)
    assert np.allclose(median, stack[5], atol=1e-6)


@pytest.mark.parametrize("n_devices", [1, 2, 3, 4])
@pytest.mark.parametrize("name", ["mean", "median", "trimmed-mean"])
def test_few_devices_are_enough_for_those_that_take_each_number_alone(name: str, n_devices: int) -> None:
    updates = _updates(n_devices)
    found = aggregate(strategy(name, n_devices, 0.2), updates)
    assert all(np.isfinite(array).all() for array in found.values())


@pytest.mark.parametrize("name", FASTER)
def test_a_round_is_the_aggregate_of_its_updates(tiny_model: Path, name: str) -> None:
    model, rng = hub.load(str(tiny_model)), np.random.default_rng(0)
    sent = UpdateConfig(budget_bytes=1 << 20)
    updates = [outgoing(random_changes(model, i), model, sent, rng) for i in range(7)]
    received = [Received(update, model, sent) for update in updates]
    whole = aggregate(strategy(name, 7, 0.2), [incoming(update, model, sent) for update in updates])
    found = aggregate_round(received, model, AggregateConfig(name))
    assert found.keys() == whole.keys()
    assert all((found[key] == whole[key]).all() for key in whole)
    assert any(found[key].any() for key in block_names(model.config))


@pytest.mark.parametrize(
    ("limit", "share"), [(9.0, 1.0), (3.0, 0.5), (1.0, 0.25), (0.3, 0.0625), (0.1, 0.0), (-1.0, 0.0)]
)
def test_a_step_is_as_long_as_general_text_allows(limit: float, share: float) -> None:
    total, found = {"a": np.zeros(3, np.float32)}, {"a": np.ones(3, np.float32)}
    new, taken = stepped(total, found, 4.0, lambda layer: 0.0 if layer["a"][0] <= limit else float("nan"))
    assert taken == share
    assert (new["a"] == 4 * share).all()
    assert not total["a"].any()


def test_whole_updates_are_compared_so_many_at_a_time(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, rng, sent = hub.load(str(tiny_model)), np.random.default_rng(0), UpdateConfig(budget_bytes=1 << 20)
    received = [Received(outgoing(random_changes(model, i), model, sent, rng), model, sent) for i in range(9)]
    monkeypatch.setattr("edgelm.swarm.aggregate.MOST_AT_ONCE", 4)
    found = aggregate_round(received, model, AggregateConfig("multi-krum"))
    groups = [
        aggregate(strategy("multi-krum", 3, 0.2), [update.dense() for update in received[first::3]])
        for first in range(3)
    ]
    assert all(np.allclose(found[key], np.mean([group[key] for group in groups], 0), atol=1e-7) for key in found)


def test_too_few_devices_are_said(tiny_model: Path) -> None:
    with pytest.raises(ConfigError, match="bulyan needs 7 devices where 1 may lie, not 6"):
        strategy("bulyan", 6, 0.2)
    with pytest.raises(InputError, match="0 updates are too few"):
        aggregate(strategy("mean", 1, 0), [])
    with pytest.raises(InputError, match="0 updates are too few"):
        aggregate_round([], hub.load(str(tiny_model)), AggregateConfig())


@pytest.mark.parametrize("values", [{"strategy": "loudest"}, {"liars": 0.5}, {"liars": -0.1}, {"rate": 0}])
def test_settings_out_of_range_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        AggregateConfig(**values)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="strategy must be one of"):
        strategy("loudest", 7, 0.2)


def test_without_flower_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flwr.serverapp", None)
    with pytest.raises(DeviceError, match=r"pip install 'edgelm\[swarm\]'"):
        strategy("mean", 7, 0.2)
