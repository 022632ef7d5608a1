"""Open recall: things told in chat between small talk, asked in other words after a restart; what is written counts."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from edgelm.config import SampleConfig
from edgelm.conversation import Conversation
from edgelm.errors import InputError
from edgelm.measure.facts import everyday_prompts
from edgelm.memory.answering import ALSO, NOT_TOLD, UNSURE
from edgelm.memory.statements import told_in
from edgelm.runtime import Engine, EngineOptions
from edgelm.text.person import second_person

BETWEEN = 2
"""Things told before a turn of small talk stands between."""


@dataclass(frozen=True)
class ToldFact:
    """What is told, how it is asked for, and the word that a right answer holds; None: it was not told."""

    told: str
    asked: str
    word: str | None


def read_told(text: str, name: str) -> list[ToldFact]:
    """Facts of a file, one JSON object a line with ``told``, ``asked`` and ``word``, which may be null.

    Raises
    ------
    InputError
        A line is no such object.
    """
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
            fact = ToldFact(**{key: fields[key] for key in ("told", "asked", "word")})
            texts = [fact.told, fact.asked, *([] if fact.word is None else [fact.word])]
            if not all(isinstance(text, str) and text.strip() for text in texts):
                raise ValueError("every field must be a text")
            " ".join(texts).encode()  # half of a surrogate pair is none
        except (ValueError, TypeError, KeyError, RecursionError) as exc:
            raise InputError(f'{name}, line {number}: not a line {{"told", "asked", "word"}} ({exc})') from None
        found.append(fact)
    if not found:
        raise InputError(f'{name}: nothing in it; one JSON object a line, {{"told", "asked", "word"}}')
    return found


def bundled_facts() -> list[ToldFact]:
    """A hundred things that people tell, and questions for them."""
    text = files("edgelm").joinpath("data", "recall.jsonl").read_text(encoding="utf-8")
    return read_told(text, "recall.jsonl")


def holds(answer: str, word: str) -> bool:
    """Whether an answer holds a word, at the beginning of one of its own ("headache" in "headaches")."""
    return re.search(rf"(?<!\w){re.escape(word.casefold())}", answer.casefold()) is not None


def recall(
    options: EngineOptions, facts: Sequence[ToldFact], on_told: Callable[[int], None] = lambda n: None
) -> dict[str, Any]:
    """Tells ``facts`` in one chat with small talk between, ends it, and asks for each in a new conversation.

    Of the answers that lack the word, those are *beside* the question which say back something else that was told, and
    those are *wrong* which assert anything else: they neither decline nor ask back. Of the answers to what was not
    told, those that assert something are *claimed*, or *maybe* where they begin with "I am not sure".

    Layers of the options lie beneath what was told from the restart on.
    """
    prompts = everyday_prompts()
    with tempfile.TemporaryDirectory(prefix="edgelm-") as folder:
        options = replace(options, profiles=Path(folder), profile="recall", seed=options.seed or 1)
        sampling = SampleConfig()
        with Engine(replace(options, layers=None), writable=True) as engine:
            talk = Conversation(engine, sampling, learn=True)
            for i, fact in enumerate(facts):
                _answer(talk, fact.told)
                if i % BETWEEN == BETWEEN - 1:
                    _answer(talk, prompts[i // BETWEEN % len(prompts)])
                on_told(1)
            talk.close()
        rows = []
        with Engine(options, fixed=True) as engine:
            engine.adaptation.catch_up()
            talk = Conversation(engine, sampling, learn=False)
            for fact in facts:
                talk.reset()
                rows.append((fact, _answer(talk, fact.asked)))
    untold = [answer for fact, answer in rows if fact.word is None]
    missed = [(fact, answer) for fact, answer in rows if fact.word is not None and not holds(answer, fact.word)]
    told = {second_person(part) for text in [*(f.told for f in facts), *prompts] for part in told_in(text)}
    beside = [answer for _, answer in missed if is_said_back(answer, told)]
    wrong = [answer for _, answer in missed if asserts(answer) and not is_said_back(answer, told)]
    misses = [{"told": fact.told, "asked": fact.asked, "word": fact.word, "answer": answer} for fact, answer in missed]
    asked = len(rows) - len(untold)
    counts = {"right": asked - len(missed), "wrong": len(wrong), "beside": len(beside), "asked": asked}
    if untold:
        maybe = sum(answer.startswith(UNSURE.format("").strip()) for answer in untold)
        counts |= {"untold": len(untold), "claimed": sum(map(asserts, untold)) - maybe, "maybe": maybe}
    return {**counts, "misses": misses}


def asserts(answer: str) -> bool:
    """Whether an answer states something: it is not only a question, and not that nothing was told."""
    declined = NOT_TOLD.rstrip(".").casefold() in answer.casefold() or "do not know" in answer.casefold()
    return not declined and not answer.rstrip().endswith("?")


def is_said_back(answer: str, told: Collection[str]) -> bool:
    """Whether an answer is nothing but statements of the person's."""
    rest = answer
    for text in sorted(told, key=len, reverse=True):
        rest = rest.replace(text, "")
    return rest != answer and rest.strip() in (
        "",
        UNSURE.format("").strip(),
        f"{UNSURE.format('')} {ALSO.format('')}".strip(),
    )


def _answer(talk: Conversation, text: str) -> str:
    return "".join(talk.turn(text))
