"""The fast memory: a proper distribution, exact recall, bounded size, the same after a rebuild."""

from __future__ import annotations

import numpy as np
import pytest

from edgelm.learn.fast_memory import FastMemory

V = 50


def text(seed: int, length: int) -> np.ndarray:
    """An entry with much repetition, as people write."""
    rng = np.random.default_rng(seed)
    return np.concatenate([[0], rng.integers(1, V, length // 4), rng.integers(1, 5, length - length // 4)])


def model(seed: int = 9) -> np.ndarray:
    p = np.random.default_rng(seed).random(V)
    return p / p.sum()


def test_the_mixture_is_a_distribution_and_learn_predicts_with_it() -> None:
    memory, ids, p0 = FastMemory(V, 1 << 10), text(0, 200), model()
    for t in range(1, len(ids)):
        p = memory.mix(ids[:t].tolist(), p0)
        assert p.sum() == pytest.approx(1, abs=1e-12)
        assert (p >= 0).all()
        target = ids[t]
        assert memory.predict(ids[: t + 1], t, [p0[target]])[0] == pytest.approx(p[target], rel=1e-12)
        assert memory.learn(ids[: t + 1], t, [p0[target]])[0] == pytest.approx(p[target], rel=1e-12)


def test_an_empty_memory_changes_nothing() -> None:
    np.testing.assert_array_equal(FastMemory(V).mix([0, 3, 4], model()), model())


def test_what_was_said_once_is_expected_the_next_time() -> None:
    memory, p0 = FastMemory(V), np.full(V, 1 / V)
    said = np.array([0, 7, 8, 9, 10, 11])
    memory.learn(said, 1, p0[said[1:]])
    assert memory.mix([0, 30, 7, 8, 9, 10], p0).argmax() == 11
    assert memory.mix([0, 7, 8], p0)[9] > 10 / V


def test_a_text_of_noise_costs_little_more_than_under_the_model_alone() -> None:
    memory, rng = FastMemory(V), np.random.default_rng(1)
    noise = np.concatenate([[0], rng.integers(1, V, 5000)])
    p = memory.learn(noise, 1, np.full(5000, 1 / V))
    assert -np.log(p).mean() < 1.01 * np.log(V)


def test_prediction_learns_nothing() -> None:
    memory, ids = FastMemory(V), text(2, 100)
    memory.learn(ids, 1, np.full(100, 1 / V))
    before = (memory.tokens.copy(), memory.gates.copy(), memory.mix(ids[:50].tolist(), model()))
    memory.predict(ids, 1, np.full(100, 1 / V))
    np.testing.assert_array_equal(before[0], memory.tokens)
    np.testing.assert_array_equal(before[1], memory.gates)
    np.testing.assert_array_equal(before[2], memory.mix(ids[:50].tolist(), model()))


def test_a_rebuilt_memory_is_the_same() -> None:
    memory = FastMemory(V)
    for seed in range(5):
        ids = text(seed, 120)
        for start in range(1, 121, 30):  # segment by segment, as the learner does
            memory.learn(ids[: start + 30], start, np.full(min(30, 121 - start), 1 / V))
    again = FastMemory(V)
    again.rebuild(memory.tokens, memory.gates)
    np.testing.assert_array_equal(memory.tokens, again.tokens)
    for seed in range(5):
        for cut in (1, 17, 90):
            history = text(seed, 120)[:cut].tolist()
            np.testing.assert_array_equal(memory.mix(history, model()), again.mix(history, model()))


def test_an_entry_that_another_process_began_goes_on() -> None:
    memory, ids = FastMemory(V), text(3, 60)
    memory.learn(ids, 31, np.full(30, 1 / V))
    np.testing.assert_array_equal(memory.tokens, [0, *ids[31:]])


def test_the_size_is_bounded() -> None:
    memory = FastMemory(V, 1 << 6)
    size = memory.nbytes
    for seed in range(20):
        ids = text(seed, 300)
        p = memory.learn(ids, 1, np.full(300, 1 / V))
        assert np.isfinite(np.log(p)).all()
    assert memory.nbytes == size
