"""What in the banks is near to a turn, and whether its reply may be given.

To a remark by how near it is (``Near.score``). To a question by the chance that the reply answers it, for a question
may be asked in other words, or name more than it needs to:

    logit = a + b covering + c explained - d part

where covering is the share of the weight of the words of the exchange's question that the question holds
(``Near.covering``), explained the share of the weight of the question's words that the exchange holds, in its question
or in its reply, a word that is only near in meaning counting for as much as it is near; part is 1 where only a part of
the turn was looked up. Where each has a word of content that the other lacks the reply answers something else, and what
was said to a remark is no answer, unless it means the same (``SAME``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from edgelm.memory.acknowledging import CONTEXT_WORDS
from edgelm.memory.bank import Bank, Near
from edgelm.memory.meaning import Lines, Meaning
from edgelm.memory.statements import SENTENCE, is_question

Array = np.ndarray
CONSTANTS = (-9.72, 5.33, 8.68, 1.46)
"""a to d, fitted to 1,754 answers to 436 questions, each marked by a reader (docs/experiments.md)."""
ANSWERS, NEARER = 0.6, 0.2
"""Chance from which on the reply of an exchange is given to a question; what a point of the score counts for besides,
where the best of several is chosen."""
GIVEN, GIVEN_ALIKE, GREETED, READ = 1.82, 1.7, 1.5, 1.4
"""Score of an exchange from which on its reply is given; the same where turn and exchange do not each have a word of
content that the other lacks, and where both greet besides; and the score from which on the model reads it."""
SAME_KIND, SAME_KIND_ALIKE, WHATEVER_KIND, AGREEING = 0.73, 0.58, 2.1, 0.5
"""How much the kinds of turn and exchange must agree for ``GIVEN`` to be enough, and for ``GIVEN_ALIKE``; the score
from which on they need not; and what their agreement counts for, in points of the score, where the best of several is
chosen."""
SAME = 2.3
"""Score from which on a question and an exchange that does not ask mean the same ("My son asks why it is dark")."""
OWN, PART = 0.25, -0.15
"""What an exchange of the person's own is ahead by, and what one that is near to one sentence alone is behind."""
NEAREST, MOST_PARTS = 8, 3
"""Exchanges of a bank that are looked at; sentences of a turn, its last ones, that are looked up."""
_CLAUSE = re.compile(r",\s+|;\s+")
_ADVICE = re.compile(
    r"[.,!;]?\s*\b(?:(?:got |(?:do|have) you (?:have |got )?)?any (?:advice|ideas?|tips?|suggestions?)|"
    r"what (?:can|should|do|shall) (?:i|we) do(?: now| about (?:it|that))?|(?:can|could) you help(?: me)?)\W*$",
    re.IGNORECASE,
)
"""What only says that what stands before it asks for advice; it is looked up in the commonest words for that."""
_ASKED = ", what can I do?"
_GREETS = re.compile(
    r"^\W*(?:hello|hi|hey|good (?:morning|afternoon|evening))\b|\bhow (?:are you|is it going)\b|"
    r"\bhow['’]s it going\b",
    re.IGNORECASE,
)


def greets(turn: str) -> bool:
    """Whether a turn greets, which asks for nothing that anybody would have to know."""
    return _GREETS.search(turn) is not None


