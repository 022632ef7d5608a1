"""Many dialogues with one session: each goes on where it was."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from edgelm.engine.ort_session import OrtSession
from edgelm.engine.session import ReferenceSession, Session
from edgelm.engine.sharing import PART, SharedSession, StoppedError
from edgelm.export.step import build_graph
from tests.tiny import random_ids, random_model

CONFIG, WEIGHTS = random_model()
TEXTS = [random_ids(CONFIG, 12, seed) for seed in range(8)]


def session(kind: str) -> Session:
    return ReferenceSession(CONFIG, WEIGHTS) if kind == "reference" else OrtSession(build_graph(CONFIG), WEIGHTS)


def alone(session: Session, ids: np.ndarray) -> np.ndarray:
    session.reset()
    return np.concatenate([session.run(ids[i : i + 1]).copy() for i in range(len(ids))])


@pytest.mark.parametrize("kind", ["reference", "onnxruntime"])
def test_interleaved_dialogues_are_those_that_run_alone(kind: str) -> None:
    shared = SharedSession(session(kind))
    expected = [alone(session(kind), ids) for ids in TEXTS]
    dialogues = [shared.dialogue() for _ in TEXTS]
    found = [[dialogue.run(ids[t : t + 1]) for dialogue, ids in zip(dialogues, TEXTS, strict=True)] for t in range(12)]
    for n, logits in enumerate(expected):
        np.testing.assert_array_equal(logits, np.concatenate([row[n] for row in found]))


def test_threads() -> None:
    shared = SharedSession(session("onnxruntime"))
    expected = [alone(session("onnxruntime"), ids) for ids in TEXTS]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda ids: alone(shared.dialogue(), ids), TEXTS * 4))
    for logits, again in zip(expected * 4, found, strict=True):
        np.testing.assert_array_equal(logits, again)


def test_states_are_taken_back_and_emptied_wherever_they_are() -> None:
    shared = SharedSession(session("reference"))
    one, other = shared.dialogue(), shared.dialogue()
    assert one.vocab_size == CONFIG.vocab_size and one.state_bytes > 0
    first = one.run(TEXTS[0])
    state = one.snapshot()
    after = one.run(TEXTS[1])
    other.run(TEXTS[2])
    one.restore(state)
    np.testing.assert_array_equal(one.run(TEXTS[1]), after)
    other.run(TEXTS[2])
    one.reset()
    np.testing.assert_array_equal(one.run(TEXTS[0]), first)
    one.reset()
    np.testing.assert_array_equal(one.observe(TEXTS[0])[0][-1:], first)


def test_a_dialogue_that_is_gone_leaves_nothing() -> None:
    shared = SharedSession(session("reference"))
    shared.dialogue().run(TEXTS[0])
    gc.collect()
    np.testing.assert_array_equal(shared.dialogue().run(TEXTS[1]), session("reference").run(TEXTS[1]))


@pytest.mark.parametrize("first_logit", [None, 0, PART - 1, PART, PART + 1, 2 * PART + 7])
def test_a_long_text_is_read_in_parts_and_says_the_same(first_logit: int | None) -> None:
    ids = random_ids(CONFIG, 2 * PART + 8)
    whole = session("reference").run(ids, first_logit)
    found = SharedSession(session("reference")).dialogue().run(ids, first_logit)
    assert found.shape == whole.shape
    np.testing.assert_allclose(found, whole, rtol=0, atol=1e-5)


def test_a_dialogue_can_be_stopped_while_it_reads_and_others_run_in_between() -> None:
    shared, ids = SharedSession(session("reference")), random_ids(CONFIG, 3 * PART)
    dialogue, other = shared.dialogue(), shared.dialogue()
    asked: list[np.ndarray] = []

    def stopped() -> bool:
        asked.append(other.run(ids[:3]))
        return len(asked) == 2

    dialogue.stopped = stopped
    with pytest.raises(StoppedError):
        dialogue.run(ids)
    assert len(asked) == 2
    dialogue.stopped = lambda: False
    dialogue.reset()
    np.testing.assert_allclose(dialogue.run(ids), alone(session("reference"), ids)[-1:], rtol=0, atol=1e-5)
