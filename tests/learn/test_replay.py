"""Applying entries: the fast memory is that of the whole log, and a turn says what it taught."""

from __future__ import annotations

import numpy as np
import pytest

from edgelm.errors import DivergenceError
from edgelm.learn.learner import Learner
from edgelm.log.entry import CHAT
from tests.learn.acts import DAY, Open, assert_knows_the_whole_log, perform


@pytest.mark.jit_only
def test_the_memory_is_that_of_the_whole_log(open_: Open) -> None:
    adaptation = open_()
    perform(adaptation, DAY)
    assert_knows_the_whole_log(adaptation)


@pytest.mark.jit_only
@pytest.mark.parametrize("failing", range(1, 8))
def test_the_memory_learns_what_the_weights_cannot(open_: Open, monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    adaptation = open_()
    adaptation.prepare()
    update, calls = Learner._update, []

    def broken(learner: Learner, losses: np.ndarray) -> None:
        calls.append(1)
        if len(calls) == failing:
            raise DivergenceError("a gradient is not finite")
        update(learner, losses)

    monkeypatch.setattr(Learner, "_update", broken)
    perform(adaptation, DAY[:5])
    assert len(calls) >= 7
    notes = [entry.note for entry in adaptation.entries if entry.note]
    assert notes == ["a gradient is not finite: taken back to the last good point"]
    assert_knows_the_whole_log(adaptation)


def test_what_a_turn_taught(open_: Open) -> None:
    adaptation = open_()
    text = "The ferry leaves at seven."
    entry = adaptation.tell(CHAT, text, conversation=1)
    counted: list[int] = []
    learned = adaptation.learn(entry, on_tokens=counted.append, report=True)
    assert learned is not None
    assert learned.tokens == sum(counted) > len(adaptation.model.tokenizer.encode(text))
    assert learned.loss_after < learned.loss_before
    assert learned.bits_gained > 0
    assert adaptation.learn(adaptation.tell(CHAT, text, conversation=1)) is None
