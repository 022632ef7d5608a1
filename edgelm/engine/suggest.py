"""The likeliest next words, as a keyboard shows them."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

import numpy as np

from edgelm.engine.generate import TINY, Mix, no_mix
from edgelm.engine.sampler import log_softmax
from edgelm.engine.session import Session, Snapshot
from edgelm.text.tokenizer import Tokenizer

FIRST, BRANCH = 128, 12
"""First tokens that are looked at, and continuations of a beginning that are followed."""
MAX_STEPS = 60
"""Runs of the model for one list of words."""
WORD_CHARS, LONGEST = "'-", 40
"""Signs that do not end a word, and characters of a word that is begun at most."""

NewMix = Callable[[], Mix]
"""Makes what is asked in a text that begins."""


@dataclass(order=True)
class _Beginning:
    """The tokens of a word so far; ``cost`` is their negative log-probability."""

    cost: float
    ids: list[int] = field(compare=False)
    state: Snapshot = field(compare=False)


class Beginning(NamedTuple):
    """What a search has followed.

    Attributes
    ----------
    spelling : bytes
        The text of its tokens.
    probability : float
        Of these tokens after the prompt.
    ends : float
        The probability that the token after them begins another word, white space or a sign; 0 as long as the spelling
        is shorter than what it must begin with.
    rest : float
        No beginning that the search will still follow is likelier than this.
    """

    spelling: bytes
    probability: float
    ends: float
    rest: float


class WordSearch(Iterator[Beginning]):
    """Follows the words that may come after a prompt token by token, the likeliest beginning first.

    It reads the prompt when it is made. Each step runs the model over one token.

    Parameters
    ----------
    session : Session
        What it read before is forgotten. In between two steps it may be used for other things.
    tokenizer : Tokenizer
    prompt_ids : sequence of int
        At least one.
    new_mix : callable
    begins : str
        What the spelling of the word must begin with, of which nothing stands in the prompt: a space, or nothing where
        a line or a quotation begins, and then the letters that are there already.
    max_words : int
        A beginning goes on over so many words, between which stands a space.

    Attributes
    ----------
    logits : ndarray [V] of float32
        The model's of the token after the prompt.
    state : Snapshot
        After the prompt.
    """

    def __init__(
        self, session: Session, tokenizer: Tokenizer, prompt_ids: Sequence[int], new_mix: NewMix = lambda: no_mix,
        begins: str = " ", max_words: int = 1,
    ) -> None:  # fmt: skip
        self._session, self._prompt, self._new_mix = session, prompt_ids, new_mix
        self._tokenizer, self._kinds = tokenizer, _kinds(tokenizer)
        self._begins, self._max_words = begins.encode(errors="replace"), max_words
        session.reset()
        self.logits = session.run(np.asarray(prompt_ids))[-1].copy()
        self.state = session.snapshot()
        self._mix, self._read, self._queue = new_mix(), list[int](), list[_Beginning]()
        first = self._kinds.spaced if begins.startswith(" ") else self._kinds.bare
        if begins.strip():
            first = first & _fitting(tokenizer, self._begins)
        self._open(_Beginning(0.0, [], self.state), _scores(self.logits, prompt_ids, self._mix), first, FIRST)

    def __next__(self) -> Beginning:
        if not self._queue:
            raise StopIteration
        best, kinds = heapq.heappop(self._queue), self._kinds
        self._session.restore(best.state)
        logits = self._session.run(np.array([best.ids[-1]]))[-1]
        goes_on = best.ids[:-1] == self._read
        self._mix = self._mix if goes_on else self._new_mix()
        scores = _scores(logits, best.ids[-1:] if goes_on else [*self._prompt, *best.ids], self._mix)
        self._read = best.ids
        spelling = b"".join(kinds.spelled[i] for i in best.ids)
        missing = self._begins[len(spelling) :]
        ends = 0.0 if missing else float(np.exp(scores[kinds.starts]).sum())
        inner = ~kinds.starts
        if missing:
            inner = inner & _fitting(self._tokenizer, missing)
        elif spelling[1:].count(b" ") + 1 < self._max_words:
            inner = inner | kinds.spaced
        self._open(_Beginning(best.cost, best.ids, self._session.snapshot()), scores, inner, BRANCH)
        rest = float(np.exp(-self._queue[0].cost)) if self._queue else 0.0
        return Beginning(spelling, float(np.exp(-best.cost)), ends, rest)

    def _open(self, begun: _Beginning, scores: np.ndarray, allowed: np.ndarray, n_best: int) -> None:
        """Puts the likeliest continuations of a beginning into the queue."""
        ids = np.flatnonzero(allowed)
        if len(ids) > n_best:
            ids = ids[np.argpartition(-scores[ids], n_best)[:n_best]]
        for i in ids.tolist():
            heapq.heappush(self._queue, _Beginning(begun.cost - float(scores[i]), [*begun.ids, i], begun.state))


def suggest_words(
    session: Session, tokenizer: Tokenizer, prompt_ids: Sequence[int], n_words: int,
    new_mix: NewMix = lambda: no_mix, begins: str = " ",
) -> list[tuple[str, float]]:  # fmt: skip
    """The next words after a prompt and their probabilities, best first.

    A word is followed token by token, the likeliest beginnings first, until the next token would begin
    another word; its probability is that of its tokens and of ending there. The search stops after
    MAX_STEPS runs of the model or when no open beginning can beat the words found, so the list is exact
    in its first places and may miss rare words. ``new_mix`` makes what is asked in a text that begins.

    ``begins`` is what the spelling of the words must begin with, and no part of the prompt: a space and then the
    letters of a word that is begun; no space where a line begins. The probability of a word is that after the prompt,
    before it is known how the word begins. The letters alone are one of the words if a word may end there.

    Returns
    -------
    list of (str, float)
        At most ``n_words``.
    """
    found: dict[str, float] = {}
    for best in islice(WordSearch(session, tokenizer, prompt_ids, new_mix, begins), MAX_STEPS):
        if best.ends > 0:
            word = best.spelling.decode("utf-8", errors="replace").strip()
            found[word] = found.get(word, 0.0) + best.probability * best.ends
        if len(found) >= n_words and best.rest < sorted(found.values())[-n_words]:
            break
    return sorted(found.items(), key=lambda item: -item[1])[:n_words]


def split_begun(text: str) -> tuple[str, str]:
    """A text up to the word that it ends in, and the rest: the space before that word and its letters.

    The rest is a space, or empty, where the text does not end in a letter or a digit. Letters of scripts that put no
    spaces between words (from U+2E80 on) and words of more than LONGEST characters stay in the first part.
    """
    start = len(text)
    while start and _goes_on(text[start - 1]):
        start -= 1
    if not text[-1:].isalnum() or len(text) - start > LONGEST:
        start = len(text)
    while start < len(text) and not text[start].isalnum():
        start += 1
    start -= text[:start].endswith(" ")
    return text[:start], text[start:]


def _goes_on(character: str) -> bool:
    return character in WORD_CHARS or (character.isalnum() and character < "\u2e80")


def _scores(logits: np.ndarray, new_ids: Sequence[int], mix: Mix) -> np.ndarray:
    return np.log(np.maximum(mix(new_ids, np.exp(log_softmax(logits))), TINY))


def _starts_word(token: bytes) -> bool:
    """Whether a token cannot go on a word: white space, the end of a document, or a sign comes first."""
    first = token[:1]
    return not (first.isalnum() or first in (b"'", b"-") or first >= b"\x80") or token.startswith(b"<|")


class _Kinds(NamedTuple):
    """What the tokens of a vocabulary are for words; arrays are [V] of bool.

    ``starts``: it begins a word or something else; ``spaced``: a space, then letters or digits; ``bare``: letters or
    digits alone.
    """

    spelled: list[bytes]
    starts: np.ndarray
    spaced: np.ndarray
    bare: np.ndarray


@lru_cache(maxsize=2)
def _kinds(tokenizer: Tokenizer) -> _Kinds:
    spelled = [tokenizer.decode_bytes([i]) for i in range(tokenizer.vocab_size)]
    pieces = [token.decode("utf-8", errors="replace") for token in spelled]
    return _Kinds(
        spelled,
        np.array([_starts_word(token) for token in spelled]),
        np.array([piece.startswith(" ") and piece.strip().isalnum() for piece in pieces]),
        np.array([piece.isalnum() for piece in pieces]),
    )


@lru_cache(maxsize=64)
def _fitting(tokenizer: Tokenizer, text: bytes) -> np.ndarray:
    """The tokens [V] of bool that a spelling may go on with when ``text`` is what comes next."""
    spelled = _kinds(tokenizer).spelled
    return np.array([token.startswith(text) or text.startswith(token) for token in spelled])
