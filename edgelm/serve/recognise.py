"""Which intent a sentence means: by the word vectors that come with edgelm, without the model.

The words of slots are taken out of the sentence first. What is left, words q of weight w_q, is compared with the
examples E of each intent, whose slots are left out too (s is the similarity of ``edgelm.memory.meaning``, r the unit
sums of the vectors of replies):

    score = sum over q of w_q max over t in E of min(1, s(q, t))^2 / sum over q of w_q
            + max over e in E of cos(r_q, r_e) - FOREIGN * (slots' words that the intent has no slot for)

The intent with the highest score is meant if that is at least ``THRESHOLD``. Both numbers, and that the model is
not asked, were decided by ``tools/measure/intents.py``; the figures are in ``docs/experiments.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgelm.memory.meaning import Meaning
from edgelm.serve.intents import Intents, Slot, Value, bare_words

FOREIGN, THRESHOLD = 0.3, 0.93
MOST_WORDS = 60
"""A sentence of more words is no command."""
Span = tuple[int, int]


@dataclass(frozen=True)
class Recognised:
    """An intent that a sentence means.

    Attributes
    ----------
    name : str
    entities : dict of str to str, int, float or bool
    answer : str
    score : float
    """

    name: str
    entities: Mapping[str, Any]
    answer: str
    score: float


class Recogniser:
    """Tells intents apart.

    Parameters
    ----------
    intents : Intents
    meaning : Meaning
    threshold : float
    """

    def __init__(self, intents: Intents, meaning: Meaning, threshold: float = THRESHOLD) -> None:
        self.intents, self._meaning, self._threshold = intents, meaning, threshold
        self._lines = [meaning.lines(intent.examples) for intent in intents.intents]
        self._sums = [meaning.sums("reply", lines) for lines in self._lines]

    def recognise(self, text: str) -> Recognised | None:
        """The intent that is meant; None where it is none of them."""
        scores = self.scores(text)
        best = int(np.argmax(scores))
        if scores[best] < self._threshold:
            return None
        intent = self.intents.intents[best]
        return Recognised(intent.name, self.entities(best, text), intent.answer, float(scores[best]))

    def scores(self, text: str) -> np.ndarray:
        """[intents] float32: how well each fits; -inf where a slot that it needs is not filled."""
        words, meaning = bare_words(text), self._meaning
        scores = np.full(len(self._lines), -np.inf, np.float32)
        if not 1 <= len(words) <= MOST_WORDS:
            return scores
        found = {name: _spans(words, slot) for name, slot in self.intents.slots.items()}
        taken = {place for spans in found.values() for span in spans for place in range(*span)}
        left = [word for place, word in enumerate(words) if place not in taken]
        asked = meaning.lines([" ".join(left or words)])
        weights = meaning.weights(asked.rows)
        if not len(weights) or weights.sum() <= 0:
            return scores
        total, asked_sum = weights.sum(), meaning.sums("reply", asked)[0]
        outermost = _outermost({span for spans in found.values() for span in spans})
        for i, intent in enumerate(self.intents.intents):
            if not all(found[name] for name in intent.needed):
                continue
            own = [span for name in intent.slots for span in found[name]]
            foreign = sum(not any(_overlap(span, one) for one in own) for span in outermost)
            nearest = np.minimum(meaning.similar(asked, self._lines[i]).max(axis=1), 1) ** 2
            scores[i] = weights @ nearest / total + (self._sums[i] @ asked_sum).max() - FOREIGN * foreign
        return scores

    def entities(self, index: int, text: str) -> dict[str, Any]:
        """The entities of an intent in a sentence: each slot is filled by the first words that fit it and that no slot
        before it took."""
        intent, words = self.intents.intents[index], bare_words(text)
        taken: list[Span] = []
        entities = dict(intent.entities)
        for name in intent.slots:
            spans = _spans(words, self.intents.slots[name])
            free = next((span for span in spans if not any(_overlap(span, one) for one in taken)), None)
            if free is not None:
                taken.append(free)
                entities[name] = spans[free]
        return entities


def _spans(words: list[str], slot: Slot) -> dict[Span, Value]:
    """Where values of a slot stand, from left to right; of those that begin at one word, the longest."""
    found, place = dict[Span, Value](), 0
    while place < len(words):
        ends = range(min(len(words), place + slot.longest), place, -1)
        end = next((end for end in ends if tuple(words[place:end]) in slot.values), None)
        if end is not None:
            found[place, end] = slot.values[tuple(words[place:end])]
        place = end or place + 1
    return found


def _overlap(one: Span, other: Span) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def _outermost(spans: set[Span]) -> list[Span]:
    """Spans that lie in no other."""
    return [a for a in spans if not any(b != a and b[0] <= a[0] and a[1] <= b[1] for b in spans)]
