"""Whether a statement holds the number, the time or the name that a question asks for."""

from __future__ import annotations

import pytest

from edgelm.memory.expected import expected_in, lacks
from edgelm.memory.meaning import Meaning
from edgelm.memory.statements import Statement, Statements


@pytest.mark.parametrize(
    ("question", "statement", "expected"),
    [
        ("How old is my sister?", "My sister is a nurse in Rome.", True),
        ("How old is my sister?", "My sister turned thirty-four in May.", False),
        ("how much do I owe Pete?", "I owe Pete a tenner.", False),
        ("How many hens have we?", "We keep hens behind the shed.", True),
        ("When is my mother's birthday?", "Mum likes opera.", True),
        ("When is my mother's birthday?", "Mum turns sixty on the third of June.", False),
        ("when is my wife's birthday?", "My wife works nights this week.", True),
        ("when is my wife's birthday?", "My wife turned forty on Friday.", False),
        ("What should nobody give me for my birthday?", "I hate socks.", False),
        ("which day is swimming", "I swim on Tuesdays.", False),
        ("when do we eat", "We eat after church.", False),
        ("What's my boss called?", "My new boss hates mornings.", True),
        ("What's my boss called?", "My new boss is Mr Haddad.", False),
        ("who's our plumber?", "Yusuf does the pipes.", False),
        ("Who fixes the pipes?", "The man next door does the pipes.", False),
        ("What do I call a spurtle?", "I stir the porridge with it.", False),
    ],
)
def test_what_a_statement_lacks(question: str, statement: str, expected: bool) -> None:
    assert lacks(statement, expected_in(question)) is expected


def test_a_statement_that_holds_what_is_asked_comes_first() -> None:
    told = ["My shop opens at nine.", "My shop in Leeds opens new doors."]
    statements = Statements(Meaning(), [Statement(text, None) for text in told])
    assert statements.find("When does the shop in Leeds open?")[0].statement.text == told[0]
    assert statements.find("What opens in the shop in Leeds?")[0].statement.text == told[1]
