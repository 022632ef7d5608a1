"""Sums that are asked for plainly."""

from __future__ import annotations

import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgelm.memory.sums import _TENS, _UNITS, worked_out


@pytest.mark.parametrize(
    ("turn", "answer"),
    [
        ("What is nine minus four?", "Nine minus four is five."), ("whats 12 x 34", "12 x 34 is 408."),
        ("15% of 80", "15% of 80 is 12."), ("how much is 7 divided by 3", "7 divided by 3 is about 2.3333."),
        ("7+5*2", "7+5*2 is 17."), ("a hundred and five minus six", "A hundred and five minus six is ninety-nine."),
        ("what is half of 90?", "Half of 90 is 45."), ("12,500 times 3", "12,500 times 3 is 37,500."),
        ("what does 3 + 4 make?", "3 + 4 is 7."), ("8 x 7 =", "8 x 7 is 56."),
        ("four minus nine", "Four minus nine is minus five."), ("10 over 4", "10 over 4 is 2.5."),
        ("what is two hundred thousand plus one", "Two hundred thousand plus one is 200,001."),
        ("fourteen plus one", "Fourteen plus one is fifteen."), ("sixty minus four", "Sixty minus four is fifty-six."),
        ("what is ninety nine plus one", "Ninety nine plus one is a hundred."), ("ten - four", "Ten - four is six."),
        ("what is 3-1", "3-1 is 2."), ("2.5 + 2.5", "2.5 + 2.5 is 5."),
        ("five million plus one", "Five million plus one is 5,000,001."),
        ("123456789011 x 123456789 / 2", "123456789011 x 123456789 / 2 is 7,620,789,375,774,272,839.5."),
        ("one two plus three", None), ("two thousand million plus one", None), ("-5 + 3", None), ("1,5 plus 2", None),
        ("what is 9/11", None), ("3 - 1", None), ("1 divided by 3000000", None), ("4 minu\u017f 3", None),
        ("can you tell me what 2 plus 2 is", None), ("what's 1/0", None), ("what is 3", None), ("24/7", None),
        ("the bus is 12 minutes late", None), ("ten to nine", None), ("I have 3 + 4 cats", None), ("9-5", None),
        ("my number is 555-1234", None), ("", None), ("10:30", None), ("what is " + "9" * 13 + " plus 1", None),
    ],
)  # fmt: skip
def test_what_a_sum_comes_to(turn: str, answer: str | None) -> None:
    assert worked_out(turn) == answer


@given(
    st.lists(st.tuples(st.integers(0, 999), st.sampled_from(["plus", "minus", "times"])), min_size=1, max_size=5),
    st.integers(0, 999),
)
def test_it_is_what_python_says(pieces: list[tuple[int, str]], last: int) -> None:
    text = " ".join(f"{number} {operation}" for number, operation in pieces) + f" {last}"
    answer = worked_out(f"what is {text}?")
    assert answer is not None
    signs = {"plus": "+", "minus": "-", "times": "*"}
    expected = eval(re.sub("plus|minus|times", lambda found: signs[found[0]], text))
    found = answer.rpartition(" is ")[2].rstrip(".").replace(",", "").replace("minus ", "-")
    assert Fraction(found) == expected


@given(
    st.text(max_size=80)
    | st.lists(st.sampled_from(["one", "twenty", "and", "-", "plus", "x", "3", ",", ".", "million", "over"])).map(
        " ".join
    )
)
def test_any_turn_is_read_at_once(turn: str) -> None:
    assert worked_out(turn) is None or worked_out(turn).endswith(".")  # type: ignore[union-attr]


@given(st.integers(0, 99), st.integers(0, 99), st.sampled_from(["plus", "minus", "times"]))
def test_words_are_worth_what_they_say(first: int, second: int, operation: str) -> None:
    figures, words = (worked_out(f"what is {spell(first)} {operation} {spell(second)}") for spell in (str, _spelled))
    assert figures is not None and words is not None
    found, expected = (text.rpartition(" is ")[2].rstrip(".") for text in (words, figures))
    result = int(expected.replace("minus ", "-").replace(",", ""))
    assert found == (expected if abs(result) > 100 else _spelled(result))


def _spelled(number: int) -> str:
    if number < 0:
        return "minus " + _spelled(-number)
    if number == 100:
        return "a hundred"
    tens, units = divmod(number, 10)
    return _UNITS[number] if number < 20 else _TENS[tens - 2] + (f"-{_UNITS[units]}" if units else "")
