"""Corrected answers: found again by the same words, and by no others."""

from __future__ import annotations

from pathlib import Path

import pytest

import edgelm
from edgelm.memory.answers import Answers
from edgelm.text.opening import open_tokenizer
from edgelm.text.template import USUAL
from edgelm.text.tokenizer import DOC_ID

TOKENIZER = open_tokenizer(Path(edgelm.__file__).parent / "models" / "small" / "tokenizer.json")
SPELLED = [TOKENIZER.decode_bytes([i]) for i in range(TOKENIZER.vocab_size)]


def learn(answers: Answers, asked: str, answer: str, at: int = 7) -> None:
    answers.learn(
        [DOC_ID, *TOKENIZER.encode((USUAL.user_turn(asked) if asked else "") + USUAL.assistant_turn(answer))], at
    )


def answered(answers: Answers, asked: str, before: str = "", said: str = "") -> str:
    """What is given after a question and the beginning of its answer."""
    history = [DOC_ID, *TOKENIZER.encode(before + USUAL.user_turn(asked) + USUAL.reply_prompt() + said)]
    begun = len(history)
    while (given := answers.find(history)) is not None:
        assert given.at == 7
        history.append(given.id)
    assert (len(history) == begun) == (history[-1] != DOC_ID)
    return TOKENIZER.decode(history[begun:-1])


@pytest.fixture
def answers() -> Answers:
    found = Answers(SPELLED)
    learn(found, "What's my job?", "You are a doctor.")
    learn(found, "你叫什么？", "我叫 Ed。\nAnd you?")
    return found


@pytest.mark.parametrize("asked", ["What's my job?", "what is my job", "  WHAT IS MY JOB?!  ", "What’s my job?"])
def test_the_same_words_are_answered_to_the_end(answers: Answers, asked: str) -> None:
    assert answered(answers, asked) == " You are a doctor.\n"
    earlier = (
        USUAL.user_turn("What's my job?")
        + USUAL.assistant_turn("You are a sailor.")
        + USUAL.user_turn("Hm")
        + USUAL.assistant_turn("Oh")
    )
    assert answered(answers, asked, earlier) == " You are a doctor.\n"
    assert answered(answers, asked, said=" You are") == " a doctor.\n"


def test_an_answer_of_several_lines_and_other_scripts(answers: Answers) -> None:
    assert answered(answers, "你叫什么?") == " 我叫 Ed。\nAnd you?\n"


@pytest.mark.parametrize("asked", ["What is my name?", "What's the job?", "job", "my job what is", "?", "a" * 9000])
def test_other_words_are_not(answers: Answers, asked: str) -> None:
    assert answered(answers, asked) == ""


def test_an_answer_that_went_another_way_is_left_alone(answers: Answers) -> None:
    assert answered(answers, "What's my job?", said=" I") == ""
    assert answers.find([DOC_ID, *TOKENIZER.encode("What's my job?\n")]) is None
    assert answers.find([]) is None


def test_the_last_correction_holds(answers: Answers) -> None:
    twin = answers.copy()
    learn(twin, "what is my job?", "You are a pilot.")
    assert answered(twin, "What's my job?") == " You are a pilot.\n"
    assert answered(answers, "What's my job?") == " You are a doctor.\n"


@pytest.mark.parametrize("said", ["I can't see it.", "i cannot see it", "I can not see it!"])
def test_a_remark_in_another_form_tells_nothing_new(answers: Answers, said: str) -> None:
    learn(answers, "I can't see it.", "Look again.")
    assert answered(answers, said) == " Look again.\n"
    given = answers.find([DOC_ID, *TOKENIZER.encode(USUAL.user_turn(said) + USUAL.reply_prompt())])
    assert given is not None
    assert not answers.tells(TOKENIZER.encode(f" {said}\n"), given.words)
    assert not answers.tells(TOKENIZER.encode("\n"), given.words)
    assert not answers.tells(TOKENIZER.encode("can you see it\n"), given.words)
    assert answers.tells(TOKENIZER.encode("Now I can see it.\n"), given.words)


def test_an_answer_to_nothing_answers_nothing() -> None:
    answers = Answers(SPELLED)
    learn(answers, "", "You are a doctor.")
    assert answered(answers, "doc") == answered(answers, "") == ""


def test_signs_alone_are_told_apart() -> None:
    answers = Answers(SPELLED)
    learn(answers, "?", "Yes?")
    assert answered(answers, "?") == " Yes?\n"
    assert answered(answers, "!") == ""
