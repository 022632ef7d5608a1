"""What a change gives back of the words behind it, and the noise that hides whose it is."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest

from edgelm.engine.opening import open_session
from edgelm.learn import exposure
from edgelm.learn.change import misfit
from edgelm.learn.entry import CHAT, TEXT, Entry
from edgelm.learn.privacy import CLIP, DELTA, hidden, noise_scale
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


def test_what_is_completed(tiny_model: Path) -> None:
    model = hub.load(str(tiny_model))
    session = open_session(model, 1, "float32")
    line = "User: The ferry leaves the island at seven"
    none = exposure.measure(session, model.tokenizer, [line])
    assert (none.sentences, none.completed) == (1, 0) and none.bits > 20
    # A model that thinks of nothing but the token that follows, whatever was before.
    ids = model.tokenizer.encode(line)
    half = model.tokenizer.encode("User: The ferry leaves")

    class Sure:
        def reset(self) -> None: ...

        def run(self, read: np.ndarray, first: int) -> np.ndarray:
            assert read.tolist() == [0, *ids[:-1]] and first == len(half)
            logits = np.zeros((len(ids) - len(half), model.config.vocab_size), np.float32)
            logits[np.arange(len(logits)), ids[len(half) :]] = 50
            return logits

    sure = exposure.measure(Sure(), model.tokenizer, [line])  # type: ignore[arg-type]
    assert (sure.sentences, sure.completed) == (1, 1) and sure.bits < 0.01


def test_which_sentences_are_tried() -> None:
    long = "one two three four five six"
    entries = [
        Entry(1, 1.0, CHAT, long, 1, None),
        Entry(2, 2.0, TEXT, f"short\n{long}\n{long}\n{'word ' * 200}", 1, None),
        *[Entry(3 + i, 3.0, CHAT, f"{long} {i}", 1, None) for i in range(500)],
    ]
    found = exposure.sentences(entries)
    assert found[0] == f"User: {long}"
    assert len(found) == exposure.MOST_SENTENCES == len(set(found))
    assert exposure.sentences([]) == []
