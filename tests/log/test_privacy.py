"""The noise that hides whose a change is."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest

from edgelm.log.change import misfit
from edgelm.log.privacy import CLIP, DELTA, hidden, noise_scale
from edgelm.model import hub
from edgelm.model.weights import adaptable_names


def reached(epsilon: float, scale: float) -> float:
    """The delta of noise of this scale, from the two tails of theorem 8 themselves."""
    tail, sensitivity = NormalDist().cdf, 2 * CLIP
    near, far = sensitivity / (2 * scale), epsilon * scale / sensitivity
    return tail(near - far) - math.exp(epsilon) * tail(-near - far)


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 8.0])
def test_the_noise_is_the_least_that_is_enough(epsilon: float) -> None:
    scale = noise_scale(epsilon)
    assert reached(epsilon, scale) <= DELTA * (1 + 1e-6)
    assert reached(epsilon, 0.999 * scale) > DELTA
    assert scale <= 2 * CLIP * math.sqrt(2 * math.log(1.25 / DELTA)) / epsilon, "the classic formula wastes some"


def test_less_epsilon_is_more_noise() -> None:
    scales = [noise_scale(epsilon) for epsilon in (0.01, 1, 100, 1e4, 1e6, 1e9)]
    assert all(math.isfinite(scale) and scale > 0 for scale in scales)
    assert scales == sorted(scales, reverse=True)


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.nan, math.inf, 1e10])
def test_epsilons_that_mean_nothing(epsilon: float) -> None:
    with pytest.raises(ValueError, match="epsilon must be above 0"):
        noise_scale(epsilon)


def test_a_hidden_change(tiny_model: Path) -> None:
    """Clipped to one norm whatever it was, noise on everything, also where nothing had changed."""
    config = hub.load(str(tiny_model)).config
    name = "layers.0.ffn.w2"
    large = np.full((1, 32, 32), 50.0, np.float16)
    changes = {name: large, name + ".blocks": np.array([2], np.int32)}
    found = hidden(changes, config, 1e9, np.random.default_rng(1))
    assert misfit(found, config) == ""
    assert {key for key in found if not key.endswith(".blocks")} == set(adaptable_names(config))
    assert math.sqrt(float(np.square(found[name][2].astype(np.float64)).sum())) == pytest.approx(CLIP, rel=0.02)
    noisy = hidden(changes, config, 8.0, np.random.default_rng(1))
    numbers = np.concatenate([a.astype(np.float64).ravel() for key, a in noisy.items() if not key.endswith(".blocks")])
    assert numbers.std() == pytest.approx(noise_scale(8.0), rel=0.05)
