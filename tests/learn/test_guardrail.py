"""The guardrail: what harms general text is pulled back or undone."""

from __future__ import annotations

import numpy as np
import pytest

from edgelm.config import LearnConfig
from edgelm.log.entry import CHECKPOINT, TEXT
from tests.learn.acts import DAY, HARM, LIVELY, Act, Open, assert_knows_the_whole_log, close, perform


@pytest.mark.jit_only
def test_the_guardrail_has_something_to_do(open_: Open) -> None:
    lively = open_("lively", LIVELY)
    perform(lively, DAY)
    assert any("taken back" in entry.note for entry in lively.entries)
    usual = open_("usual")
    perform(usual, DAY)
    assert not any(entry.note for entry in usual.entries)
    assert usual.sha256 != lively.sha256


@pytest.mark.jit_only
@pytest.mark.parametrize("rate", [1000, 300])
def test_what_harms_is_taken_back(open_: Open, rate: float) -> None:
    config = LearnConfig(rate=rate)
    adaptation = open_("me", config)
    # Two hundred segments of the usual length.
    adaptation.learn(adaptation.tell(TEXT, "zq" * (100 * config.segment), conversation=1))
    note = adaptation.entries[-1].note
    assert note.startswith("general text became ")
    assert note.endswith("% worse: taken back to the last good point")
    assert all(np.isfinite(adaptation.model.weights[name]).all() for name in adaptation.base)
    close(adaptation)
    again = open_("me", config)
    again.catch_up()
    assert again.sha256 == adaptation.sha256


@pytest.mark.jit_only
def test_what_is_taken_back_are_all_weights_since_the_last_good_point(open_: Open) -> None:
    config = LearnConfig(rate=1000, gate_segments=4)
    adaptation = open_("me", config)
    count = adaptation.model.tokenizer.encode_document_lines
    text = next(text for n in range(1000) if len(count(text := "zq" * n)) >= 4 * config.segment)
    segments: list[int] = []
    adaptation.learn(adaptation.tell(TEXT, text, conversation=1), on_tokens=segments.append)
    assert len(segments) == 4
    assert "general text became" in adaptation.entries[-1].note
    for name, array in adaptation.base.items():
        np.testing.assert_array_equal(adaptation.model.weights[name], array)


@pytest.mark.jit_only
@pytest.mark.parametrize("per_session", [3, 5, 7])
def test_sessions_shorter_than_the_interval_are_checked_too(open_: Open, per_session: int) -> None:
    """What harms, told in five sessions, none of which is as long as the segments between two checks."""
    config = LearnConfig(rate=1000, gate_segments=8, gate_limit=0.01, gate_draw=0.001)
    for number in range(5):
        adaptation = open_("me", config)
        adaptation.catch_up()
        count = adaptation.model.tokenizer.encode_document_lines
        text = next(text for n in range(1000) if len(count(text := "zq" * n)) >= per_session * config.segment)
        adaptation.learn(adaptation.tell(TEXT, text, conversation=number + 1))
        adaptation.write_checkpoint()
        excess = adaptation.replay.guardrail.excess_of_all(adaptation.replay.learner.network)
        unchecked = adaptation.replay._segments
        assert 2 * unchecked < config.gate_segments, "what is not checked is kept for the next session to check"
        assert excess < config.gate_limit or unchecked > 0
        expected, watch = adaptation.sha256, (unchecked, adaptation.replay._checks, adaptation.replay._mean_excess)
        close(adaptation)
        again = open_("me", config)
        assert again.sha256 == expected
        assert (again.replay._segments, again.replay._checks, again.replay._mean_excess) == watch
        close(again)
    assert any("general text became" in entry.note for entry in adaptation.entries)


@pytest.mark.jit_only
def test_a_good_point_that_was_none_is_shrunk(open_: Open) -> None:
    """A checkpoint counts as good; where it harms, a check that takes back to it goes on towards the base."""
    config = LearnConfig(rate=1000, gate_segments=1 << 20, gate_limit=0.01, gate_draw=0.001)
    adaptation = open_("me", config)
    adaptation.learn(adaptation.tell(TEXT, HARM * 4, conversation=1))
    replay = adaptation.replay
    replay._save_good_point()
    assert replay.guardrail.excess_of_all(replay.learner.network) > config.gate_limit
    replay._check(thorough=True)
    assert replay.guardrail.excess_of_all(replay.learner.network) < config.gate_limit


@pytest.mark.jit_only
def test_weights_are_pulled_back_before_that(open_: Open) -> None:
    found = {}
    for draw in (0.001, 0.05):
        adaptation = open_(f"{draw}", LearnConfig(rate=300, gate_segments=1, gate_limit=0.05, gate_draw=draw))
        perform(adaptation, [Act(TEXT, HARM)])
        assert adaptation.entries[-1].note == ""
        found[draw] = sum(float(np.abs(adaptation.model.weights[n] - b).sum()) for n, b in adaptation.base.items())
    assert 0 < found[0.001] < found[0.05]


def test_a_loss_that_is_not_finite_is_taken_back(open_: Open) -> None:
    adaptation = open_()
    perform(adaptation, [*DAY[:2], Act(CHECKPOINT)])
    before = {name: adaptation.model.weights[name].copy() for name in adaptation.base}
    adaptation.model.weights["final_norm"][:] = np.nan
    perform(adaptation, [DAY[0]], dict.fromkeys(range(3), 0))
    assert "taken back to the last good point" in adaptation.entries[-1].note
    for name, array in before.items():
        np.testing.assert_array_equal(adaptation.model.weights[name], array)
    assert_knows_the_whole_log(adaptation)
