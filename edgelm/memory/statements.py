"""What the person told, sentence by sentence, found by the meaning of a question."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from edgelm.memory.expected import expected_in, lacks
from edgelm.memory.forgetting import asks_to_forget
from edgelm.memory.meaning import Meaning
from edgelm.memory.whose import asked_of, same_or_other, told_of

Array = np.ndarray
SENTENCE = re.compile(r"(?<=[.!?])\s+")
_ASKS = frozenset([
    "what", "who", "whom", "whose", "where", "when", "why", "how", "which", "is", "are", "am", "was", "were",
    "do", "does", "did", "can", "could", "will", "would", "shall", "should", "may", "tell", "remind", "say",
    "guess",
])  # fmt: skip
_ASKS_SHORT = re.compile(
    r"\W*(?:(?:what|who|where|when|how|why)s\b|(?:any|got any) (?:tips?|tricks?|ideas?|advice|suggestions?)"
    r"(?=\W*$| (?:for|on|about|how|what|where|to)\b))",
    re.IGNORECASE,
)
"""How a question begins without its verb or its apostrophe."""
_ASKS_AT_ITS_END = re.compile(
    r"\b(?:what|how|where|who) (?:do|can|should|shall|could) (?:i|we) (?:do|say|use|go|ask|eat|get|fix \w+)"
    r"(?: now| about (?:it|that))?\W*$|"
    r"(?:,|\band\b) (?:should|do|can|shall) (?:i|we) (?!not\b)[^,.!?]{2,40}\W*$|"
    r"(?:\bis (?:it|he|she)|(?:[,.;]|\band) (?:is|are) (?:that|this|they)) (?:normal|ok(?:ay)?|safe|bad|dangerous)\W*$|"
    r"(?:^|[,.;]\s*)(?:got )?any (?:ideas?|tips?|advice|suggestions?)\W*$",
    re.IGNORECASE,
)
"""How somebody asks, without a question mark, after they have told something."""
_DOING = frozenset([
    "having", "going", "doing", "making", "getting", "moving", "watching", "eating", "driving", "staying", "leaving",
    "looking", "trying", "planning", "baking", "cooking", "celebrating", "expecting", "waiting", "thinking", "still",
])  # fmt: skip
_SUBJECTS = frozenset([
    "i", "you", "he", "she", "it", "we", "they", "my", "our", "your", "his", "her", "their", "the", "this", "that",
    "these", "those", "there", "anyone", "anybody", "someone", "somebody",
])  # fmt: skip
_CORRECTS = re.compile(r"(?:no|nope|actually|sorry|wait|i mean|not quite)\b[,.!: ]", re.IGNORECASE)
_LEANS = re.compile(
    r"(?:(?:no|nope|actually|sorry|wait|i mean|and|but|well|oh)[,.!: ]+)*"
    r"(?:it|it's|its|he|he's|she|she's|they|they're|that|that's|this|his|her|their)\b",
    re.IGNORECASE,
)
LONGEST = 200
"""Characters of a statement; a longer turn is cut between sentences."""
NEAR, SAME = 0.85, 0.45
"""Of statements whose scores are this near to the best one, as a share of it, and which share so much of the weight of
their words with it, the newest counts: they tell the same thing, and what was said last is right."""
NEAR_CORRECTION, SAME_CORRECTION = 0.6, 0.25
"""The same for a statement that begins as a correction does."""
NEAREST = 50
"""Statements, the best ones, of which it is looked at whose they are and what they hold."""
LACKING = 0.2
"""What a statement loses that has no number, time or name where one is asked for."""
OF_THE_SAME, OF_ANOTHER = 0.1, -9.0
"""What is added to the score of a statement of the same person or animal as the question, and to that of one of
another, which is no answer."""
_OF_ME = re.compile(r"\b(?:i|me|my|mine|we|us|our)\b", re.IGNORECASE)
_DENIAL = re.compile(r"n't\b|\b(?:not|no|never|nobody|nothing|without|cannot)\b", re.IGNORECASE)


class Statement(NamedTuple):
    """Words that the person told, and the entry of the log that holds them (None: nothing is learned)."""

    text: str
    entry_id: int | None


class Found(NamedTuple):
    """A statement, how well it answers a question, and the share of the question's weight that it says in its words."""

    statement: Statement
    score: float
    shared: float


def is_question(sentence: str) -> bool:
    """Whether a sentence asks; people often leave the question mark out."""
    return _only_asks(sentence) or _ASKS_AT_ITS_END.search(sentence) is not None


