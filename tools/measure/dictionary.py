"""A keyboard's dictionary: words counted alone and after the word before them, and no model."""

from __future__ import annotations

import heapq
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

WORD = re.compile(r"[^\W\d_](?:[\w'-]*\w)?")
END = re.compile(r"[.!?:\n]")
START = ""
"""Stands for the word before the first of a sentence."""
DISCOUNT = 0.75
"""Taken from each count of a pair for the pairs that were not seen (Ney, Essen and Kneser 1994)."""
HALF_LIFE = 200
"""Words after which a word of late counts half."""
RECENT, GENERAL = 0.1, 0.4
"""Shares of what was written of late and of the general words in the probability of a word alone."""
COMMON = 500
"""The commonest words that are looked at where nothing is typed."""


def words_of(text: str, *, begins: bool = True) -> Iterator[str]:
    """The words of a text, with ``START`` between two sentences, and before the first one if a sentence ``begins``."""
    end = 0
    for match in WORD.finditer(text):
        if begins or END.search(text, end, match.start()):
            yield START
        yield match[0]
        end, begins = match.end(), False
    if END.search(text, end):
        yield START


def last_word(text: str) -> str:
    """The word that the next one follows, in small letters; ``START`` where a sentence begins."""
    *_, last = (START, *words_of(text[-200:]))
    return last.lower()


def capital(word: str) -> str:
    """With a capital letter, as at the beginning of a sentence."""
    return word[:1].upper() + word[1:]


class Dictionary:
    """Words by the word before them, backing off to words alone, and those to general words; it learns as it reads.

        p(w | v) = max(c(v, w) - d, 0) / c(v) + d n(v) / c(v) r(w | v)
        r(w | v) = (1 - g) (0.9 c(w) / N + 0.1 recent(w)) + g general(w | v)

    c are counts, n(v) is the number of different words after v, and g is 0 without general words. The first word of a
    sentence is counted in small letters unless it was seen with a capital elsewhere, and is given with a capital.
    ``START`` is counted as a word.
    """

    def __init__(self, general: Dictionary | None = None) -> None:
        self.general = general
        self.alone: Counter[str] = Counter()
        self.pairs: dict[str, Counter[str]] = defaultdict(Counter)
        self.befores: dict[str, set[str]] = defaultdict(set)
        self.by_beginning: dict[str, set[str]] = defaultdict(set)
        self.recent: dict[str, tuple[float, int]] = {}
        self.n_alone, self.n_pairs, self.last = 0, Counter[str](), START
        self.common: tuple[int, list[str]] = (0, [])

    def read(self, text: str) -> None:
        """Counts a text that goes on where the last one ended."""
        for word in words_of(text, begins=False):
            if word or self.last:
                self._count(word)
            self.last = word

    def _count(self, word: str) -> None:
        last = self.last.lower()
        self.pairs[last][word] += 1
        self.n_pairs[last] += 1
        self.befores[word].add(self.last)
        if last == START and word not in self.alone:
            word = word[:1].lower() + word[1:]
        weight, at = self.recent.get(word, (0.0, 0))
        self.recent[word] = (weight * 0.5 ** ((self.n_alone - at) / HALF_LIFE) + 1.0, self.n_alone)
        self.alone[word] += 1
        self.n_alone += 1
        for beginning in (word[:1], word[:2]):
            self.by_beginning[beginning.lower()].add(word)

    def _alone(self, word: str) -> float:
        if not self.n_alone:
            return 0.0
        weight, at = self.recent.get(word, (0.0, 0))
        late = weight * 0.5 ** ((self.n_alone - at) / HALF_LIFE) * (1 - 0.5 ** (1 / HALF_LIFE))
        return (1 - RECENT) * self.alone[word] / self.n_alone + RECENT * late

    def probability(self, word: str, before: str) -> float:
        """Of a word after ``before``, which is in small letters or ``START``."""
        forms = {word, word[:1].lower() + word[1:]} if before == START else {word}
        below = sum(self._alone(form) for form in forms)
        if self.general is not None:
            below = (1 - GENERAL) * below + GENERAL * self.general.probability(word, before)
        if not (n := self.n_pairs[before]):
            return below
        seen = self.pairs[before]
        return max(seen[word] - DISCOUNT, 0.0) / n + DISCOUNT * len(seen) / n * below

    def candidates(self, before: str, typed: str) -> set[str]:
        """Words that begin as typed; where nothing is typed, the commonest and those seen after ``before``."""
        alone: Iterable[str] = self.by_beginning.get(typed[:2].lower(), ()) if typed else self._commonest()
        found = {*self.pairs.get(before, ()), *(map(capital, alone) if before == START else alone)}
        found = {word for word in found if word.startswith(typed)}
        return found | (self.general.candidates(before, typed) if self.general is not None else set())

    def _commonest(self) -> list[str]:
        if self.common[0] != self.n_alone:
            self.common = self.n_alone, heapq.nlargest(COMMON, self.alone, key=self.alone.__getitem__)
        return self.common[1]

    def suggest(self, before: str, typed: str, n_words: int) -> list[str]:
        """The likeliest words after a word, of those that begin as typed; what is typed itself is none."""
        found = self.candidates(before, typed) - {typed}
        return heapq.nlargest(n_words, sorted(found), key=lambda word: self.probability(word, before))

    def _neighbours(self, before: str, after: str) -> set[str]:
        found = {*self.pairs.get(before, ()), *self.befores.get(after, ()), *self._commonest()}
        return found | (self.general._neighbours(before, after) if self.general is not None else set())

    def between(self, before: str, after: str, n_words: int) -> list[str]:
        """The likeliest words between two: of those that were seen beside one of them, and the commonest."""
        found = self._neighbours(before, after) - {START}
        if before == START:
            found = set(map(capital, found))

        def score(word: str) -> float:
            return self.probability(word, before) * self.probability(after, word.lower())

        return heapq.nlargest(n_words, sorted(found), key=score)
