"""What in the banks is near to a turn, and whether its reply may be given."""

from __future__ import annotations

import numpy as np
import pytest

from edgelm.memory.bank import Bank, Exchange, Near, read_exchanges
from edgelm.memory.meaning import Meaning
from edgelm.memory.relevance import ANSWERS, CONSTANTS, GIVEN, SAME_KIND, WHATEVER_KIND, Looked, answers, look_up


@pytest.fixture(scope="module")
def meaning() -> Meaning:
    return Meaning()


@pytest.fixture(scope="module")
def bank(meaning: Meaning) -> Bank:
    return Bank(meaning, read_exchanges())


def test_the_chance_is_the_equation(meaning: Meaning) -> None:
    question, near = (
        "how long does rice keep",
        Near(Exchange("how long does cooked rice keep", "A day."), 2.0, False, 0.8),
    )
    asked, text = (meaning.lines([t]) for t in (question, "how long does cooked rice keep A day."))
    weights, explained = meaning.weights(asked.rows, "match"), 0.0
    for i, weight in enumerate(weights):
        similar = meaning.similar(asked, text)[i]
        explained += float(weight) * min(1.0, float(similar.max()))
    a, b, c, d = CONSTANTS
    logit = a + b * 0.8 + c * explained / (float(weights.sum()) + 1e-3)
    assert answers(meaning, question, [near]) == pytest.approx([1 / (1 + np.exp(-logit))], rel=1e-4)
    assert answers(meaning, question, [near], is_part=True) == pytest.approx([1 / (1 + np.exp(d - logit))], rel=1e-4)


def test_another_question_and_a_remark_have_no_chance(meaning: Meaning) -> None:
    same = Near(Exchange("how long does rice keep", "A day."), 2.0, False, 1.0)
    assert answers(meaning, "how long does rice keep", []) == []
    found = answers(
        meaning, "how long does rice keep",
        [same, same._replace(differs=True), same._replace(exchange=Exchange("rice keeps long", "It does."))],
    )  # fmt: skip
    assert found[0] > ANSWERS and found[1:] == [0, 0]


@pytest.mark.parametrize(
    ("turn", "said"),
    [
        ("how long does stew keep, me mam made enough for a regiment", "stew"),
        ("is 17 too old to go trick or treating", "trick"),
        ("how do you get biro off a leather sofa. asking before my husband gets home", "biro"),
        ("whats the capital of peru", "Peru"),
    ],
)
def test_a_question_finds_its_answer(meaning: Meaning, bank: Bank, turn: str, said: str) -> None:
    best = max(look_up(meaning, [bank], turn), key=lambda one: one.chance or 0)
    assert best.is_given(0.0) and best.is_answer and said in best.near.exchange.said


@pytest.mark.parametrize(
    "turn", ["whats the capital of atlantis", "how long does a zeppelin keep", "how many legs has a table"]
)
def test_what_nobody_answered_stays_open(meaning: Meaning, bank: Bank, turn: str) -> None:
    assert not any(one.is_given(1.0) for one in look_up(meaning, [bank], turn))


def test_a_remark_is_judged_by_score_and_kind() -> None:
    near = Near(Exchange("My dog is ill.", "Poor dog."), GIVEN, True)
    looked = Looked(GIVEN, near, "my cow is ill")
    assert looked.is_given(SAME_KIND) and not looked.is_given(SAME_KIND - 0.1)
    assert looked._replace(score=WHATEVER_KIND).is_given(0)
    assert looked.rank(0.5) > looked.rank(0.1) > looked._replace(chance=0.9).rank(1.0)


def test_the_persons_own_and_greetings_are_judged_by_score(meaning: Meaning, bank: Bank) -> None:
    own = Bank(meaning, [Exchange("how long does stew keep", "Ask Anna.", 3)], bank)
    found = look_up(meaning, [own, bank], "how long does stew keep?")
    assert found[0].near.exchange.entry_id == 3 and found[0].chance is None and found[0].is_answer
    assert all(one.chance is not None for one in found if one.near.exchange.entry_id is None)
    greeting = look_up(meaning, [bank], "hello, how are you today?")
    assert any(one.both_greet and one.is_given(0.0) and one.is_answer for one in greeting)
