"""The fast memory: recall of what a person wrote, word for word, from the moment it was written.

It has no gradients. It stores token ids and counts, and mixes what they predict with the model's prediction. A token is
predicted in three stages, each of which mixes into the one before it:

1. **Counts.** Of each context of the last n = 0 to 5 tokens it is counted which ids followed. From the shortest
   context to the longest, starting with the model (in the manner of PPM, Cleary and Witten 1984),

       p_0(x) = model(x);   p_n(x) = w c_n(x) / N_n + (1 - w C_n / N_n) p_{n-1}(x)

   where the context was seen N_n times, c_n(x) times followed by x, and C_n <= N_n is the sum of c_n over the ids that
   its row still holds. A hash table holds ROWS contexts with SLOTS ids each. It is exact until it is full; then a new
   context overwrites one that was seen seldom.

2. **Recall.** The last STORED tokens are kept, cut into sentences, and each word is chained to where it stood before.
   The words of the present line and the one before it are the question. A word of it weighs -log of its frequency, and
   less the further back it stands. The ten sentences whose words in common with the question have the largest sum s of
   weights are read. A sentence counts as exp(SHARPNESS s) f(m), where m is the length of the longest match between the
   end of the present text and the sentence; of sentences that share about as much, an older one counts little, so that
   a correction holds. A sentence predicts the token that followed its match. In a reply, a sentence of which nothing
   matches predicts those of its words that are not in the question, which hold the answer; ``mix`` does not mix these
   words in as below, but makes them likelier (``_lift``). With q(x) the weighted mean of these predictions and Q <= 1
   its sum over x (below 1 in a reply, where punctuation and common words are left to the model),

       r(x) = g q(x) + (1 - g Q) p_5(x)

3. **Trust.** The gains log(r / model) of the tokens so far, summed and decayed over about 20 tokens and over about 200,
   say whether this text is one that the memory knows. Both sums are 0 where a text begins.

       p(x) = t r(x) + (1 - t) model(x)

   So a text by somebody else costs about what it costs the model alone.

The weights w, g and t of the mixture are the **gates** (``edgelm.memory.gates``). ``learn`` also learns those of plain
text, by expectation maximisation. Two kinds of t are not learned: that of the beginning of a text, and those that apply
where the memory has predicted worse than the model for long. The gates of replies of the assistant are set by hand and
never learned: what the person says does not show how to answer.

The kernels are ``edgelm.kernels.memory`` (counts and mixture) and ``edgelm.kernels.recall``. They check no bounds: ids
must be from 0 to the size of the vocabulary minus 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from edgelm.kernels import recall
from edgelm.kernels.memory import COUNTED, TRUSTS, memory_learn, memory_read, trust_after, trust_row
from edgelm.kernels.recall import RECALL_BUCKETS, WINDOW, recall_learn, recall_read
from edgelm.matrices.pages import untouched
from edgelm.memory.answers import Answers
from edgelm.memory.gates import GUESSES, first_gates
from edgelm.memory.reading import NEUTRAL, Reading
from edgelm.memory.recall_arrays import describe_vocabulary, make_store, make_workspace
from edgelm.text.template import USUAL, Template
from edgelm.text.tokenizer import Tokenizer

Array = np.ndarray
ROWS = 1 << 18
"""Contexts that are counted."""
SLOTS = 8
"""Ids that are counted of a context."""
STORED = 1 << 20
"""Tokens that recall reaches back."""
LIFT = 60.0
"""By how much a word becomes likelier for being in a sentence of which nothing matches; see ``_lift``."""
SURE = 0.98
"""Probability of the next id of a corrected answer."""


class FastMemory:
    """Counts and sentences of what a person wrote, entry by entry.

    ``learn``, ``rebuild`` and ``correct`` update the memory in place; the other methods leave what was learned as it
    is. But all of them, except ``copy``, may overwrite one workspace, so whoever shares a memory between threads holds
    a lock around each call.

    Parameters
    ----------
    tokenizer : Tokenizer
        Tells how the ids are spelled: where words begin, and where sentences end. At most 65,536 ids.
    rows : int
        Contexts that are counted, a power of two.
    stored : int
        Tokens kept for recall, a power of two. The oldest are overwritten.
    template : Template
        How conversations are written.

    Attributes
    ----------
    gates : ndarray [2, 271, 2] of float64
        gates[0] are those of plain text, gates[1] those of replies. Each has its weight, from 0 to 1, and the number of
        predictions that it was learned from. ``learn`` updates those of plain text in place.
    """

    def __init__(
        self, tokenizer: Tokenizer, rows: int = ROWS, stored: int = STORED, template: Template = USUAL
    ) -> None:
        self._tables = (
            np.zeros(tokenizer.vocab_size + 1, np.int64),  # sightings of each id, and their sum
            untouched((rows,), np.int64),  # the key of the context in each row, 0 where there is none
            untouched((rows, SLOTS), np.uint16),  # the ids that followed it
            untouched((rows, SLOTS), np.uint16),  # how often each did
            untouched((rows,), np.uint16),  # how often the context was seen
        )
        self._store = make_store(stored)
        spelled, self._vocab = _vocabulary(tokenizer)
        self._answers = Answers(spelled, template)
        self._workspace = make_workspace()
        self.gates = first_gates()
        self._learned, self._trust = 0, NEUTRAL  # ids of the present entry learned so far, and the trust after them

    @property
    def nbytes(self) -> int:
        """Bytes of the tables, the store and the workspace. They are allocated at the start and do not grow."""
        return sum(a.nbytes for part in (self._tables, self._store, self._vocab, self._workspace) for a in part)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was learned."""
        return not self._tables[0][-1]

    def learn(self, ids: Array, start: int, probabilities: Array) -> Array:
        """Predicts each of ids[start:], then learns it; counts, store and gates are updated in place.

        Parameters
        ----------
        ids : ndarray [n] of int64
            One entry from its beginning, id 0: contexts and sentences do not reach beyond it. Read.
        start : int
            At least 1, which begins an entry. A larger one goes on with the entry of the last call, which must have
            learned ids[:start]. If that call ended at another index, ids[start:] are stored as an entry of their own.
        probabilities : ndarray [n - start] of float
            The model's probability of each of ids[start:]. Read.

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
        """As ``learn``, but nothing is learned, and trust begins anew at ``start``.

        With ``as_reply`` the gates are those of replies. Where ids[:t] end with a question whose corrected answer is
        known and with the beginning of that answer, the answer's next id is predicted with a probability of at least
        ``SURE``, and ids[t] accordingly.
        """
        ids, p = np.ascontiguousarray(ids, np.int64), np.array(probabilities, np.float64)
        recalled = self._recall(ids, start, (True, bool(as_reply), False))
        gates = self.gates[int(as_reply)]
        memory_learn(ids, start, len(ids), (False, False), *NEUTRAL, self._tables, gates, recalled, p)
        for t in range(start, len(ids)) if as_reply else ():
            if (given := self._given(ids[:t].tolist())) is not None:
                p[t - start] = SURE * (given == ids[t]) + (1 - SURE) * p[t - start]
        return p

    def correct(self, ids: Array) -> None:
        """Keeps a corrected answer, so that it is given word for word when the same is asked again.

        ``ids`` [n] of int64 are the entry that was learned last, a turn of the person and its answer. Nothing is kept
        of an entry that is written otherwise. What is stored from now on counts as newer than the answer and may
        overrule it.
        """
        self._answers.learn(ids.tolist(), int(self._store[5][0]))

    def has_answer(self, history: list[int]) -> bool:
        """Whether a corrected answer is known to the last turn in ``history``.

        ``history`` ends with the label of the reply or with the beginning of the reply. The answer does not count if a
        sentence that was stored after it covers the question.
        """
        return self._given(history) is not None

    def _given(self, history: list[int]) -> int | None:
        """The next id of the corrected answer to the last turn in ``history``; None where ``has_answer`` is False."""
        given = self._answers.find(history)
        if given is None:
            return None
        later = [self._sentence(*at) for at in self._covering(given.asked, 2) if at[0] >= given.at]
        return None if any(self._answers.tells(ids, given.words) for ids in later) else given.id

    def mix(self, reading: Reading, probabilities: Array, as_reply: bool = False) -> Array:
        """The distribution of the id after those that were read. Nothing is learned.

        The prediction is kept in ``reading``. If exactly one id is read before the next call, as while a reply is
        written, that call updates the trust by how well the id was predicted; otherwise trust begins anew.

        Parameters
        ----------
        reading : Reading
            The last ``WINDOW`` + 1 of its ids are looked at, and more of them for a corrected answer. Its kept
            prediction is overwritten.
        probabilities : ndarray [V] of float
            The model's distribution. Read.
        as_reply : bool
            Whether the assistant speaks.

        Returns
        -------
        ndarray [V] of float64
            Sums to 1; it is the model's distribution where nothing was learned. It may be the array that ``reading``
            keeps, so it must not be changed.
        """
        below = np.array(probabilities, np.float64)
        last = reading.followed
        trust = NEUTRAL if last is None else trust_after(*last[0], *last[1:])
        gates, mixed = self.gates[int(as_reply)], below.copy()
        recent = np.array(reading.ids[-WINDOW - 1 :], np.int64)
        n_found, known, bucket = recall_read(
            recent, len(recent), bool(as_reply), recall.DEPTH, self._store, self._vocab, self._workspace
        )
        found, shares = self._workspace[-2:]
        guessed = as_reply and bucket < GUESSES
        recalled = (0 if guessed else n_found, found, shares, known, bucket)
        memory_read(recent, len(recent), self._tables, gates, recalled, mixed)
        if guessed and n_found > 0:
            _lift(mixed, found[:n_found], shares[:n_found], float(gates[COUNTED + bucket, 0]))
        reading.predicted(mixed, below, trust)
        share = gates[len(gates) - TRUSTS + trust_row(*trust), 0]
        if self.is_empty:
            return below
        known = share * mixed + (1 - share) * below
        if as_reply and (given := self._given(reading.ids)) is not None:
            known *= 1 - SURE
            known[given] += SURE
        return np.asarray(known)

    def remind(self, history: Sequence[int]) -> list[list[int]]:
        """The ids of stored sentences that answer the question at the end of ``history``: none, one or two.

        They are the newest of those that share most with the question, in the order in which they were stored. There is
        none unless the sentence that weighs most covers enough of the question.
        """
        return [self._sentence(*at) for at in self._covering(history)]

    def _sentence(self, start: int, end: int) -> list[int]:
        """The stored ids from position ``start`` up to, but not including, ``end``."""
        ring = self._store[0]
        ids: list[int] = ring[np.arange(start, end) % len(ring)].tolist()
        return ids

    def _covering(self, history: Sequence[int], least: int = 1) -> list[list[int]]:
        """Where the sentences of ``remind`` stand in the store: [first position, position after the last] of each.

        There is none unless the sentence that weighs most covers at least COVERAGES[least - 1] of the question and its
        mass is at least MASSES[0].
        """
        if self.is_empty:
            return []
        recent = np.array(history[-WINDOW - 1 :], np.int64)
        top, masses = self._workspace[7], self._workspace[8][:, 0]
        top[:, 2] = -1
        n_found, _, bucket = recall_read(
            recent, len(recent), True, recall.DEPTH, self._store, self._vocab, self._workspace
        )
        cover, size = divmod(bucket % (RECALL_BUCKETS // recall.KINDS), len(recall.MASSES) + 1)
        if not n_found or cover < least or size < 1:
            return []
        fits = np.flatnonzero(top[:, 2] >= 0)
        fits = fits[masses[fits] >= masses[fits].max() - recall.NEAR]
        newest: list[list[int]] = sorted(top[fits, :2].tolist())[-2:]
        return newest

    def rebuild(self, entries: Sequence[Array]) -> None:
        """Adds entries to what is known, as ``learn`` does, but predicts nothing. What was learned before is kept.

        ``entries`` are arrays [n] of int64, each from its id 0. Counts and store are updated in place; the gates stay
        as they are.
        """
        for entry in entries:
            ids = np.ascontiguousarray(entry, np.int64)
            self._begin_entry()
            recalled = self._recall(ids, 1, (False, False, True))
            memory_learn(
                ids, 1, len(ids), (False, True), *NEUTRAL, self._tables, self.gates[0], recalled, np.ones(len(recalled))
            )
        self._learned = 0

    def copy(self) -> FastMemory:
        """An independent memory that knows the same: what one of them learns from now on, the other does not know."""
        twin = object.__new__(FastMemory)
        twin.__dict__.update(self.__dict__)
        twin._tables = tuple(array.copy() for array in self._tables)  # type: ignore[assignment]
        twin._store = tuple(array.copy() for array in self._store)
        twin._workspace, twin.gates, twin._answers = make_workspace(), self.gates.copy(), self._answers.copy()
        return twin

    def _begin_entry(self) -> None:
        """Stores the id 0 that begins an entry and resets the trust."""
        recall.begin_entry(self._store)
        self._trust = NEUTRAL

    def _recall(self, ids: Array, start: int, mode: tuple[bool, bool, bool]) -> Array:
        """What recall predicts of ids[start:], by ``recall_learn``, whose ``mode`` this is; it stores them where told.

        Returns [n - start, 3] float64: the probability of each id, the sum over all ids recalled, and the index of its
        gate among those of recall. A row is (0, 0, -1) where nothing was recalled.
        """
        recalled = np.empty((len(ids) - start, 3))
        recall_learn(ids, start, len(ids), mode, self._store, self._vocab, self._workspace, recalled)
        return recalled


def _lift(mixed: Array, found: Array, shares: Array, weight: float) -> None:
    """Raises the probabilities of ``found`` in ``mixed`` [V], in place, and normalises it.

    The probability of an id is multiplied by 1 + LIFT * weight * s, where s is its share relative to the largest of
    ``shares``, and ``weight`` is the gate. The ids come from sentences of which nothing matches the end of the reply.
    They are not mixed in like the other predictions: they become likelier only where the model expects a word of their
    kind, so that the reply stays a sentence.
    """
    for token, share in zip(found, shares / shares.max(), strict=True):
        mixed[token] *= 1 + LIFT * weight * share
    mixed /= mixed.sum()


@lru_cache(maxsize=2)
def _vocabulary(tokenizer: Tokenizer) -> tuple[list[bytes], tuple[Array, ...]]:
    """The spelling of each id, and ``describe_vocabulary`` of it: made once, however many memories there are."""
    spelled = [tokenizer.decode_bytes([i]) for i in range(tokenizer.vocab_size)]
    return spelled, describe_vocabulary(spelled)
