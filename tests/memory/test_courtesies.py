"""What everybody says first gets what it should."""

from __future__ import annotations

import pytest

from edgelm.memory.answering import NOT_TOLD, NOTHING_TOLD, Answering
from edgelm.memory.bank import Bank, Exchange, read_exchanges
from edgelm.memory.courtesies import Courtesies, shipped
from edgelm.memory.meaning import Meaning
from edgelm.memory.statements import Statement, Statements


@pytest.fixture(scope="module")
def meaning() -> Meaning:
    return Meaning()


def test_the_list_is_in_the_form_that_is_looked_for() -> None:
    forms = shipped()._replies
    assert len(forms) > 100
    for form, replies in forms.items():
        found = shipped().find(form.replace("*", "Jean Paul"), 0)
        assert found is not None and found.reply == replies[0], form
        assert all(text[0].isupper() and text[-1] in ".!?" for text in replies)


@pytest.mark.parametrize(
    ("turn", "n_before", "reply"),
    [
        ("hi", 0, "Hello! How are you today?"),
        ("  Hi!! ", 1, "Hello! What is new?"),
        ("What’s your name?", 0, "My name is edgelm. What is yours?"),
        ("Thank you.", 3, "Gladly."),
        ("Hi, my name is Jean-Paul. What's your name?", 2, "My name is edgelm. Nice to meet you!"),
        ("I am very sad today. What's your name?", 0, None),
        ("My name is Ana, and my dog is Rex. What is yours?", 0, None),
        ("yes", 0, "Good! What would you like to talk about?"),
        ("yes", 1, None),
        ("hi, my dog is called Biscuit", 0, None),
        ("", 0, None),
        ("^yes", 1, None),
        ("hi " * 40, 0, None),
    ],
)
def test_turns(turn: str, n_before: int, reply: str | None) -> None:
    found = shipped().find(turn, n_before)
    assert (None if found is None else found.reply) == reply


def test_the_persons_own_exchange_goes_before(meaning: Meaning) -> None:
    large = Bank(meaning, read_exchanges())
    for own in ([], [Exchange("What is your name?", "Captain.", 7)]):
        answering = Answering(meaning, [Bank(meaning, own, large), large], courtesies=shipped())
        plan = answering.plan("What is your name?", Statements(meaning))
        assert plan.text == ("Captain." if own else "My name is edgelm. What is yours?")
        assert plan.entry_ids == ({7} if own else set())


def test_an_empty_list_has_nothing() -> None:
    assert Courtesies().find("hi", 0) is None


@pytest.mark.parametrize(
    "asked",
    [
        "What do you know about me?",
        "tell me everything you remember about me",
        "Do you still remember what I told you yesterday?",
    ],
)
def test_all_that_was_told(meaning: Meaning, asked: str) -> None:
    answering = Answering(meaning, courtesies=shipped())
    assert answering.plan(asked, Statements(meaning)).text == NOTHING_TOLD
    named = Statements(meaning, [Statement("My name is Ana, what is your name", 1)])
    assert "Ana" in str(answering.plan(asked, named).text)
    told = [
        "My dog is Rex.",
        "I am a baker",
        "We live in Ghent.",
        "Yes, I sing.",
        "Hi!",
        "/forget rex",
        "thanks for listening",
    ]
    plan = answering.plan(asked, Statements(meaning, [Statement(text, i) for i, text in enumerate(told)]))
    assert plan.text == "What you told me last: You sing. You live in Ghent. You are a baker."
    assert plan.entry_ids == {1, 2, 3}


@pytest.mark.parametrize(
    "asked", ["What do I do for a living?", "Where do I work?", "What did I study?", "Do you know where I work?"]
)
def test_no_exchange_about_somebody_else_answers_for_the_person(meaning: Meaning, asked: str) -> None:
    answering = Answering(meaning, [Bank(meaning, read_exchanges())], courtesies=shipped())
    assert answering.plan(asked, Statements(meaning)).text == NOT_TOLD
