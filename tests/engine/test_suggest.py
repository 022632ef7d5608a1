"""Words and their probabilities, against all words of a small tree."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from edgelm.engine.generate import Mix
from edgelm.engine.sampler import log_softmax
from edgelm.engine.session import ReferenceSession
from edgelm.engine.suggest import _starts_word, suggest_words
from edgelm.model import hub


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> hub.Model:
    return hub.load(str(tiny_model))


def test_a_word_costs_its_tokens_and_its_end(model: hub.Model) -> None:
    session = ReferenceSession(model.config, model.weights)
    prompt = [0, *model.tokenizer.encode("The ferry leaves the")]
    words = suggest_words(session, model.tokenizer, prompt, 3)
    assert len({word for word, _ in words}) == 3
    values = [value for _, value in words]
    assert values == sorted(values, reverse=True)
    starts = [i for i in range(model.tokenizer.vocab_size) if _starts_word(model.tokenizer.decode_bytes([i]))]
    for word, value in words:
        ids = model.tokenizer.encode(f" {word}")
        session.reset()
        logits = session.run(np.array([*prompt, *ids]), len(prompt) - 1)
        scores = log_softmax(logits)
        spelled = scores[np.arange(len(ids)), ids].sum() + np.log(np.exp(scores[-1, starts]).sum())
        # The same word may be spelled by other tokens too; its usual spelling is the most of it.
        assert 0.5 * value < np.exp(spelled) <= value * (1 + 1e-6)


def test_a_memory_is_asked(model: hub.Model) -> None:
    session = ReferenceSession(model.config, model.weights)
    prompt = [0, *model.tokenizer.encode("On board is")]
    target = model.tokenizer.encode(" the")
    assert len(target) == 1

    def new_mix() -> Mix:
        read: list[int] = []

        def mix(ids: Sequence[int], probabilities: np.ndarray) -> np.ndarray:
            read.extend(ids)
            assert read[: len(prompt)] == prompt
            if read == prompt:
                probabilities = 0.1 * probabilities
                probabilities[target[0]] += 0.9
            return probabilities

        return mix

    assert suggest_words(session, model.tokenizer, prompt, 1, new_mix)[0][0].startswith("the")
