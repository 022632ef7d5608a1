"""On the point: pairs of a file, and the scores against the reference, token by token."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgelm.engine.opening import open_session
from edgelm.errors import InputError
from edgelm.measure.point import Scorer, on_the_point, read_pairs
from edgelm.model import hub
from edgelm.model.reference import forward
from edgelm.model.state import empty_state
from edgelm.text.tokenizer import DOC_ID

PAIRS = [(f"I saw {n} birds today", f"{n} birds, how nice!") for n in range(24)]


def test_the_scores_are_those_of_the_reference(tiny_model: Path) -> None:
    model = hub.load(str(tiny_model))
    scorer = Scorer(open_session(model, precision="float32"), model.tokenizer)
    said, replies = "hello there", ["Hi!", "Good night, sleep well."]
    for reply, score in zip(replies, scorer.replies(said, replies), strict=True):
        head = [DOC_ID, *model.tokenizer.encode(f"User: {said}\nAssistant:")]
        tail = model.tokenizer.encode(f" {reply}\n")
        logits, _, _ = forward(np.array([*head, *tail]), model.weights, empty_state(model.config), model.config)
        part = logits[len(head) - 1 : -1].astype(np.float64)
        log_p = part - np.log(np.exp(part).sum(-1, keepdims=True))
        assert score == pytest.approx(float(log_p[np.arange(len(tail)), tail].sum()), rel=1e-4)


def test_the_fields_fit_together(tiny_model: Path) -> None:
    model = hub.load(str(tiny_model))
    found = on_the_point(open_session(model), model.tokenizer, PAIRS)
    assert found["pairs"] == 24
    assert 0 <= found["first_of_20"] <= 1
    gain = 1 - found["bits_per_byte"] / found["bits_per_byte_after_another"]
    assert found["conditioning_gain"] == pytest.approx(gain, abs=1e-3)
    assert found == on_the_point(open_session(model), model.tokenizer, PAIRS)


def test_pairs_of_json_and_of_dialogues() -> None:
    lines = "\n".join(json.dumps({"said": said, "reply": reply}) for said, reply in PAIRS)
    assert read_pairs(lines, "pairs") == PAIRS
    dialogues = "<|doc|>\n".join(f"User: {said}\nAssistant: {reply}\n" for said, reply in PAIRS)
    assert read_pairs(dialogues, "dialogues") == PAIRS


@pytest.mark.parametrize("text", ['{"said": "a"}', "{", "User: a\nAssistant: b\n", "some prose"])
def test_other_files_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"exchanges in it|not an object"):
        read_pairs(text, "file")