def _only_asks(sentence: str) -> bool:
    """Whether a sentence asks from its beginning on, and tells nothing."""
    if "?" in sentence:
        return True
    words = re.findall(r"[a-z']+", sentence.lower().replace("’", "'"))
    if len(words) > 1 and words[0].endswith("n't") and words[1] not in _SUBJECTS:
        return False  # "can't stop eating cherries"
    if len(words) > 1 and words[0] == "were" and words[1] in _DOING:
        return False  # "were having pancakes": an apostrophe was left out
    return bool(words) and (words[0].partition("'")[0] in _ASKS or _ASKS_SHORT.match(sentence) is not None)


def speaks_of_me(turn: str) -> bool:
    """Whether the person speaks of themselves or of what is theirs."""
    return _OF_ME.search(turn) is not None


def denies(text: str) -> bool:
    """Whether a text says that something is not so."""
    return _DENIAL.search(text.replace("’", "'")) is not None


def corrects(text: str) -> bool:
    """Whether a turn says that something said before is otherwise."""
    return _CORRECTS.match(text) is not None


def told_in(text: str, before: str = "") -> list[str]:
    """The statements of a turn: its sentences that do not ask, together as far as they are short; none of a turn that
    asks to forget something.

    One that begins with a pronoun ("no, it leaves at nine") says what of only with the statement ``before`` it.
    """
    parts: list[str] = []
    if asks_to_forget(text) is not None:
        return parts
    for sentence in SENTENCE.split(" ".join(text.split())):
        if not sentence or _only_asks(sentence):
            continue
        if parts and len(parts[-1]) + len(sentence) < LONGEST:
            parts[-1] += " " + sentence
        else:
            parts.append(sentence)
    if parts and before and _LEANS.match(parts[0]) and len(before) + len(parts[0]) < LONGEST:
        parts[0] = f"{before} {parts[0]}" if before[-1] in ".!?" else f"{before}. {parts[0]}"
    return parts


class Statements:
    """The statements of a log, oldest first.

    Parameters
    ----------
    meaning : Meaning
    statements : sequence of Statement
    earlier : Statements, optional
        Those that come before; they are not read again.
    """

    def __init__(
        self, meaning: Meaning, statements: Sequence[Statement] = (), earlier: Statements | None = None
    ) -> None:
        self._meaning, self.statements = meaning, list(statements)
        self._lines = meaning.lines([statement.text for statement in self.statements])
        if earlier is not None:
            self.statements = earlier.statements + self.statements
            self._lines = earlier._lines.then(self._lines)

    def find(self, question: str, count: int = 3) -> list[Found]:
        """The statements that answer ``question`` best, best first."""
        if not self.statements:
            return []
        asked = self._meaning.lines([question])
        scores = self._meaning.match(asked, self._lines)
        self._look_at_nearest(question, scores)
        order = np.argsort(-scores, kind="stable").tolist()
        best, found = order[0], []
        # Where nothing fits, the best score is negative, and NEAR of it would leave out the best itself.
        alike = [best, *(i for i in order[1:] if self._tells_the_same(i, best, scores))]
        newest = max(alike)
        rest = (i for i in order if i not in alike)
        for i in [newest, *rest][:count]:
            shared = self._meaning.shared(asked, self._lines.stems[self._lines.line(i)])
            found.append(Found(self.statements[i], float(scores[best if i == newest else i]), shared))
        return found

    def _look_at_nearest(self, question: str, scores: Array) -> None:
        """Changes the best of ``scores`` by whose the statements are and by what they hold."""
        asked, expected = asked_of(question), expected_in(question)
        if not asked.kinds and not expected:
            return
        for i in np.argsort(-scores, kind="stable")[:NEAREST]:
            text = self.statements[i].text
            if asked.kinds:
                scores[i] += (0.0, OF_THE_SAME, OF_ANOTHER)[same_or_other(asked, told_of(text))]
            scores[i] -= LACKING * lacks(text, expected)

    def _tells_the_same(self, one: int, best: int, scores: Array) -> bool:
        """Whether a statement is about the same as the one that answers best, and nearly as good an answer."""
        is_correction = corrects(self.statements[one].text)
        if scores[one] < (NEAR_CORRECTION if is_correction else NEAR) * scores[best]:
            return False
        words = [
            dict(
                zip(
                    self._lines.stems[part].tolist(),
                    self._meaning.weights(self._lines.rows[part], "match").tolist(),
                    strict=True,
                )
            )
            for part in (self._lines.line(one), self._lines.line(best))
        ]
        shared = sum(weight for stem, weight in words[0].items() if stem in words[1])
        least = SAME_CORRECTION if is_correction else SAME
        return shared >= least * min(sum(part.values()) for part in words)
