"""A reply ends at the same place, however its text is cut into pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgelm.text.stops import Stops
from edgelm.text.template import Template

TEMPLATE = Template(stops=("\n\n", "</s>", "END"))
PARTS = st.sampled_from(
    ["User", "Us", "er", "Assistant", "\n", "\n\n", "</", "s>", "<", "E", "ND", " ", "word", ".", "a"]
)


def feed(pieces: list[str], template: Template = TEMPLATE) -> tuple[str, bool, str]:
    """The text of the reply, whether it ended, and what is held back."""
    stops, text = Stops(template.labels, template.stops), ""
    for piece in pieces:
        text += stops.feed(piece)
        if stops.found:
            break
    return text, stops.found, stops.held


@pytest.mark.parametrize(
    ("text", "reply", "held"),
    [
        ("Hello.\n\nMore", "Hello.", None),
        ("Hello</s>", "Hello", None),
        ("Hello</so", "Hello</so", ""),
        ("Hello\nUser", "Hello\n", None),
        ("Hello User", "Hello User", ""),
        ("User", "User", ""),
        ("one\nUs", "one\n", "Us"),
        ("one\nUse it", "one\nUse it", ""),
        ("one EN", "one ", "EN"),
    ],
)
def test_where_a_reply_ends(text: str, reply: str, held: str | None) -> None:
    assert feed([text]) == feed(list(text)) == (reply, held is None, held or "")


@given(st.lists(PARTS, max_size=12))
def test_what_is_not_held_back_comes_back(pieces: list[str]) -> None:
    text, found, held = feed(pieces)
    whole = "".join(pieces)
    assert whole.startswith(text)
    if not found:
        assert text + held == whole
        assert not any(stop in whole for stop in TEMPLATE.stops)


@given(st.lists(PARTS, max_size=12))
def test_how_the_text_is_cut_does_not_matter(pieces: list[str]) -> None:
    template = Template("\u2191", "\u2193", stops=TEMPLATE.stops)
    text, found, held = feed(pieces, template)
    assert feed(list("".join(pieces)), template)[:2] == (text, found)
    assert feed(list("".join(pieces)), template)[2] == held
