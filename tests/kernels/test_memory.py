"""The kernels of the fast memory against their slow twins."""

from __future__ import annotations

import numpy as np
import pytest

from edgelm.kernels import recall
from edgelm.kernels.memory import COUNTED, LATE, LONG, TRUSTS, memory_learn, memory_read, trust_after, trust_row
from edgelm.kernels.sentences import PRIOR
from edgelm.kernels.stream import read_words
from edgelm.memory.recall_arrays import SENTENCES, make_store, make_workspace
from tests import naive
from tests.kernels.arrays import blank

V = 7


def test_counts_are_mixed_as_their_twin_says() -> None:
    rng = np.random.default_rng(0)
    entries = [np.concatenate([[0], rng.integers(0, V, 60)]) for _ in range(3)]
    gates = np.zeros((COUNTED + 200, 2))
    gates[:COUNTED, 0] = rng.random(COUNTED)
    tables = (
        np.zeros(V + 1, np.int64), np.zeros(1 << 12, np.int64), np.zeros((1 << 12, 8), np.uint16),
        np.zeros((1 << 12, 8), np.uint16), np.zeros(1 << 12, np.uint16),
    )  # fmt: skip
    for ids in entries:
        none = np.tile([0.0, 0.0, -1.0], (60, 1))
        memory_learn(ids, 1, len(ids), (False, True), 0.0, 0.0, tables, gates, none, np.ones(60))
    p0 = rng.random(V)
    p0 /= p0.sum()
    found = (0, np.zeros(1, np.int64), np.zeros(1), 0.0, 0)
    for history in (entries[0][:30], entries[2][:9], entries[1][:2], rng.integers(0, V, 12), entries[0][:1]):
        p = p0.copy()
        memory_read(history, len(history), tables, gates, found, p)
        np.testing.assert_allclose(p, naive.counted(entries, history, p0, gates), rtol=1e-12)
        assert p.sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(("mixed", "below"), [(0.2, 0.1), (0.1, 0.2), (1.0, 1e-9), (1e-9, 1.0), (0.0, 0.0), (0.5, 0.0)])
def test_trust_is_what_the_memory_gained(mixed: float, below: float) -> None:
    assert trust_after(0.5, -1.2, mixed, below) == pytest.approx(naive.trusted(0.5, -1.2, mixed, below), rel=1e-12)


def test_trust_parts_the_gates() -> None:
    near = [(late + a, long + b) for late in LATE for long in LONG for a in (-1e-9, 0, 1e-9) for b in (-1e-9, 0, 1e-9)]
    rows = [trust_row(*trust) for trust in [(0.0, 0.0), (0.0, 1.0), *near]]
    assert rows == [naive.trust_row(*trust) for trust in [(0.0, 0.0), (0.0, 1.0), *near]]
    assert set(rows) == set(range(TRUSTS))


def test_words_are_read_as_often_as_is_said() -> None:
    words = np.random.default_rng(2).integers(-1000, 1000, 77)
    assert [read_words(words, repeats) for repeats in (0, 1, 5)] == [naive.read_words(words, n) for n in (0, 1, 5)]


def test_the_sentences_that_share_most_are_attended_to() -> None:
    rng, n_words, share = np.random.default_rng(1), 40, 1e-4
    end, line = n_words + 1, n_words + 2
    vocab = (
        np.arange(n_words + 3, dtype=np.uint16),
        np.array([recall.LINE, *[recall.PIECE] * n_words, recall.ENDS, recall.LINE], np.uint8),
        np.full(n_words + 3, share),
        np.arange(n_words + 3) + 1,
        np.ones(n_words + 3, np.int64),
    )
    store = make_store(256)
    sentences = [rng.integers(1, n_words + 1, 6).tolist() for _ in range(25)]
    workspace = make_workspace()
    for words in sentences:
        recall.begin_entry(store)
        ids, recalled = np.array([0, *words, end]), blank(7, 3)
        recall.recall_learn(ids, 1, len(ids), (False, False, True), store, vocab, workspace, recalled)
        assert not np.isnan(recalled).any()
    question = rng.integers(1, n_words + 1, 8)
    history = np.array([0, line, *question])
    n_found, known, _ = recall.recall_read(history, len(history), False, 100, store, vocab, workspace)
    shared = naive.shared(sentences, question.tolist(), int(store[5][0]), PRIOR, share)
    assert n_found > 0
    assert known == pytest.approx(1)
    top, masses = workspace[7][: recall.ATTENDED], workspace[8][: recall.ATTENDED, 0]
    numbers = top[:, 0] // 8  # an entry takes 8 places
    np.testing.assert_allclose(masses, shared[numbers], rtol=1e-6)
    np.testing.assert_allclose(masses, np.sort(shared)[::-1][: recall.ATTENDED], rtol=1e-6)
    # What is written in between calls is taken back.
    assert not workspace[0].any()
    assert not workspace[1].any()
    assert (workspace[4] == -1).all()
    assert len(workspace[4]) == SENTENCES
