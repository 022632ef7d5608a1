"""A remark that nothing fits is acknowledged: what is said, where it is said to come from, and what is kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgelm.config import SampleConfig
from edgelm.conversation import Conversation
from edgelm.log.entry import CHAT
from edgelm.memory.acknowledging import GO_ON
from edgelm.runtime import Engine, EngineOptions
from edgelm.turn import Source

REMARK = "Quillon keeps zebras in the orangery."


@pytest.fixture
def chat(tiny_model: Path, home: Path) -> Iterator[Conversation]:
    """One that learns, with room for a whole answer."""
    with Engine(EngineOptions(str(tiny_model), seed=1), writable=True) as engine:
        yield Conversation(engine, SampleConfig(max_tokens=200), learn=True, patient=True)


def _say(chat: Conversation, text: str) -> str:
    return "".join(chat.turn(text))


def test_it_is_heard_and_kept(chat: Conversation) -> None:
    first = _say(chat, REMARK)
    assert first in GO_ON
    assert chat.turns[0].source is Source.HEARD
    assert chat.sources()[0].startswith("nothing that you told")
    assert [(entry.kind, entry.text) for entry in chat.engine.adaptation.entries if entry.text] == [(CHAT, REMARK)]
    assert _say(chat, "Ondines keep zebras in the orangery.") in {*GO_ON} - {first}


def test_a_correction_is_given_from_then_on(chat: Conversation) -> None:
    _say(chat, REMARK)
    chat.correct("They need a warm stable.").result()
    chat.reset()
    assert _say(chat, REMARK) == "They need a warm stable."


def test_a_secret_is_not_said_to_be_remembered(chat: Conversation) -> None:
    assert _say(chat, "my bicycle has a wicker basket").endswith("remember that your bicycle has a wicker basket.")
    assert _say(chat, "my password is hunter2horse9") in GO_ON
    assert chat.turns[1].secrets_skipped == 1
