"""What a learned change gives back of the words behind it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgelm.engine.opening import open_session
from edgelm.log.entry import CHAT, TEXT, Entry
from edgelm.measure import exposure
from edgelm.model import hub


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
