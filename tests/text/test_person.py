"""What a person said of themselves, said to them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgelm.text.person import second_person

SAID = [
    ("My dog is called Biscuit", "Your dog is called Biscuit."),
    ("i lent my drill to Marcus", "You lent your drill to Marcus."),
    ("I'm scared of spiders, even tiny ones!", "You are scared of spiders, even tiny ones!"),
    ("oh and btw, I was born in Halifax", "You were born in Halifax."),
    ("no, I am a doctor", "You are a doctor."),
    ("Our team beat us, and I was sad. I still am.", "Your team beat you, and you were sad. You still are."),
    ("Dr Okafor wants to see me on the 14th.", "Dr Okafor wants to see you on the 14th."),
    ("I want you to call me Sam", "You want me to call you Sam."),
    ("please call me Bram from now on", "You want to be called Bram from now on."),
    ("call me when the bus is late", "Call you when the bus is late."),
    ('He said "I hate my job" to me.', 'He said "I hate my job" to you.'),
    ("You are my friend", "I am your friend."),
    ("I'd better go, I'd love to stay", "You had better go, you would love to stay."),
    ("the keys are mine", "The keys are yours."),
    ("My wife and I were happy", "Your wife and you were happy."),
    ("Remember that the alarm code is in my diary", "The alarm code is in your diary."),
    ("It’s my sister’s cake", "It's your sister's cake."),
    (
        "she is three. her name is Ida, we met at 3 p.m. on Monday",
        "She is three. Her name is Ida, you met at 3 p.m. on Monday.",
    ),
]


@pytest.mark.parametrize(("said", "back"), SAID, ids=[said for said, _ in SAID])
def test_it_is_said_back(said: str, back: str) -> None:
    assert second_person(said) == back


@pytest.mark.parametrize("text", ["", "  ", ",", "oh, and"])
def test_little_stays_little(text: str) -> None:
    assert len(second_person(text)) <= len(text) + 1


@given(st.text(max_size=200))
def test_any_text_becomes_one_line(text: str) -> None:
    said = second_person(text)
    assert len(said.splitlines()) <= 1
    assert said == said.strip()
