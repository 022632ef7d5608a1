"""Who asks for something to be forgotten is told how, and nothing of the request is kept."""

from __future__ import annotations

import pytest

from edgelm.memory.answering import NOT_TOLD, Answering
from edgelm.memory.forgetting import ALL, FORGET, FORGET_ALL, LAST, NOTHING_FOUND, asks_to_forget
from edgelm.memory.meaning import Meaning
from edgelm.memory.statements import Statement, Statements, told_in


@pytest.mark.parametrize(
    ("turn", "wanted"),
    [
        ("Forget that.", LAST), ("please forget what I just said", LAST), ("Can you forget this one, please?", LAST),
        ("forget everything", ALL), ("Forget all that I told you!", ALL), ("forget everything you know about me", ALL),
        ("forget that I am allergic to walnuts", "I am allergic to walnuts"),
        ("Could you please forget what I told you about Rex?", "Rex"),
        ("I want you to forget about my divorce.", "my divorce"),
        ("you must forget the fact that I drink", "I drink"), ("Unlearn that I’m forty", "I'm forty"),
        ("don't forget that I am allergic to walnuts", None), ("forget it", None), ("Forget about it!", None),
        ("I forget that all the time", None), ("Never forget me", None), ("I forgot that we were out of milk", None),
        ("Forget-me-nots are blue", None), ("How do I forget about her?", None),
        ("forget to buy milk and I will cry", None),
    ],
)  # fmt: skip
def test_what_is_asked_to_be_forgotten(turn: str, wanted: str | None) -> None:
    assert asks_to_forget(turn) == wanted
    assert (told_in(turn) == []) or wanted is None


@pytest.mark.parametrize(
    ("turn", "answer"),
    [
        ("Forget that I do not eat walnuts.", FORGET.format("I am allergic to walnuts.")),
        ("forget that", FORGET.format("My dog Rex snores.")), ("forget everything you know", FORGET_ALL),
        ("Forget that I own a lighthouse in Peru.", NOTHING_FOUND),
    ],
)  # fmt: skip
def test_the_command_is_named(turn: str, answer: str) -> None:
    meaning = Meaning()
    told = [Statement(text, i) for i, text in enumerate(("I am allergic to walnuts.", "My dog Rex snores."))]
    plan = Answering(meaning).plan(turn, Statements(meaning, told))
    assert plan.text == answer and plan.listens


def test_what_nobody_told_cannot_be_forgotten() -> None:
    meaning = Meaning()
    assert Answering(meaning).plan("forget that", Statements(meaning)).text == NOTHING_FOUND


@pytest.mark.parametrize(
    "turn",
    [
        "Do you remember the name of my dog?",
        "can you tell me what my dog is called",
        "Do you still know what my dog is called?",
    ],
)
def test_a_question_by_way_of_another(turn: str) -> None:
    meaning = Meaning()
    told = Statements(meaning, [Statement("My dog is called Rex.", 1), Statement("My cat is called Mo.", 2)])
    assert Answering(meaning).plan(turn, told).text == "Your dog is called Rex."
    assert Answering(meaning).plan(turn, Statements(meaning)).text in (NOT_TOLD, None)
