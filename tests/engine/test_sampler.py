"""Logits to a token."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from edgelm.config import SampleConfig
from edgelm.engine.sampler import PENALTY_WINDOW, log_softmax, sample

LOGITS = np.log(np.array([0.4, 0.05, 0.3, 0.15, 0.1], np.float32))
PLAIN = {"temperature": 1.0, "top_p": 1.0, "repetition_penalty": 1.0}


def shares(recent: Sequence[int] = (), n_draws: int = 4000, **options: float) -> np.ndarray:
    """How often each token is drawn."""
    config, rng = SampleConfig(**PLAIN | options), np.random.default_rng(0)
    counts = Counter(sample(LOGITS, recent, config, rng) for _ in range(n_draws))
    return np.array([counts[i] for i in range(len(LOGITS))]) / n_draws


def test_log_softmax() -> None:
    np.testing.assert_allclose(log_softmax(LOGITS + 7), LOGITS, atol=1e-6)
    np.testing.assert_allclose(log_softmax(np.array([1e4, 0, -1e4], np.float32)), [0, -1e4, -2e4])
    rows = np.random.default_rng(0).standard_normal((3, 9))
    np.testing.assert_allclose(np.exp(log_softmax(rows)).sum(-1), 1)


def test_the_model_is_drawn_from() -> None:
    np.testing.assert_allclose(shares(), np.exp(LOGITS), atol=0.03)


@pytest.mark.parametrize("top_p", [0.01, 1.0])
def test_without_temperature_the_likeliest(top_p: float) -> None:
    assert shares(temperature=0, top_p=top_p, n_draws=20).tolist() == [1, 0, 0, 0, 0]


def test_without_temperature_chance_is_not_asked() -> None:
    config, rng = SampleConfig(**PLAIN | {"temperature": 0}), np.random.default_rng(0)
    sample(LOGITS, [], config, rng)
    assert rng.random() == np.random.default_rng(0).random()


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_temperature_sharpens_and_flattens(temperature: float) -> None:
    expected = np.exp(LOGITS / temperature)
    np.testing.assert_allclose(shares(temperature=temperature), expected / expected.sum(), atol=0.03)


@pytest.mark.parametrize("top_p", [0.01, 0.5, 0.9, 0.999, 1.0])
@pytest.mark.parametrize("spread", [0.0, 0.1, 1, 5])
def test_no_token_of_the_nucleus_is_missed(top_p: float, spread: float) -> None:
    """Against sorting all of them."""
    logits = (spread * np.random.default_rng(1).standard_normal(200)).astype(np.float32)
    probabilities = np.exp(log_softmax(logits))
    order = np.argsort(-probabilities, kind="stable")
    n_kept = int(np.searchsorted(np.cumsum(probabilities[order]), top_p)) + 1
    expected = set(order[:n_kept].tolist())

    class Asked:
        def choice(self, kept: np.ndarray, p: np.ndarray) -> int:
            assert set(kept.tolist()) == expected and abs(p.sum() - 1) < 1e-12
            np.testing.assert_allclose(p, probabilities[kept] / probabilities[kept].sum())
            return int(kept[0])

    sample(logits, (), SampleConfig(**PLAIN | {"top_p": top_p}), Asked())  # type: ignore[arg-type]


@pytest.mark.parametrize("temperature", [1e-3, 10])
def test_extreme_temperatures_give_a_token(temperature: float) -> None:
    assert shares(temperature=temperature, n_draws=50).sum() == 1


@pytest.mark.parametrize(
    ("top_p", "kept"), [(1e-9, [0]), (0.39, [0]), (0.41, [0, 2]), (0.69, [0, 2]), (0.71, [0, 2, 3]), (0.96, range(5))]
)
def test_top_p_keeps_the_smallest_set(top_p: float, kept: Sequence[int]) -> None:
    expected = np.where(np.isin(range(5), kept), np.exp(LOGITS), 0)
    found = shares(top_p=top_p)
    np.testing.assert_allclose(found, expected / expected.sum(), atol=0.03)
    assert not found[expected == 0].any()


def test_of_equals_the_first_are_kept() -> None:
    config, rng = SampleConfig(**PLAIN | {"top_p": 0.5}), np.random.default_rng(0)
    assert {sample(np.zeros(8, np.float32), [], config, rng) for _ in range(200)} == {0, 1, 2, 3}


def test_repetition_penalty_divides_the_odds() -> None:
    expected = np.exp(LOGITS) / [2, 1, 1, 2, 1]
    np.testing.assert_allclose(shares([0, 3, 3, 0, 0], repetition_penalty=2), expected / expected.sum(), atol=0.03)
    assert shares([0], repetition_penalty=2, temperature=0, n_draws=1).tolist() == [0, 0, 1, 0, 0]


def test_repetition_is_forgiven_after_a_while() -> None:
    recent = [0, *[1] * PENALTY_WINDOW]
    assert shares(recent, repetition_penalty=10, temperature=0, n_draws=1)[0] == 1
    assert shares(recent[:-1], repetition_penalty=10, temperature=0, n_draws=1)[0] == 0


def test_a_seed_is_a_sequence() -> None:
    def draw(seed: int) -> list[int]:
        rng = np.random.default_rng(seed)
        return [sample(LOGITS, [], SampleConfig(), rng) for _ in range(30)]

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


def test_logits_are_left_as_they_are() -> None:
    before = LOGITS.copy()
    shares([0, 1], repetition_penalty=2, top_p=0.5, n_draws=1)
    assert (before == LOGITS).all()
