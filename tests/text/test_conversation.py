"""Turns to text."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgelm.text.conversation import LABELS, assistant_turn, clean, reply_prompt, system_text, user_turn

SEPARATORS = st.sampled_from(["\n", "\r", "\r\n", "\v", "\f", "\x1c", "\x85", "\u2028", "\u2029", "\n\n", " "])
PIECES = st.sampled_from(["User:", "Assistant:", "User: hi", "Assistant: no", " User: x", "", "words"]) | st.text()
TEXTS = st.lists(st.tuples(PIECES, SEPARATORS)).map(lambda pairs: "".join(piece + end for piece, end in pairs))


def test_the_template() -> None:
    assert user_turn("  Hello.\n") == "User: Hello.\n"
    assert assistant_turn("Hi.") == "Assistant: Hi.\n"
    assert reply_prompt() == "Assistant:"
    assert system_text("Be brief. ") == "Be brief.\n"
    assert user_turn("") == "User: \n"
    assert user_turn("one\r\ntwo") == "User: one\ntwo\n"


@pytest.mark.parametrize("turn", [user_turn, assistant_turn])
@given(text=TEXTS)
def test_a_label_within_forges_no_turn(turn: Callable[[str], str], text: str) -> None:
    said = turn(text)
    first, *others = said.splitlines()
    assert first.startswith(("User: ", "Assistant: "))
    assert said.endswith("\n")
    assert not any(line.startswith(tuple(f"{label}:" for label in LABELS)) for line in others)


@given(text=TEXTS)
def test_only_white_space_is_added_or_taken(text: str) -> None:
    assert clean(text).split() == text.split()
    assert clean(text) == clean(text).strip()
