"""Greetings, thanks, farewells, and what people ask of every assistant: a list has the replies, by their words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files

from edgelm.memory.bank import Exchange

_FIRST = "^"
"""Before a form that has this meaning only where a conversation begins ("yes")."""


class Courtesies:
    """A list of turns with their replies.

    Parameters
    ----------
    lines : sequence of str
        Turns with ``|`` between, a tab, and replies with ``|`` between, which are given in turns. A turn is in lower
        case, without signs, and has ``^`` before it if it is one only at the beginning of a conversation; in another
        one ``*`` stands for one to three words.
    """

    def __init__(self, lines: Sequence[str] = ()) -> None:
        self._replies: Mapping[str, list[str]] = {
            turn: replies.split("|")
            for turns, replies in (line.split("\t") for line in lines)
            for turn in turns.split("|")
        }
        self._open = [
            (re.compile(re.escape(turn).replace(r"\*", r"\w+(?: \w+){0,2}")), replies)
            for turn, replies in self._replies.items()
            if "*" in turn
        ]

    def find(self, turn: str, n_before: int) -> Exchange | None:
        """The exchange of a turn that is in the list, with ``n_before`` turns before it in the conversation."""
        words = _words(turn)
        for form in (words, _FIRST + words) if n_before == 0 else (words,):
            if replies := self._replies.get(form):
                return Exchange(turn, replies[n_before % len(replies)])
        found = next((replies for pattern, replies in self._open if pattern.fullmatch(words)), None)
        return Exchange(turn, found[n_before % len(found)]) if found else None

    def holds(self, turn: str) -> bool:
        """Whether a turn is in the list as it is, so that it tells nothing."""
        words = _words(turn)
        return words in self._replies or _FIRST + words in self._replies


def _words(turn: str) -> str:
    return " ".join(re.findall(r"[^\W_]+", turn.lower().replace("'", "").replace("’", "")))


@cache
def shipped() -> Courtesies:
    """Those that come with edgelm."""
    path = files("edgelm").joinpath("models", "talk", "courtesies.tsv")
    return Courtesies(path.read_text(encoding="utf-8").splitlines())
