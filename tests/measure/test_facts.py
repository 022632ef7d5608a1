"""Made-up facts, and facts that are read from a file."""

from __future__ import annotations

import json

import pytest

from edgelm.errors import InputError
from edgelm.measure.facts import Fact, everyday_prompts, made_up, read_facts


def _line(**changes: object) -> str:
    (fact,) = made_up(1, 5)
    return json.dumps({**fact.__dict__, "others": list(fact.others), **changes})


def test_facts_are_made_up_by_their_seed() -> None:
    facts = made_up(200, 1)
    assert facts == made_up(200, 1)
    assert facts != made_up(200, 2)
    assert len({fact.tell for fact in facts}) == 200
    for fact in facts:
        assert fact.tell.startswith(fact.prompt + " " + fact.answer)
        assert len(set(fact.choices)) == 20
        assert fact.choices[0] == fact.answer
        assert fact.answer not in fact.question + fact.paraphrase
        assert "{answer}" in fact.reply and "{answer}" in fact.correction


def test_facts_are_read_from_a_file() -> None:
    assert read_facts(_line() + "\n\n" + _line(answer="x") + "\n", "a")[0] == made_up(1, 5)[0]


@pytest.mark.parametrize(
    "text",
    ["", "no json", "[]", _line(answer=3), _line(others=[]), _line(others=[1]), _line(extra="x"), '{"tell": "a"}'],
)
def test_a_file_without_facts_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="fact"):
        read_facts(text, "a file")


def test_everyday_prompts_tell_nothing() -> None:
    told = " ".join(fact.tell for fact in made_up(200, 1)).lower()
    assert len(everyday_prompts()) == 40
    assert all(prompt.lower() not in told for prompt in everyday_prompts())


def test_a_fact_has_at_most_twenty_choices() -> None:
    fact = Fact("t", "p", "a", "q", "{answer}", "p", tuple(str(i) for i in range(50)), "{answer}")
    assert fact.choices == ["a", *(str(i) for i in range(19))]
