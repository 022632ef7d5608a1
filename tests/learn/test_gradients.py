"""Every element of every gradient against central differences of the reference, in float64."""

from __future__ import annotations

import numpy as np
import pytest

from edgelm.model.config import ModelConfig
from edgelm.model.reference import forward
from edgelm.model.state import State, copy_state, empty_state
from edgelm.model.weights import Weights, shapes, tensors
from edgelm.network.network import Network
from tests import naive
from tests.tiny import random_ids, random_model

Array = np.ndarray
STEPS = 18
"""More than one chunk of the decay kernel."""
EPS = 3e-6
DENSE = ("embed", ".w_in", ".w_out", ".router", ".w1", ".w2", ".shared_w1", ".shared_w2")
"""Matrices whose gradients are computed when wanted."""


@pytest.mark.parametrize(("mixer", "seed"), [("mcsd_g", 10), ("mcsd", 9), ("retention", 7)])
def test_every_element_of_every_gradient(mixer: str, seed: int) -> None:
    config, weights = random_model(mixer, seed, np.float64)
    before, inputs, targets = (random_ids(config, n, i) for i, n in enumerate((5, STEPS, STEPS), 1))
    _, state, _ = forward(before, weights, empty_state(config, np.float64), config)
    _, awake = judge(weights, inputs, targets, state, config)

    found, lean = (
        backward(Network(config, weights, wanted, STEPS), inputs, targets, state) for wanted in (shapes(config), ())
    )
    assert lean.keys() == found.keys() - {name for name in found if name.endswith(DENSE)}
    assert all((grad == found[name]).all() for name, grad in lean.items())
    asleep = ~awake.any(1)
    assert asleep.sum() == 1, "a seed at which one block sleeps all segment"

    def total() -> float:
        # Where a block wakes or falls asleep the loss has no derivative. At this seed none does within EPS.
        moved, awake_now = judge(weights, inputs, targets, state, config)
        assert (awake_now == awake).all()
        return moved.sum()

    assert set(found) == set(shapes(config))
    for name, grad in found.items():
        expected = naive.gradient(total, weights[name], EPS)
        if tensors(config)[name].blocks:
            sleeping = asleep[int(name.split(".")[1])]
            assert not expected[sleeping].any()
            assert (grad[sleeping] == 7).all(), f"{name}: a block that slept was touched"
            grad[sleeping] = 0
        worst = np.max(np.abs(grad - expected) / np.maximum(1, np.abs(expected)))
        assert worst <= 1e-6, name


def backward(network: Network, inputs: Array, targets: Array, state: State) -> Weights:
    """All gradients, over whatever a pass before left in their place."""
    for grad in network.grads.values():
        grad[:] = 7
    network.forward(inputs, targets, copy_state(state))
    network.backward()
    return network.grads


def judge(weights: Weights, inputs: Array, targets: Array, state: State, config: ModelConfig) -> tuple[Array, Array]:
    """Losses [T] and which blocks are awake [L, T, M], by the reference."""
    logits, _, a = forward(inputs, weights, state, config)
    return naive.cross_entropy(targets, logits), a > 0
