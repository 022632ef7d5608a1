"""When a larger model, the friend, is asked, and how little it is told.

It is asked by itself for questions that neither what was told, nor the bank, nor the model answers well, and never for
what only the person can have told. It is given the turn alone; earlier turns go with one that leans on them ("And how
tall is it?"), of them the last few, and of their answers those that are the friend's own: any other answer may say what
was told in another conversation. A conversation that holds what looks like a secret is not sent at all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgelm.memory.statements import is_question
from edgelm.text.secrets import without_secrets
from edgelm.turn import Source, Turn

Friend = Callable[[Sequence[tuple[str, str]], str, bool], str]
"""Asked where the model is unsure: (earlier turns and their answers, the turn, whether the person asks for it by
``/ask``) to an answer, which may be empty."""
UNSURE = -0.25
"""Mean log-probability in nats a token below which the model's own answer to a question is not given if there is a
friend and no bank, beside which the limit is that of ``answering.UNSURE_ANSWER`` (docs/serve.md has the figures)."""
OF_THE_PERSON = -1.6
"""Logit (``Meaning.asks``) from which on a question with I, my or we in it is about the person, and not sent by itself:
lower than where it is answered with what was told, since what was sent cannot be taken back."""
MOST_BEFORE = 2
"""Earlier turns that go with one that leans on them, at most."""
_FEW_WORDS = 3
_LEANS = re.compile(
    r"^\W*(?:and|but|or|so|then|also|what about|how about)\b|"
    r"\b(?:it|its|he|him|his|she|her|hers|they|them|their|this|these|those|one|ones|else|more)\b|"
    r"\b(?:that|there|so)\W*$|\bthat one\b",
    re.IGNORECASE,
)
"""What has a turn mean nothing by itself."""
_OF_ME = re.compile(r"\b(?:i|me|my|mine|myself|we|us|our|ours)\b", re.IGNORECASE)
_ADVICE = re.compile(r"^\W*why\b|\bhow (?:do|can|could|should|would|might) (?:i|we)\b", re.IGNORECASE)
_WANTS = re.compile(r"^\W*(?:please )?(?:define|describe|explain|translate|compare|summari[sz]e)\b", re.IGNORECASE)
"""How a turn begins that asks without being a question."""


@dataclass(frozen=True)
class Request:
    """What a friend is given.

    Attributes
    ----------
    before : tuple of (str, str)
        Earlier turns of the person and their answers, which may be empty.
    text : str
    alone : bool
        Whether the turn means the same without the earlier ones, so that its answer may be learned.
    """

    before: tuple[tuple[str, str], ...]
    text: str
    alone: bool


def may_be_asked(text: str, asks: float) -> bool:
    """Whether a turn may go to a friend without the person's saying so: it asks, and not for what was told.

    Parameters
    ----------
    text : str
    asks : float
        The logit that the turn asks for what the person told, of ``Meaning.asks``.
    """
    if not is_question(text) and not _WANTS.match(text):
        return False
    return asks <= OF_THE_PERSON or not _OF_ME.search(text) or _ADVICE.search(text) is not None


def request_for(turn: Turn, said: Sequence[Turn]) -> Request | None:
    """What a friend is given for ``turn``, of which ``said`` are the turns before it in this conversation.

    None where the conversation holds what looks like a secret, be it spread over two turns.
    """
    words = [*(one.text for one in said), turn.text]
    if any(without_secrets(text)[1] for text in ["\n".join(words), *words, *(one.reply for one in said)]):
        return None
    if not said or not leans(turn.text):
        return Request((), turn.text, alone=True)
    before = [(one.text, one.reply if one.source is Source.FRIEND else "") for one in said[-MOST_BEFORE:]]
    return Request(tuple((text, reply) for text, reply in before if text.strip()), turn.text, alone=False)


def leans(text: str) -> bool:
    """Whether a turn says what it means only together with the turns before it."""
    return len(text.split()) < _FEW_WORDS or _LEANS.search(text) is not None
