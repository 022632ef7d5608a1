"""The fast memory: exact recall of what a person wrote, at once.

**Counts.** What followed each context of 0 to 5 tokens is counted, and mixed with the model's prediction
from short contexts to long ones; the model is what the shortest backs off to (in the manner of PPM, Cleary
and Witten 1984):

    p_0(x) = model(x);   p_n(x) = w c_n(x) / N_n + (1 - w C_n / N_n) p_{n-1}(x)

c_n(x) of the N_n sightings of the context were followed by x; C_n <= N_n is the sum over the ids that a
row still holds. A hash table holds ROWS contexts with SLOTS ids each: exact as long as contexts are few;
after that, new ones take the place of old ones.

**Recall.** The last STORED tokens are kept, cut into sentences, each word chained to where it stood before.
The words of the present line and the one before it are a question: each weighs what it tells, -log of its
frequency, and less the further back it stands. The ten sentences that share most with them are attended to,
with weight exp(s shared) f(m), where m is the longest match of the end of the present text within the
sentence; of sentences that share about as much, newer ones outweigh older ones, so that a correction holds.
A sentence predicts what followed the match; in a reply, where nothing matches, its words that are not in the
question, which hold the answer. With q(x) the weighted sum of that, Q <= 1 its own sum over x (less than 1 in a
reply, where signs and common words are left to the model),

    r(x) = g q(x) + (1 - g Q) p_5(x)

**Trust.** The gains log(r / model), summed and decayed, of the last 20 tokens or so and of the last 200, say
whether this text is one that the memory knows; they start from 0 in each text. The last mixture, which makes
foreign text cost what it costs the model, is

    p(x) = t r(x) + (1 - t) model(x)

**Gates.** The weights w (by order, frequency and variety of the context), g (by m, by the share of the
question that is covered, by the weight shared) and t (by the trust) are learned online by expectation
maximisation. There is a second set for replies of the assistant, set by hand and not learned, because what
the person says does not show how to answer: it is nearly closed where the question is not covered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from edgelm.kernels import recall
from edgelm.kernels.memory import BUCKETS, COUNTED, LONGEST, TRUSTS, memory_learn, memory_read, trust_after, trust_row
from edgelm.kernels.recall import RECALL_BUCKETS, WINDOW, recall_learn, recall_read
from edgelm.memory.answers import Answers
from edgelm.text.tokenizer import Tokenizer

Array = np.ndarray
ROWS = 1 << 18
SLOTS = 8
STORED = 1 << 20
"""Tokens that recall reaches back."""
KEYS = 1 << 16
"""Words that recall tells apart."""
NEUTRAL = (0.0, 0.0)
"""Trust of late and of long in a text that begins."""
SENTENCES = 1 << 13
"""Twice the sentences that are compared with one question."""
GATES = (2, COUNTED + RECALL_BUCKETS + TRUSTS, 2)
"""Shape of the gates: plain text and replies; gates of counts, of recall, of trust; weight and predictions seen."""


GUESSES = 2 * RECALL_BUCKETS // recall.KINDS
"""Gates of recall below this are those of sentences of which nothing matches the end of the text."""
LIFT = 60.0
SURE = 0.98
"""Share of the distribution that the next id of a corrected answer gets."""


class _Reading(NamedTuple):
    """What ``mix`` was last asked: the ids, its answer before trust, the model's, and the trust then."""

    history: list[int]
    mixed: Array
    below: Array
    trust: tuple[float, float]


