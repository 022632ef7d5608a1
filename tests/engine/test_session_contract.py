"""What every kind of session must keep to, whatever computes under it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from edgelm.engine.kernel_session import KernelSession
from edgelm.engine.ort_session import OrtSession
from edgelm.engine.session import PREFILL_STEPS, ReferenceSession, Session
from edgelm.engine.sharing import SharedSession
from edgelm.export.step import build_graph
from edgelm.matrices.quantize import PRECISIONS
from edgelm.model.config import ModelConfig
from edgelm.model.state import state_bytes
from edgelm.model.weights import Weights
from tests.tiny import EVEN, in_memory, random_ids, random_model


def _integers(config: ModelConfig, weights: Weights) -> Session:
    return OrtSession(build_graph(config, weights, PRECISIONS["int8"]), {})


KINDS: dict[str, Callable[[ModelConfig, Weights], Session]] = {
    "reference": ReferenceSession,
    "weights as inputs": lambda config, weights: OrtSession(build_graph(config), weights),
    "weights as constants": lambda config, weights: OrtSession(build_graph(config, weights), {}),
    "integers": _integers,
    "kernels, integers": lambda config, weights: KernelSession(in_memory(config, weights)),
    "kernels, float32": lambda config, weights: KernelSession(in_memory(config, weights), "float32"),
    "shared": lambda config, weights: SharedSession(OrtSession(build_graph(config), weights)).dialogue(),
}
CONFIG, WEIGHTS = random_model(**EVEN)


@pytest.fixture(params=KINDS)
def session(request: pytest.FixtureRequest) -> Session:
    return KINDS[request.param](CONFIG, WEIGHTS)


def close(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


def test_it_says_its_sizes(session: Session) -> None:
    assert session.vocab_size == CONFIG.vocab_size
    assert session.state_bytes == state_bytes(CONFIG) == sum(array.nbytes for array in session.snapshot())
    session.run(random_ids(CONFIG, 9))
    assert sum(array.nbytes for array in session.snapshot()) == session.state_bytes, "whatever was read"


def test_the_logits_are_those_asked_for(session: Session) -> None:
    ids = random_ids(CONFIG, 12)
    every = session.run(ids, 0).copy()
    assert every.shape == (12, CONFIG.vocab_size)
    for first, n in ((None, 1), (11, 1), (4, 8)):
        session.reset()
        found = session.run(ids, first)
        close(found, every[12 - n :])


def test_a_text_in_parts_is_the_text(session: Session) -> None:
    ids = random_ids(CONFIG, PREFILL_STEPS + 20)
    whole = session.run(ids).copy()
    after = session.snapshot()
    session.reset()
    for part in np.split(ids, [1, 2, 40, PREFILL_STEPS + 19]):
        last = session.run(part)
    close(last, whole)
    for found, expected in zip(session.snapshot(), after, strict=True):
        close(found, expected)


def test_a_state_comes_back_and_is_nobody_elses(session: Session) -> None:
    ids = random_ids(CONFIG, 20)
    session.run(ids[:10])
    state = session.snapshot()
    kept = [array.copy() for array in state]
    first = session.run(ids[10:]).copy()
    assert all((array == before).all() for array, before in zip(state, kept, strict=True)), "a snapshot is a copy"
    session.restore(state)
    assert (session.run(ids[10:]) == first).all()
    assert all((array == before).all() for array, before in zip(state, kept, strict=True)), "restoring takes a copy"


def test_reset_forgets(session: Session) -> None:
    ids = random_ids(CONFIG, 6)
    fresh = session.run(ids).copy()
    session.run(ids)
    session.reset()
    assert not any(array.any() for array in session.snapshot())
    assert (session.run(ids) == fresh).all()


def test_what_it_observes_is_what_it_runs(session: Session) -> None:
    ids = random_ids(CONFIG, 7)
    logits, activations = session.observe(ids)
    after = session.snapshot()
    assert activations.shape == (CONFIG.n_layers, 7, CONFIG.n_blocks)
    session.reset()
    close(session.run(ids, 0), logits)
    for found, expected in zip(session.snapshot(), after, strict=True):
        close(found, expected)