class Looked(NamedTuple):
    """An exchange that was found near to a turn or to a part of it.

    Attributes
    ----------
    score : float
        How near it is, with what the person's own are ahead by and what is found for a part is behind.
    near : Near
    part : str
        What it is near to: the turn, what it says or asks in other words, or a part of it.
    chance : float or None
        That its reply answers the question that is asked. None to a remark, and of an exchange of the person's own,
        where the score decides.
    is_part : bool
        Only a part of the turn was looked up.
    """

    score: float
    near: Near
    part: str
    chance: float | None = None
    is_part: bool = False

    def is_given(self, agreement: float) -> bool:
        """Whether its reply may be given to a turn whose kind agrees so much with that of the exchange."""
        if not self.near.differs and self.both_greet:
            return self.score >= GREETED
        if self.chance is not None:
            return self.chance >= ANSWERS
        least, needed = (SAME_KIND, GIVEN) if self.near.differs else (SAME_KIND_ALIKE, GIVEN_ALIKE)
        return self.score >= (needed if agreement >= least else WHATEVER_KIND)

    def rank(self, agreement: float) -> float:
        """The greater, the better; the person's own exchanges that are given come before others to a question."""
        return self.score + AGREEING * agreement if self.chance is None else self.chance + NEARER * self.score

    @property
    def is_answer(self) -> bool:
        """Whether its reply is an answer to the question that is asked."""
        if self.chance is not None and not self.both_greet:
            return self.chance >= ANSWERS
        asks_too = is_question(self.near.exchange.said) or self.near.score >= SAME or self.both_greet
        return asks_too and not self.near.differs

    @property
    def both_greet(self) -> bool:
        """Whether both the turn and what was said in the exchange greet."""
        return greets(self.part) and greets(self.near.exchange.said)


def look_up(meaning: Meaning, banks: Sequence[Bank], turn: str) -> list[Looked]:
    """What is near to a turn, and to each of its sentences, or to the clauses of a question."""
    several = _parts(turn)
    found = []
    for part in [turn, *(part for part in several if part != turn)]:
        is_part = part != turn and not part.endswith(_ASKED)
        for bank in banks:
            near = bank.nearest(part, NEAREST)
            chances = answers(meaning, part, near, is_part=is_part) if is_question(turn) else [None] * len(near)
            for one, chance in zip(near, chances, strict=True):
                is_own = one.exchange.entry_id is not None
                score = one.score + OWN * is_own + PART * (part != turn)
                found.append(Looked(score, one, part, None if is_own else chance, is_part))
    return found


def _parts(turn: str) -> list[str]:
    """The sentences of a turn, the last of many; or the clauses of a question; or that which it asks advice for."""
    if (
        is_question(turn)
        and (advice := _ADVICE.search(turn)) is not None
        and len(turn[: advice.start()].split()) >= CONTEXT_WORDS
    ):
        return [turn[: advice.start()] + _ASKED]
    sentences = [part for part in SENTENCE.split(turn.strip()) if len(part.split()) >= CONTEXT_WORDS]
    if len(sentences) == 1 and is_question(turn):
        # "how long does stew keep, my mother made too much"
        sentences = [turn, *(part for part in _CLAUSE.split(turn) if len(part.split()) > CONTEXT_WORDS)]
    return sentences[-MOST_PARTS:] if len(sentences) > 1 else []


def answers(meaning: Meaning, question: str, near: Sequence[Near], *, is_part: bool = False) -> list[float]:
    """The chance of each exchange that its reply answers ``question``, which is only a part of what was said or all."""
    bias, by_covering, by_explained, by_part = CONSTANTS
    covering = np.array([one.covering for one in near])
    may = np.array([not one.differs and (is_question(one.exchange.said) or one.score >= SAME) for one in near])
    logits = bias + by_covering * covering + by_explained * _explained(meaning, question, near) - by_part * is_part
    return (may / (1 + np.exp(-logits))).tolist()


def _explained(meaning: Meaning, question: str, near: Sequence[Near]) -> Array:
    """[len(near)]: what share of the weight of a question's words each exchange holds."""
    asked = meaning.lines([question])
    weights = meaning.weights(asked.rows, "match")
    texts = meaning.lines([f"{one.exchange.said} {one.exchange.reply}" for one in near])
    best = np.array([_nearest(meaning, asked, texts, i) for i in range(len(near))]).reshape(len(near), len(weights))
    return np.asarray(best @ weights / (weights.sum() + 1e-3))


def _nearest(meaning: Meaning, asked: Lines, texts: Lines, line: int) -> Array:
    """[words of ``asked``]: how near the nearest word of a text is, 0 to 1."""
    return np.minimum(meaning.similar(asked, texts, texts.line(line)), 1).max(1, initial=0)