class FastMemory:
    """Counts and sentences of what a person wrote, entry by entry.

    Parameters
    ----------
    tokenizer : Tokenizer
        Tells how the ids are spelled: where words begin, and sentences end.
    rows : int
        Contexts kept, a power of two.
    stored : int
        Tokens kept for recall, a power of two.

    Attributes
    ----------
    gates : ndarray [2, 271, 2] float64
        Weight of each gate, and the number of predictions it was learned from; those of plain text, and
        those of replies.
    """

    def __init__(self, tokenizer: Tokenizer, rows: int = ROWS, stored: int = STORED) -> None:
        self._tables = (
            np.zeros(tokenizer.vocab_size + 1, np.int64),  # sightings of each id, and their sum
            np.zeros(rows, np.int64),
            np.zeros((rows, SLOTS), np.uint16),
            np.zeros((rows, SLOTS), np.uint16),
            np.zeros(rows, np.uint16),
        )
        self._store = (
            np.zeros(stored, np.uint16),
            np.zeros(stored, np.uint8),
            np.full(stored, -1, np.int32),
            np.full(KEYS, -1, np.int32),
            np.zeros(KEYS, np.int32),
            np.zeros(3, np.int64),
        )
        spelled = [tokenizer.decode_bytes([i]) for i in range(tokenizer.vocab_size)]
        self._vocab, self._answers = _describe(spelled), Answers(spelled)
        self._scratch = _scratch()
        self.gates = _first_gates()
        self._learned, self._trust = 0, NEUTRAL  # ids of the present entry learned so far, and the trust after them
        self._reading: _Reading | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the tables, whatever was learned."""
        return sum(a.nbytes for part in (self._tables, self._store, self._vocab, self._scratch) for a in part)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was learned."""
        return not self._tables[0][-1]

    def learn(self, ids: Array, start: int, probabilities: Array) -> Array:
        """Predicts, then learns, ids[start:].

        Parameters
        ----------
        ids : ndarray [n] of int64
            One entry from its beginning, id 0: contexts do not reach beyond it.
        start : int
            ids[:start] were learned before.
        probabilities : ndarray [n - start]
            The model's probability of each id.

        Returns
        -------
        ndarray [n - start] of float64
            The mixture's probability of each id, before it was learned.
        """
        ids, p = np.ascontiguousarray(ids, np.int64), np.array(probabilities, np.float64)
        # An entry whose beginning was learned by another process goes on as one of its own.
        if start == 1 or start != self._learned:
            self._begin_entry()
        recalled = self._recall(ids, start, (True, False, True))
        self._trust = memory_learn(
            ids, start, len(ids), (True, True), *self._trust, self._tables, self.gates[0], recalled, p
        )
        self._learned = len(ids)
        return p

    def predict(self, ids: Array, start: int, probabilities: Array, as_reply: bool = False) -> Array:
        """As ``learn``, but nothing is learned, and trust begins anew; ``as_reply``, with the gates of a reply."""
        ids, p = np.ascontiguousarray(ids, np.int64), np.array(probabilities, np.float64)
        recalled = self._recall(ids, start, (True, bool(as_reply), False))
        gates = self.gates[int(as_reply)]
        memory_learn(ids, start, len(ids), (False, False), *NEUTRAL, self._tables, gates, recalled, p)
        for t in range(start, len(ids)) if as_reply else ():
            if (given := self._given(ids[:t].tolist())) is not None:
                p[t - start] = SURE * (given == ids[t]) + (1 - SURE) * p[t - start]
        return p

    def correct(self, ids: Array) -> None:
        """Of the entry learned last, a turn and its answer: this is how it shall be answered from now on."""
        self._answers.learn(ids.tolist(), int(self._store[5][0]))

    def has_answer(self, history: list[int]) -> bool:
        """Whether the turn at the end of ``history``, the label of the reply after it, has a corrected answer."""
        return self._given(history) is not None

    def _given(self, history: list[int]) -> int | None:
        """The next id of an answer that was corrected, unless a sentence told later covers the question."""
        given = self._answers.find(history)
        if given is None:
            return None
        later = [self._sentence(*at) for at in self._covering(given.asked, 2) if at[0] >= given.at]
        return None if any(self._answers.tells(ids, given.words) for ids in later) else given.id

    def mix(self, history: Sequence[int], probabilities: Array, as_reply: bool = False) -> Array:
        """The mixture's distribution [V] float64 after ``history``, [V] the model's; sums to 1.

        Called with one id more than the last time, it goes by the trust in the same text.
        """
        below = np.array(probabilities, np.float64)
        ids, last = list(history), self._reading
        trust = NEUTRAL
        if last is not None and ids[:-1] == last.history and len(ids) > len(last.history):
            trust = trust_after(*last.trust, last.mixed[ids[-1]], last.below[ids[-1]])
        gates, mixed = self.gates[int(as_reply)], below.copy()
        recent = np.array(ids[-WINDOW - 1 :], np.int64)
        n_found, known, bucket = recall_read(
            recent, len(recent), bool(as_reply), recall.DEPTH, self._store, self._vocab, self._scratch
        )
        found, shares = self._scratch[-2:]
        guessed = as_reply and bucket < GUESSES
        recalled = (0 if guessed else n_found, found, shares, known, bucket)
        memory_read(recent, len(recent), self._tables, gates, recalled, mixed)
        if guessed and n_found > 0:
            _lift(mixed, found[:n_found], shares[:n_found], float(gates[COUNTED + bucket, 0]))
        self._reading = _Reading(ids, mixed, below, trust)
        share = gates[len(gates) - TRUSTS + trust_row(*trust), 0]
        if self.is_empty:
            return below
        known = share * mixed + (1 - share) * below
        if as_reply and (given := self._given(ids)) is not None:
            known *= 1 - SURE
            known[given] += SURE
        return np.asarray(known)

    def remind(self, history: Sequence[int]) -> list[list[int]]:
        """Sentences that answer the question at the end of ``history``, the newest last; often none.

        At most two, which share most of what the question says.
        """
        return [self._sentence(*at) for at in self._covering(history)]

    def _sentence(self, start: int, end: int) -> list[int]:
        ring = self._store[0]
        ids: list[int] = ring[np.arange(start, end) % len(ring)].tolist()
        return ids

    def _covering(self, history: Sequence[int], least: int = 1) -> list[list[int]]:
        """[start, end] in the store of the sentences of ``remind``; at least COVERAGES[least - 1] is covered."""
        if self.is_empty:
            return []
        recent = np.array(history[-WINDOW - 1 :], np.int64)
        top, masses = self._scratch[7], self._scratch[8][:, 0]
        top[:, 2] = -1
        n_found, _, bucket = recall_read(
            recent, len(recent), True, recall.DEPTH, self._store, self._vocab, self._scratch
        )
        cover, size = divmod(bucket % (RECALL_BUCKETS // recall.KINDS), len(recall.MASSES) + 1)
        if not n_found or cover < least or size < 1:
            return []
        fits = np.flatnonzero(top[:, 2] >= 0)
        fits = fits[masses[fits] >= masses[fits].max() - recall.NEAR]
        newest: list[list[int]] = sorted(top[fits, :2].tolist())[-2:]
        return newest

    def rebuild(self, entries: Sequence[Array]) -> None:
        """Counts and stores entries, each from its id 0, as learning them does; the gates stay."""
        for entry in entries:
            ids = np.ascontiguousarray(entry, np.int64)
            self._begin_entry()
            recalled = self._recall(ids, 1, (False, False, True))
            memory_learn(
                ids, 1, len(ids), (False, True), *NEUTRAL, self._tables, self.gates[0], recalled, np.ones(len(recalled))
            )
        self._learned = 0

    def copy(self) -> FastMemory:
        """Another memory that knows the same, and learns on its own."""
        twin = object.__new__(FastMemory)
        twin.__dict__.update(self.__dict__)
        twin._tables = tuple(array.copy() for array in self._tables)  # type: ignore[assignment]
        twin._store = tuple(array.copy() for array in self._store)  # type: ignore[assignment]
        twin._scratch, twin.gates, twin._answers = _scratch(), self.gates.copy(), self._answers.copy()
        return twin

    def _begin_entry(self) -> None:
        recall.begin_entry(self._store)
        self._trust = NEUTRAL

    def _recall(self, ids: Array, start: int, mode: tuple[bool, bool, bool]) -> Array:
        """[n - start, 3]: probability of each id, of all ids recalled, and the bucket."""
        recalled = np.empty((len(ids) - start, 3))
        recall_learn(ids, start, len(ids), mode, self._store, self._vocab, self._scratch, recalled)
        return recalled


def _lift(mixed: Array, found: Array, shares: Array, weight: float) -> None:
    """Words of a sentence that nothing in the reply so far leads to: they are not put in, but become likelier
    where the model expects a word of their kind, so that the reply stays a sentence."""
    for token, share in zip(found, shares / shares.max(), strict=True):
        mixed[token] *= 1 + LIFT * weight * share
    mixed /= mixed.sum()


def _scratch() -> tuple[Array, ...]:
    """What the kernels of recall write in."""
    attended, n_found = recall.ATTENDED, recall.ATTENDED * recall.SENTENCE
    return (
        np.zeros(KEYS),
        np.zeros(KEYS, np.bool_),
        np.zeros(WINDOW, np.int64),
        np.zeros(WINDOW),
        np.full(SENTENCES, -1, np.int64),
        np.zeros(SENTENCES),
        np.zeros(SENTENCES, np.int64),
        np.zeros((attended, 4), np.int64),
        np.zeros((attended, 2)),
        np.zeros(n_found, np.int64),
        np.zeros(n_found),
    )


def _first_gates() -> Array:
    """GATES: what is believed before anything was learned."""
    gates = np.zeros(GATES)
    gates[..., 1] = 8
    counts = gates[:, :COUNTED, 0].reshape(2, LONGEST + 1, BUCKETS)
    # A context that was always followed by the same id is trusted more, the more often it was seen.
    counts[:, 1:, 0::3] = 0.15 + 0.12 * np.arange(BUCKETS // 3)
    counts[:, 1:, 1::3], counts[:, 1:, 2::3] = 0.2, 0.1
    counts[:, 0] = 0.02
    counts[1] *= 0.3
    # By kind of match (none; none at the beginning of a line; within a word; by length), by coverage, by weight.
    plain, reply = gates[:, COUNTED : COUNTED + RECALL_BUCKETS].reshape(2, recall.KINDS, 4, 4, 2)
    plain[..., 0] = np.array([0, 0.02, 0.3, 0.05, 0.15, 0.3, 0.5, 0.7, 0.8])[:, None, None]
    plain[2, 2:, 1:, 0] = 0.7
    # A long match that covers everything is seldom put to the test: many other facts must not close its gate.
    plain[5:, 3, 1:] = 0.95, 50
    by_match = np.array([0.1, 0.6, 0.95, 0.5, 0.7, 0.9, 0.9, 0.9, 0.9])
    by_cover, by_mass = np.array([0.05, 0.7, 1.0, 1.0]), np.array([0.05, 0.7, 0.9, 1.0])
    reply[..., 0] = by_match[:, None, None] * by_cover[:, None] * by_mass
    by_long, by_late = np.array([0.1, 0.4, 0.9, 0.95, 0.99, 0.99]), np.array([0.4, 0.7, 0.95, 0.95, 0.98, 0.98])
    # Whoever begins a text may be somebody else: that gate is not learned, however well this person's begin.
    gates[:, -TRUSTS:, 0] = [0.75, *(by_long[:, None] * by_late).ravel()]
    return gates


_SIGNS_AFTER = "\"')]*”’".encode()
_BASE = 1000003
_DENIALS = frozenset(b"not never neither nor n't 't cannot".split())


def _describe(spelled: list[bytes]) -> tuple[Array, ...]:
    """What ``edgelm.kernels.recall`` calls vocab, of the spelling of each id.

    folds: tokens that are alike have one; kinds: flags; shares: frequency at large; values and powers: the
    tokens' spelling as digits of a polynomial.
    """
    n = len(spelled)
    folds, kinds, first = np.arange(n, dtype=np.uint16), np.zeros(n, np.uint8), dict[bytes, int]()
    values, powers = np.zeros(n, np.int64), np.ones(n, np.int64)
    for i, text in enumerate(spelled[1:], 1):
        kinds[i] = _kind(text)
        if kinds[i] & recall.WORDY:
            folded = _folded(text)
            folds[i] = first.setdefault(folded, i)
            for byte in folded.strip():
                values[i] = (int(values[i]) * _BASE + byte) & 0x7FFFFFFF
                powers[i] = (int(powers[i]) * _BASE) & 0x7FFFFFFF
    kinds[0] = recall.LINE | recall.ENDS
    # Ids are in the order in which the vocabulary was merged, which is about that of frequency; bytes come first.
    ranks = np.maximum(np.arange(n) - 256, 0) + 10
    shares = np.minimum(0.03, 0.004 * (300 / ranks) ** 1.5)
    shares[:257] = 0.003
    return folds, kinds, np.bincount(folds, shares, n)[folds], values, powers


def _folded(text: bytes) -> bytes:
    """Without capitals, and without the s of a plural or a verb; a capital begins a word as a space does."""
    word, begins = text.strip().lower(), text[:1] == b" " or text[:1].isupper()
    has_s = len(word) >= 3 + begins and word.endswith(b"s") and not word.endswith(b"ss")
    return b" " * begins + (word[:-1] if has_s else word)


def _kind(text: bytes) -> int:
    """Flags of a token."""
    word, kind = text.strip(b" "), 0
    if word and all(byte >= 128 or bytes([byte]).isalnum() for byte in word):
        kind = recall.WORDY | (recall.BEGINS if text[:1] == b" " else 0) | (recall.PLURAL if text == b"s" else 0)
    elif b"\n" in text:
        kind = recall.LINE | recall.ENDS
    elif word.rstrip(_SIGNS_AFTER).endswith((b".", b"!", b"?", b";")):
        kind = recall.ENDS | (recall.QUESTION if b"?" in word else 0)
    elif word == b":":
        kind = recall.LABEL
    return kind | (recall.NEGATES if word.lower() in _DENIALS else 0)
