"""The bank of exchanges, and plain twins of its scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgelm.memory.bank import WEIGHTS, Bank, Exchange, PackedExchanges, read_exchanges
from edgelm.memory.meaning import Meaning
from edgelm.memory.rewriting import adapted_reply
from edgelm.memory.sorrow import is_relief, is_sad

EXCHANGES = [
    Exchange("I spilled juice on my laptop.", "Switch the laptop off at once."),
    Exchange("I missed my bus this morning.", "How annoying! When does the next bus come?"),
    Exchange("I miss my grandmother.", "It is hard to miss somebody. What was she like?"),
    Exchange("What is the capital of Peru?", "Lima is the capital of Peru."),
    Exchange("We got a puppy!", "A puppy, how lovely! What is its name?"),
    Exchange("I do not like rain.", "Rain makes many people sad."),
]


@pytest.fixture(scope="module")
def meaning() -> Meaning:
    return Meaning()


@pytest.fixture(scope="module")
def shipped(meaning: Meaning) -> Bank:
    return Bank(meaning, read_exchanges())


@pytest.fixture(scope="module")
def bank(meaning: Meaning, shipped: Bank) -> Bank:
    return Bank(meaning, EXCHANGES, shipped)


@pytest.mark.parametrize(
    ("remark", "index"),
    [("There is juice all over my computer", 0), ("my bus left without me", 1), ("I miss my grandma so much", 2),
     ("capital of Peru?", 3), ("We have a new little dog", 4)],
)  # fmt: skip
def test_the_nearest_is_found_by_meaning(bank: Bank, remark: str, index: int) -> None:
    assert bank.nearest(remark)[0].exchange == EXCHANGES[index]


def test_the_score_is_the_equation(bank: Bank, meaning: Meaning) -> None:
    remark = "I spilled tea on my computer"
    asked = meaning.lines([remark])
    parts, _ = bank.features(remark, asked, np.arange(len(EXCHANGES)))
    idf = bank._idf
    for row, exchange in zip(parts, EXCHANGES, strict=True):
        said = meaning.lines([exchange.said])
        similar = np.maximum(meaning.unit("alike", asked.rows) @ meaning.unit("alike", said.rows).T, 0) ** 2
        similar[asked.stems[:, None] == said.stems] = 1
        covered = (similar.max(1) * idf[asked.rows]).sum() / (idf[asked.rows].sum() + 1e-3)
        covering = (similar.max(0) * idf[said.rows]).sum() / (idf[said.rows].sum() + 1e-3)
        mine = list(zip(asked.stems.tolist(), asked.stems.tolist()[1:], strict=False))
        theirs = list(zip(said.stems.tolist(), said.stems.tolist()[1:], strict=False))
        shared = sum(pair in mine for pair in theirs) / (len(asked.rows) - 1)
        np.testing.assert_allclose(row[:3], [covered, covering, shared], rtol=1e-3, atol=1e-5)
    best = bank.nearest(remark, 1)[0]
    assert best.score == pytest.approx(float((parts @ np.array(WEIGHTS)).max()), rel=1e-5)


def test_a_question_for_something_else_differs(bank: Bank) -> None:
    same, other = bank.nearest("What's the capital of Peru?", 1)[0], bank.nearest("What is the capital of Chad?", 1)[0]
    assert (same.exchange, other.exchange) == (EXCHANGES[3], EXCHANGES[3])
    assert not same.differs
    assert other.differs


@pytest.mark.parametrize("remark", ["", "?!", "的", "qqqq zzzz"])
def test_a_remark_without_known_words_finds_nothing_or_little(bank: Bank, meaning: Meaning, remark: str) -> None:
    assert all(near.score < 1.9 for near in bank.nearest(remark))
    assert Bank(meaning, ()).nearest(remark) == []


def test_what_comes_with_edgelm_can_be_read(shipped: Bank) -> None:
    exchanges = shipped.exchanges
    assert len(exchanges) > 20_000
    for index in (0, len(exchanges) // 2, len(exchanges) - 1):
        said, reply, entry_id = exchanges[index]
        assert said
        assert reply
        assert entry_id is None


@given(
    st.lists(st.tuples(st.text(st.characters(exclude_characters="\t\n\r", codec="utf-8"), min_size=1), st.just("b")))
)
def test_packed_exchanges_are_those_packed(rows: list[tuple[str, str]]) -> None:
    packed = PackedExchanges("".join(f"{said}\t{reply}\n" for said, reply in rows).encode())
    assert [packed[i] for i in range(len(packed))] == [Exchange(said, reply) for said, reply in rows]


@pytest.mark.parametrize("text", [b"no tab\n", b"a\tb\tc\n", b"a\tb", b"\t\n\tb"])
def test_lines_of_other_columns_are_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match="two columns"):
        PackedExchanges(text)


@pytest.mark.parametrize(
    ("said", "reply", "remark", "expected"),
    [
        ("We got a puppy!", "A puppy, how lovely!", "We got a kitten!", "A kitten, how lovely!"),
        ("We got a puppy!", "How lovely!", "We got a kitten!", "How lovely!"),
        ("My dog Rex is ill", "Poor Rex! What is wrong?", "My dog Bella is ill", "Poor Bella! What is wrong?"),
        ("We sold 12 cakes", "12 cakes, well done!", "We sold 40 cakes", "40 cakes, well done!"),
        ("My dog Rex is ill", "Poor Rex!", "My dog is ill", None),
        ("My brother is ill", "I hope he gets well.", "My sister is ill", None),
        ("It is our tenth anniversary", "Ten years, congratulations!", "It is our anniversary", None),
        ("My violin is broken", "A violin can be mended.", "I am tired", None),
        ("My son's hamster died", "Poor boy! How old was it?", "My hamster died", None),
        ("Our teacher praised us", "What did she say?", "The teacher praised us", None),
        ("Our teacher, a woman, praised us", "What did she say?", "The woman praised us", "What did she say?"),
        (
            "I have not been there for ten years",
            "Ten years is long.",
            "I have not been there for eleven years",
            "Eleven years is long.",
        ),
        ("I have three kids", "Three! How old are they?", "I have 3 kids", "3! How old are they?"),
        ("I lost five kilos", "Five kilos, well done!", "I lost ten kilos", "Ten kilos, well done!"),
        ("My father's car broke down", "Can he fix it?", "Our father's bus broke down", "Can he fix it?"),
        ("Our teacher praised us", "She's kind.", "The teacher praised us", None),
        ("I have been sober for ten years", "Ten years, well done!", "I have been sober for ten days", None),
        ("We have a baby!", "A boy or a girl?", "We have a new baby!", "A boy or a girl?"),
    ],
)
def test_a_reply_is_made_to_fit_or_refused(
    meaning: Meaning, said: str, reply: str, remark: str, expected: str | None
) -> None:
    assert adapted_reply(Exchange(said, reply), remark, meaning) == expected


def test_what_the_person_gave_as_the_answer_may_say_he_or_she(meaning: Meaning) -> None:
    exchange = Exchange("Kim is here", "She is my best friend.", 7)
    assert adapted_reply(exchange, "Kim is here again", meaning) == exchange.reply


@pytest.mark.parametrize(
    ("remark", "sad", "relief"),
    [
        ("My uncle took his own life.", True, False), ("My mum passed.", True, False),
        ("My wife Victoria passed on Sunday.", True, False), ("I passed the exam.", False, False),
        ("My father hits me", True, False), ("My wife is not dead.", False, True),
        ("My dog is not ill any more.", False, True), ("The tumour is benign.", False, True),
        ("My son survived the accident.", False, True), ("I am not alone in this, but it hurts.", True, False),
    ],
)  # fmt: skip
def test_sorrow_and_what_is_over(remark: str, sad: bool, relief: bool) -> None:
    assert (is_sad(remark), is_relief(remark)) == (sad, relief)
