"""Who asks for something to be forgotten is told how, and nothing of the request is kept."""

from __future__ import annotations

import pytest

from edgelm.memory.answering import NOT_TOLD, Answering
from edgelm.memory.forgetting import ALL, FORGET, FORGET_ALL, LAST, NOTHING_FOUND, asks_to_forget
from edgelm.memory.meaning import Meaning
from edgelm.memory.sorrow import is_sad
from edgelm.memory.statements import Statement, Statements, told_in

TOLD = (
    "I am allergic to walnuts.", "My uncle Alan has a cold. He snores like a walrus.",
    "My train leaves at eight. No, it leaves at nine.", "My dog Rex snores.", "ok thanks",
)  # fmt: skip


@pytest.mark.parametrize(
    ("turn", "wanted"),
    [
        ("Forget that.", LAST), ("please forget what I just said", LAST), ("Can you forget this one, please?", LAST),
        ("OK, forget  that please", LAST), ("Actually, delete the last thing I said", LAST),
        ("forget everything", ALL), ("Forget all that I told you!", ALL), ("forget everything you know about me", ALL),
        ("erase it all", ALL),
        ("forget that I am allergic to walnuts", "I am allergic to walnuts"),
        ("Could you please forget what I told you about Rex?", "Rex"),
        ("I want you to forget about my divorce.", "my divorce"), ("Forget my address", "my address"),
        ("you must forget the fact that I drink", "I drink"), ("Unlearn that I’m forty", "I'm forty"),
        ("don't forget that I am allergic to walnuts", None), ("forget it", None), ("Forget about it!", None),
        ("I forget that all the time", None), ("Never forget me", None), ("I forgot that we were out of milk", None),
        ("Forget-me-nots are blue", None), ("How do I forget about her?", None),
        ("forget to buy milk and I will cry", None),
        ("Forget that I am allergic to nuts and I will end up in hospital", None),
        ("Now forget that noise, my sister got married yesterday!", None),
        ("Forget that old car, I bought a Tesla", None), ("Forget about Paris, we are going to Rome in May", None),
        ("Forget about my ex! I am dating Sam now", None),
        ("Forget that for a moment, what is the capital of Peru?", None),
        ("Can you forget about your first kiss?", None), ("Forget that you have a cat", None),
        ('"Forget about it", my boss told me', None), ("you can forget about good coffee in my office", None),
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
        ("Forget that my uncle has a cold", FORGET.format("My uncle Alan has a cold.")),
        ("Forget what I told you about the train", FORGET.format("No, it leaves at nine.")),
    ],
)  # fmt: skip
def test_the_command_is_named(turn: str, answer: str) -> None:
    meaning = Meaning()
    told = [Statement(text, i) for i, text in enumerate(TOLD)]
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


@pytest.mark.parametrize(
    "turn",
    [
        "Do you know what? I got the job!", "Do you remember my dog? He died yesterday.",
        "Can you tell me who wrote Hamlet? I need it for school.", "do you know how many teeth we have",
        "can you tell me how I get to the station", "do you know how to clean my oven",
        "do you know what my chances are",
        "do you know what to do when my baby has a fever", "do you know what is good for my sore throat",
        "Do you know how lonely I feel?", "do you know what is wrong with my car",
    ],
)  # fmt: skip
def test_not_all_that_begins_so_asks_for_what_was_told(turn: str) -> None:
    meaning = Meaning()
    told = [Statement("My dog is called Rex.", 1), Statement("My flight leaves at nine on Friday.", 2)]
    for statements in (Statements(meaning), Statements(meaning, told)):
        plan = Answering(meaning).plan(turn, statements)
        assert plan.text is None or (plan.told and plan.text.startswith("I am not sure"))


@pytest.mark.parametrize(
    ("remark", "sad"),
    [
        ("my girlfriend left me two months ago", True), ("My dad left us when I was five", True),
        ("She dumped me.", True),
        ("He broke up with me", True), ("My husband is leaving me", True), ("She left me a lovely note", False),
        ("The taxi left me at the door", False), ("School broke up for summer today!", False),
        ("We split up the bill", False),
    ],
)  # fmt: skip
def test_who_was_left_is_sad(remark: str, sad: bool) -> None:
    assert is_sad(remark) == sad
