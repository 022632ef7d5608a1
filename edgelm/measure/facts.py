"""Made-up facts about a person's life, to measure whether they are remembered.

A file of one's own has one JSON object a line: ``tell`` (what the person says), ``prompt`` (its words up to the
answer), ``answer``, ``question``, ``reply`` (an answer's words, ``{answer}`` in them), ``paraphrase`` (the question in
other words), ``others`` (wrong answers) and ``correction`` (says something else, ``{answer}`` in it).
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np

from edgelm.errors import InputError

CHOICES = 20


@dataclass(frozen=True)
class Fact:
    """One fact, what is asked about it, and wrong answers."""

    tell: str
    prompt: str
    answer: str
    question: str
    reply: str
    paraphrase: str
    others: tuple[str, ...]
    correction: str

    @property
    def choices(self) -> list[str]:
        """The right answer, then at most 19 wrong ones."""
        return [self.answer, *self.others][:CHOICES]


def _data() -> dict[str, Any]:
    return tomllib.loads(files("edgelm").joinpath("data", "facts.toml").read_text(encoding="utf-8"))


def everyday_prompts() -> list[str]:
    """Everyday talk that asks for nothing that was told."""
    prompts: list[str] = _data()["prompts"]
    return prompts


def made_up(count: int, seed: int) -> list[Fact]:
    """So many different facts, drawn by ``seed``."""
    data, rng = _data(), np.random.default_rng(seed)
    pairs = [f"{relative} {name}" for relative in data["relatives"].split() for name in data["names"].split()]
    drawn = [(template, pair) for template in data["facts"] for pair in pairs]
    found: list[Fact] = []
    for index in rng.permutation(len(drawn))[:count]:
        template, pair = drawn[index]
        tell, question, paraphrase = (template[name].format(w=pair) for name in ("tell", "question", "paraphrase"))
        answers = [str(word) for word in rng.permutation(data["answers"][template["answer"]].split())]
        statement = tell.replace("*", "{answer}")
        found.append(
            Fact(
                tell=statement.format(answer=answers[0]),
                prompt=tell.partition("*")[0].rstrip(),
                answer=answers[0],
                question=question,
                reply=statement.replace("My ", "Your ").replace(" my ", " your "),
                paraphrase=paraphrase,
                others=tuple(answers[1:]),
                correction="Actually, " + statement[0].lower() + statement[1:] if len(found) % 2 else statement,
            )
        )
    return found


def read_facts(text: str, name: str) -> list[Fact]:
    """Facts of a file, one JSON object a line.

    Raises
    ------
    InputError
        A line is no such object.
    """
    found: list[Fact] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
            fields["others"] = tuple(fields["others"])
            fact = Fact(**fields)
            if not all(isinstance(value, str) and value for key, value in fields.items() if key != "others"):
                raise ValueError("every field must be a text")
            if not fact.others or not all(isinstance(other, str) and other for other in fact.others):
                raise ValueError("others must be a list of texts")
        except (ValueError, TypeError, KeyError) as exc:
            raise InputError(f"{name}, line {number}: not a fact ({exc}); see edgelm/measure/facts.py") from None
        found.append(fact)
    if not found:
        raise InputError(f"{name}: no facts in it; one JSON object a line, see edgelm/measure/facts.py")
    return found
