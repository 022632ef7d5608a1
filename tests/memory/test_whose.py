"""Of whom a question is, and of whom a statement is."""

from __future__ import annotations

import pytest

from edgelm.memory.answering import NOT_TOLD, Answering
from edgelm.memory.meaning import Meaning
from edgelm.memory.statements import Statement, Statements
from edgelm.memory.whose import asked_of, names_another, same_or_other, told_of

SAME, OTHER, UNKNOWN = 1, -1, 0


@pytest.mark.parametrize(
    ("question", "statement", "expected"),
    [
        ("What is my sister's name?", "My sister Ana is a nurse.", SAME),
        ("what's my mum called", "Mom's name is Irene.", SAME),
        ("How old is our kid?", "My daughter Freya is six.", SAME),
        ("What is the name of our pet?", "The kitten is called Pickle.", SAME),
        ("what's my mother in law called?", "My mother-in-law is called Ruth.", SAME),
        ("What is my name?", "My name is Mira.", SAME),
        ("What is my name?", "I'm Mira.", SAME),
        ("What is my spouse's job?", "My husband is a baker.", SAME),
        ("What's my brother's name?", "My sister Ana is a nurse.", OTHER),
        ("where does my mother live?", "My mother-in-law lives in Ghent.", OTHER),
        ("What is my dog called?", "Our cat is called Pickle.", OTHER),
        ("who's my boss?", "My neighbour is Mr Haddad.", OTHER),
        ("What is my name?", "Our cat is called Pickle.", OTHER),
        ("Where was my wife born?", "I was born in Cork.", OTHER),
        ("What does Freya play?", "My daughter Freya plays the cello.", UNKNOWN),
        ("Who snores?", "My husband snores.", UNKNOWN),
        ("Who taught my son to swim?", "My uncle Tom gave him lessons.", UNKNOWN),
        ("What did I give to my brother?", "I knitted a scarf for Dad.", UNKNOWN),
        ("What happened at my cousin's wedding?", "My uncle fell into the cake.", UNKNOWN),
        ("where does my aunt live?", "My mother's sister lives in Bonn.", UNKNOWN),
        ("What is my wife's sister called?", "My brother is called Jan.", UNKNOWN),
        ("What does my son play?", "Freya plays the cello.", UNKNOWN),
        ("What is my dog afraid of?", "Bruno hates our cat.", UNKNOWN),
        ("What is my dog afraid of?", "Mum hates our cat.", OTHER),
        ("How did my grandparents get along?", "They never spoke.", UNKNOWN),
        ("What is my son afraid of?", "I lie awake because of Felix and the thunder.", UNKNOWN),
    ],
)
def test_whose_they_are(question: str, statement: str, expected: int) -> None:
    assert same_or_other(asked_of(question), told_of(statement)) == expected


def test_what_was_said_of_another_is_no_answer() -> None:
    meaning = Meaning()
    told = [
        "My mother-in-law is called Ruth and she lives in Ghent.",
        "Our cat is called Pickle.",
        "I was born in Cork.",
        "Hi there!",
    ]
    statements = Statements(meaning, [Statement(text, None) for text in told])
    answering = Answering(meaning)
    for question in ("what's my wife's name?", "What is my dog called?", "where was my wife born?"):
        assert answering.plan(question, statements).text == NOT_TOLD
    assert "Ruth" in (answering.plan("what's my mother in law called?", statements).text or "")


@pytest.mark.parametrize(
    ("reply", "turn", "another"),
    [
        ("A big day for your niece.", "My daughter Lena starts school on Monday", True),
        ("Is your dog big?", "We walked in the park.", True),
        ("A big day for your daughters!", "my daughter and her sister start school", False),
        ("Is your mum well?", "My mother is ill.", False),
        ("Your wife will love it.", "My partner turns forty.", False),
        ("How old is your little brother?", "my brother can swim", False),
        ("Ask a friend.", "My cat is lost.", False),
        ("", "", False),
    ],
)
def test_a_reply_that_speaks_of_somebody_else(reply: str, turn: str, another: bool) -> None:
    assert names_another(reply, turn) is another
