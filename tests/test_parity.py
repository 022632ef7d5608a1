"""The reference, the Numba network and the ONNX graph compute the same."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from edgelm.config import LearnConfig
from edgelm.engine.ort_session import OrtSession, run_exported
from edgelm.engine.session import PREFILL_STEPS, ReferenceSession
from edgelm.export.step import build_graph
from edgelm.learn.learner import Learner
from edgelm.model.config import PRESETS, ModelConfig
from edgelm.model.reference import forward, step
from edgelm.model.state import State, copy_state, empty_state, state_shapes
from edgelm.model.weights import Weights, adaptable_names, random_weights
from edgelm.network.network import Network
from tests import naive
from tests.tiny import MIXERS, random_ids, random_model

Array = np.ndarray
BOUND = 1e-5
RUNS = (1, 1, 7, 1, 33, 1, 1, 64, 1, 16, 17, 1, 48, *[1] * 12)
"""Tokens of one call after the other."""


def close(found: Array, expected: Array) -> None:
    """max|a-b| / max|b| <= 1e-5."""
    assert found.shape == expected.shape
    difference, size = np.abs(found - expected).max(initial=0), np.abs(expected).max(initial=0)
    assert difference <= BOUND * size, f"{difference / size:.1e}"


def double(weights: Weights) -> Weights:
    return {name: array.astype(np.float64) for name, array in weights.items()}


def runs(config: ModelConfig) -> Iterator[Array]:
    """The ids of each run."""
    assert sum(RUNS) >= 200
    return iter(np.split(random_ids(config, sum(RUNS)), np.cumsum(RUNS)[:-1]))


def state_arrays(state: State, config: ModelConfig) -> list[Array]:
    """The state of the reference in the order and the shapes of the graph."""
    assert {name: array.shape for name, array in state.items()} == state_shapes(config)
    return list(state.values())


@pytest.fixture(params=MIXERS)
def model(request: pytest.FixtureRequest) -> tuple[ModelConfig, Weights]:
    return random_model(request.param, seed=0)


@pytest.fixture(params=[*MIXERS, pytest.param("real widths", marks=pytest.mark.jit_only), "all asleep"])
def hard_model(request: pytest.FixtureRequest) -> tuple[ModelConfig, Weights]:
    if request.param in MIXERS:
        return random_model(request.param, seed=0)
    if request.param == "real widths":
        config = PRESETS["small"].resized(vocab_size=200, n_layers=2)
        return config, random_weights(config, np.random.default_rng(0))
    config, weights = random_model()
    for name, array in weights.items():
        if name.endswith("router_bias"):
            array -= 100
    return config, weights


def test_network_is_the_reference(hard_model: tuple[ModelConfig, Weights]) -> None:
    config, weights = hard_model
    judge, state, expected = double(weights), empty_state(config), empty_state(config, np.float64)
    network, losses = Network(config, weights, (), max(RUNS)), []
    for ids in runs(config):
        targets = np.roll(ids, -1)
        found = network.forward(ids, targets, state)
        logits, expected, a = forward(ids, judge, expected, config)
        losses.append((found, naive.cross_entropy(targets, logits)))
        assert (network.awake == (a > 0).any(1)).all()
        assert network.n_pairs == (a > 0).sum()
        for found, right in zip(_arrays(state), _arrays(expected), strict=True):
            close(found, right)
    close(*map(np.concatenate, zip(*losses, strict=True)))


def test_a_network_that_never_goes_backward(hard_model: tuple[ModelConfig, Weights]) -> None:
    config, weights = hard_model
    losses = []
    for forward_alone in (False, True):
        network, state = Network(config, weights, (), max(RUNS), forward_alone=forward_alone), empty_state(config)
        losses.append([network.forward(ids, np.roll(ids, -1), state) for ids in runs(config)])
    for alone, other in zip(*losses, strict=True):
        np.testing.assert_array_equal(alone, other)


def _arrays(state: State) -> list[Array]:
    return list(state.values())


@pytest.mark.parametrize("weights_are", ["inputs", "initialisers"])
def test_graph_is_the_reference(hard_model: tuple[ModelConfig, Weights], weights_are: str) -> None:
    config, weights = hard_model
    judge, state = double(weights), empty_state(config, np.float64)
    session = OrtSession(build_graph(config, weights if weights_are == "initialisers" else None), weights)
    for ids in runs(config):
        logits = session.run(ids, 0)
        expected, state, _ = forward(ids, judge, state, config)
        close(logits, expected)
        for found, right in zip(session.snapshot(), state_arrays(state, config), strict=True):
            close(found, right)


def test_exported_graph_is_the_reference(model: tuple[ModelConfig, Weights]) -> None:
    config, weights = model
    ids = random_ids(config, 40)
    expected, _, _ = forward(ids, double(weights), empty_state(config, np.float64), config)
    close(run_exported(build_graph(config, weights), ids), expected)


def test_steps_are_the_forward_pass(model: tuple[ModelConfig, Weights]) -> None:
    config, weights = model[0], double(model[1])
    ids, stepped = random_ids(config, 40), empty_state(config, np.float64)
    logits, state, _ = forward(ids, weights, empty_state(config, np.float64), config)
    for token_id, expected in zip(ids, logits, strict=True):
        found, stepped = step(int(token_id), weights, stepped, config)
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)
    for found, expected in zip(_arrays(stepped), _arrays(state), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


def test_forward_leaves_the_state_it_was_given(model: tuple[ModelConfig, Weights]) -> None:
    config, weights = model
    _, state, _ = forward(random_ids(config, 5), weights, empty_state(config), config)
    before = copy_state(state)
    forward(random_ids(config, 7), weights, state, config)
    assert all((a == b).all() for a, b in zip(_arrays(state), _arrays(before), strict=True))


def sessions(config: ModelConfig, weights: Weights) -> tuple[OrtSession, ReferenceSession]:
    return OrtSession(build_graph(config), weights), ReferenceSession(config, double(weights))


def tell(session: OrtSession | ReferenceSession, ids: Array) -> list[Array]:
    """Logits of a session that is taken back and begun anew."""
    told = [session.run(ids[:9]).copy()]
    saved = session.snapshot()
    # An odd number of runs, so that it goes on in the other of two buffers.
    told.extend(session.run(np.array([token_id])).copy() for token_id in ids[9:20])
    for _ in range(2):
        session.restore(saved)
        told.append(session.run(ids[20:]).copy())
    session.reset()
    told.append(session.run(ids[:9]).copy())
    return told


def test_sessions_keep_and_restore_their_state(model: tuple[ModelConfig, Weights]) -> None:
    tales = [tell(session, random_ids(model[0], 30)) for session in sessions(*model)]
    for told in tales:
        assert (told[-1] == told[0]).all(), "reset is the beginning"
        assert (told[-2] == told[-3]).all(), "a snapshot outlives what is run after it"
    for found, expected in zip(*tales, strict=True):
        close(found, expected)


@pytest.mark.parametrize("n_tokens", [2, PREFILL_STEPS, PREFILL_STEPS + 1, 2 * PREFILL_STEPS + 60])
@pytest.mark.parametrize("first", [None, 0, 1, 255, 256, 300])
def test_sessions_take_long_texts(n_tokens: int, first: int | None) -> None:
    if first is not None and first >= n_tokens:
        return
    config, weights = random_model(n_layers=1)
    ids = random_ids(config, n_tokens)
    found, expected = (session.run(ids, first) for session in sessions(config, weights))
    assert len(found) == (1 if first is None else n_tokens - first)
    close(found, expected)


def test_observe_moves_on_as_run_does(model: tuple[ModelConfig, Weights]) -> None:
    config, weights = model
    ids, session = random_ids(config, 12), OrtSession(build_graph(config), weights)
    first, _ = session.observe(ids[:5])
    second, a = session.observe(ids[5:])
    logits, _, expected = forward(ids, double(weights), empty_state(config, np.float64), config)
    close(np.concatenate([first, second]), logits)
    awake = expected[:, 5:] > 0
    close(np.where(awake, a, 0), expected[:, 5:])
    assert session.state_bytes == sum(array.nbytes for array in session.snapshot())


def test_what_is_learned_counts_at_the_next_run(model: tuple[ModelConfig, Weights]) -> None:
    config, weights = model
    names = adaptable_names(config)
    base = {name: weights[name].copy() for name in names}
    session, ids = OrtSession(build_graph(config), weights), random_ids(config, 16)
    learner = Learner(config, weights, base, {name: np.full(1, 0.1) for name in names}, LearnConfig(rate=10))

    def run() -> Array:
        session.reset()
        logits = np.concatenate([session.run(ids[:-3], 0), *(session.run(ids[i : i + 1]).copy() for i in (-3, -2))])
        close(logits, forward(ids[:-1], double(weights), empty_state(config, np.float64), config)[0])
        return logits

    before = run()
    learner.learn(ids)
    after = run()
    for name in names:  # taken back one by one, and seen each time
        weights[name][:] = base[name]
        previous, after = after, run()
        assert (after != previous).any(), name
    assert (after == before).all()


ROUTED = [mixer for mixer in MIXERS if mixer != "rwkv7"]
"""Those with a router; what holds for neurons of RWKV-7 is tested at their kernels."""


def sleepy(mixer: str) -> tuple[ModelConfig, Weights, Array, Array]:
    """A model, a text that fully uses the cap on awake blocks, and the blocks that sleep all through it [L, M]."""
    config, weights = random_model(mixer, n_blocks=16, max_awake=3)
    for i in range(config.n_layers):
        weights[f"layers.{i}.ffn.router_bias"] += 3
    ids = random_ids(config, 8)
    _, _, a = forward(ids, weights, empty_state(config), config)
    awake = a > 0
    assert (awake.sum(-1) == config.max_awake).all()
    asleep = ~awake.any(1)
    assert asleep.any(1).all()
    return config, weights, ids, asleep


@pytest.mark.parametrize("mixer", ROUTED)
def test_blocks_asleep_are_not_computed(mixer: str) -> None:
    config, weights, ids, asleep = sleepy(mixer)
    expected, _, _ = forward(ids, double(weights), empty_state(config, np.float64), config)
    for layer, block in np.argwhere(asleep):
        for name in ("w1", "w2"):
            weights[f"layers.{layer}.ffn.{name}"][block] = np.nan
    session = OrtSession(build_graph(config), weights)
    close(session.run(ids, 0), expected)
    close(run_exported(build_graph(config, weights), ids), expected)
    session.reset()
    for token_id, row in zip(ids, expected, strict=True):
        close(session.run(np.array([token_id]))[0], row)
    network = Network(config, weights, (), len(ids))
    close(network.forward(ids, ids, empty_state(config)), naive.cross_entropy(ids, expected))
    network.backward()
    assert all(np.isfinite(grad).all() for grad in network.grads.values())


@pytest.mark.parametrize("mixer", ROUTED)
def test_blocks_asleep_are_not_learned(mixer: str) -> None:
    config, weights, ids, asleep = sleepy(mixer)
    names = adaptable_names(config)
    base = {name: weights[name] + 1 for name in names}  # the pull moves whatever is touched
    before = {name: array.copy() for name, array in weights.items()}
    learner = Learner(config, weights, base, {name: np.ones(1) for name in names}, LearnConfig(pull=0.5))
    learner.learn(np.append(ids, 0))  # the last is only a target
    for name, array in before.items():
        changed = weights[name] != array
        if name.endswith(".w2"):
            sleeping = asleep[int(name.split(".")[1])]
            assert not changed[sleeping].any()
            assert changed[~sleeping].all()
        else:
            assert changed.any() == (name in names)
