"""Many dialogues with one session: each goes on where it was."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from edgelm.engine.ort_session import OrtSession
from edgelm.engine.session import ReferenceSession, Session
from edgelm.engine.sharing import SharedSession
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
