"""What an engine reports of its learning."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from edgelm.cli.events import describe
from edgelm.config import LearnConfig
from edgelm.errors import DivergenceError
from edgelm.learn.events import Consolidated, Event, Forgotten, GuardrailChecked, SegmentLearned
from edgelm.learn.learner import Learner
from edgelm.log.entry import CHAT, TEXT
from edgelm.runtime import Engine, EngineOptions

LONG = "The harbour sleeps, and the lamps are lit one by one. " * 12


def _engine(tiny_model: Path, events: list[Event], **config: float) -> Engine:
    options = EngineOptions(str(tiny_model), bank=False)
    engine = Engine(options, LearnConfig(**config), writable=True)  # type: ignore[arg-type]
    engine.on_event = events.append
    return engine


def test_segments_checks_consolidations_and_what_was_forgotten(tiny_model: Path, home: Path) -> None:
    events: list[Event] = []
    with _engine(tiny_model, events, gate_segments=4) as engine:
        adaptation = engine.adaptation
        tokens: list[int] = []
        adaptation.learn(adaptation.tell(TEXT, LONG, conversation=1), on_tokens=tokens.append)
        segments = [event for event in events if isinstance(event, SegmentLearned)]
        assert [event.tokens for event in segments] == tokens
        assert all(0 < event.loss_nats < 50 for event in segments)
        n_blocks = engine.config.n_layers * engine.config.n_blocks
        assert all(0 < event.blocks_awake <= n_blocks for event in segments)
        checks = [event for event in events if isinstance(event, GuardrailChecked)]
        assert len(checks) == len(segments) // 4 > 0
        assert all(np.isfinite(event.excess) and event.action in ("kept", "pulled") for event in checks)

        told = adaptation.tell(CHAT, "My boat is called Heron.", conversation=2)
        adaptation.learn(told)
        adaptation.consolidate()
        assert events[-1] == Consolidated(entries=1, steps=LearnConfig().rounds, complete=True)
        adaptation.learn(adaptation.tell(CHAT, "Ada is a baker.", conversation=2))
        adaptation.consolidate(lambda: True)
        assert events[-1] == Consolidated(entries=1, steps=0, complete=False)

        assert adaptation.remove([told.id]) == [told.id]
        assert events[-1] == Forgotten((told.id,))
        events.clear()
        adaptation.catch_up()
        assert sum(event.tokens for event in events if isinstance(event, SegmentLearned)) > sum(tokens)
    assert all("\n" not in describe(event) for event in events)


def test_what_could_not_be_learned(tiny_model: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Learner, losses: np.ndarray) -> None:
        raise DivergenceError("a gradient is not finite")

    events: list[Event] = []
    with _engine(tiny_model, events) as engine:
        monkeypatch.setattr(Learner, "_update", broken)
        engine.adaptation.learn(engine.adaptation.tell(TEXT, LONG, conversation=1))
    assert events == [GuardrailChecked(math.inf, "restored")]


def test_nobody_need_listen(tiny_model: Path, home: Path) -> None:
    with Engine(EngineOptions(str(tiny_model)), writable=True) as engine:
        engine.adaptation.learn(engine.adaptation.tell(TEXT, LONG, conversation=1))


@pytest.mark.parametrize(
    ("event", "says"),
    [
        (SegmentLearned(32, 2.345, 7), "learned a segment: 32 tokens, 2.35 nats each before, 7 blocks awake"),
        (GuardrailChecked(0.0012, "kept"), "checked general text: +0.12%; kept"),
        (GuardrailChecked(0.03, "restored"), "checked general text: +3.00%; taken back"),
        (GuardrailChecked(0.03, "pulled"), "checked general text: +3.00%; weights pulled towards the base"),
        (Consolidated(3, 6, True), "repeated what was told: 3 entries, 6 steps"),
        (Consolidated(3, 1, False), "repeated what was told: 3 entries, 1 steps, broken off"),
        (Forgotten((4, 5)), "forgot entries 4, 5"),
    ],
)
def test_an_event_in_a_line(event: Event, says: str) -> None:
    assert describe(event) == says
