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
        case, without signs, and has ``^`` before it if it is one only at the beginning of a conversation; a ``*`` in it
        stands for one to three words.
    """

    def __init__(self, lines: Sequence[str] = ()) -> None:
        self._replies: Mapping[str, list[str]] = {
            turn: replies.split("|")
            for turns, replies in (line.split("\t") for line in lines)
            for turn in turns.split("|")
        }
        self._open = {
            re.compile(re.escape(turn).replace(r"\*", r"\w+(?: \w+){0,2}")): replies
            for turn, replies in self._replies.items()
            if "*" in turn
        }

    def find(self, turn: str, n_before: int) -> Exchange | None:
        """The exchange of a turn that is in the list, with ``n_before`` turns before it in the conversation."""
        words = " ".join(re.findall(r"[^\W_]+", turn.lower().replace("'", "").replace("’", "")))
        for form in (words, _FIRST + words) if n_before == 0 else (words,):
            if replies := self._replies.get(form):
                return Exchange(turn, replies[n_before % len(replies)])
        for pattern, replies in self._open.items():
            if pattern.fullmatch(words):
                return Exchange(turn, replies[n_before % len(replies)])
        return None


@cache
def shipped() -> Courtesies:
    """Those that come with edgelm."""
    path = files("edgelm").joinpath("models", "talk", "courtesies.tsv")
    return Courtesies(path.read_text(encoding="utf-8").splitlines())
