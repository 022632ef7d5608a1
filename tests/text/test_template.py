"""Turns to text, and what a template may be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgelm.errors import ConfigError
from edgelm.text.template import MAX_STOPS, USUAL, Template

SEPARATORS = st.sampled_from(["\n", "\r", "\r\n", "\v", "\f", "\x1c", "\x85", "\u2028", "\u2029", "\n\n", " "])
PIECES = st.sampled_from(["User:", "Assistant:", "User: hi", "Assistant: no", " User: x", "", "words"]) | st.text()
TEXTS = st.lists(st.tuples(PIECES, SEPARATORS)).map(lambda pairs: "".join(piece + end for piece, end in pairs))


def test_the_template() -> None:
    assert USUAL.user_turn("  Hello.\n") == "User: Hello.\n"
    assert USUAL.assistant_turn("Hi.") == "Assistant: Hi.\n"
    assert USUAL.reply_prompt() == "Assistant:"
    assert USUAL.system_text("Be brief. ") == "Be brief.\n"
    assert USUAL.user_turn("") == "User: \n"
    assert USUAL.user_turn("one\r\ntwo") == "User: one\ntwo\n"


@pytest.mark.parametrize("turn", [USUAL.user_turn, USUAL.assistant_turn])
@given(text=TEXTS)
def test_a_label_within_forges_no_turn(turn: Callable[[str], str], text: str) -> None:
    said = turn(text)
    first, *others = said.splitlines()
    assert first.startswith(("User: ", "Assistant: "))
    assert said.endswith("\n")
    assert not any(line.startswith(tuple(f"{label}:" for label in USUAL.labels)) for line in others)


@given(text=TEXTS)
def test_only_white_space_is_added_or_taken(text: str) -> None:
    assert USUAL.clean(text).split() == text.split()
    assert USUAL.clean(text) == USUAL.clean(text).strip()


BLANK_LINES = Template("Human", "Bot", "{label}: {text}\n\n", "{text}\n\n", ("\n\n", "</s>"))


def test_another_template() -> None:
    assert BLANK_LINES.user_turn(" Hi.\nHuman: no\nUser: yes ") == "Human: Hi.\n Human: no\nUser: yes\n\n"
    assert BLANK_LINES.reply_prompt() == "Bot:" and BLANK_LINES.user_prompt == "Human:"
    assert BLANK_LINES.system_text("Be brief.") == "Be brief.\n\n"
    assert BLANK_LINES.turn_end == "\n\n" and BLANK_LINES.labels == ("Human", "Bot")
    assert Template(turn="<{label}>{text}</{label_end}>").turn_end == "</{label_end}>"


@pytest.mark.parametrize("template", [USUAL, BLANK_LINES, Template(turn="[{label}]\n{text}\n")])
@given(text=TEXTS)
def test_an_answer_makes_its_prompt_a_turn(template: Template, text: str) -> None:
    assert template.reply_prompt() + template.answer(template.clean(text)) == template.assistant_turn(text)


@pytest.mark.parametrize("template", [USUAL, BLANK_LINES])
def test_a_template_comes_back(template: Template) -> None:
    assert Template.from_dict(template.to_dict()) == template
    assert USUAL.to_dict() == {}
    assert template.document([5, 6]) == [0, 5, 6]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ([], "an object"),
        ({"sotps": []}, "unknown field 'sotps'"),
        ({"stops": "x"}, "a list"),
        ({"stops": ["x"] * (MAX_STOPS + 1)}, "at most"),
        ({"stops": [""]}, "printable"),
        ({"stops": [3]}, "printable"),
        ({"user_label": "Us\x1ber"}, "printable"),
        ({"user_label": "x" * 65}, "1 to 64"),
        ({"user_label": "User\n"}, "one line"),
        ({"user_label": "{text}"}, "braces"),
        ({"user_label": "Assistant"}, "differ"),
        ({"turn": "{text}: {label}\n"}, "and then"),
        ({"turn": "{label}: {label} {text}\n"}, "once"),
        ({"turn": "{label}: {text}"}, "go on after"),
        ({"turn": 3}, "printable"),
        ({"system": "nothing"}, "once"),
        ({"document_id": -1}, "below"),
        ({"document_id": 65536}, "below"),
        ({"document_id": True}, "below"),
    ],
)
def test_what_a_template_may_not_be(fields: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Template.from_dict(fields)
