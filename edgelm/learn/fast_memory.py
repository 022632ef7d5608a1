"""The fast memory: exact recall of what a person wrote, at once.

What followed each context of 0 to 5 tokens is counted, and mixed with the model's prediction from short
contexts to long ones; the model is what the shortest backs off to (in the manner of PPM, Cleary and
Witten 1984):

    p_0(x) = model(x);   p_n(x) = w c_n(x) / N_n + (1 - w C_n / N_n) p_{n-1}(x)

c_n(x) of the N_n sightings of the context were followed by x; C_n <= N_n is the sum over the ids that a
row still holds. The weight w of a context's order, frequency and variety is a gate learned online by
expectation maximisation, so text in which the memory is of no use closes it.

The size is bounded: a hash table of ROWS contexts with SLOTS ids each. It is exact as long as contexts
are few; after that, new ones take the place of old ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgelm.kernels.memory import memory_learn, memory_read

Array = np.ndarray
LONGEST = 5
"""Tokens of the longest context."""
ROWS = 1 << 18
SLOTS = 8
BUCKETS = 15
MAX_TOKENS = 1 << 20
"""Tokens that are kept to rebuild the tables from, 2 MB."""


class FastMemory:
    """Counts over the tokens a person wrote, entry by entry.

    Parameters
    ----------
    vocab_size : int
    rows : int
        Contexts kept, a power of two.

    Attributes
    ----------
    gates : ndarray [6, 15, 2] float64
        Weight of each order and bucket, and the number of predictions it was learned from.
    """

    def __init__(self, vocab_size: int, rows: int = ROWS) -> None:
        self._tables = (
            np.zeros(vocab_size + 1, np.int64),  # sightings of each id, and their sum
            np.zeros(rows, np.int64),
            np.zeros((rows, SLOTS), np.uint16),
            np.zeros((rows, SLOTS), np.uint16),
            np.zeros(rows, np.uint16),
        )
        self.gates = np.zeros((LONGEST + 1, BUCKETS, 2))
        # A context that was always followed by the same id is trusted more, the more often it was seen.
        sightings = np.arange(BUCKETS // 3)
        self.gates[1:, 0::3, 0] = 0.15 + 0.12 * sightings
        self.gates[1:, 1::3, 0], self.gates[1:, 2::3, 0] = 0.2, 0.1
        self.gates[0, :, 0] = 0.02
        self._entries: list[Array] = []
        self._is_open = False

    @property
    def nbytes(self) -> int:
        """Bytes of the tables, whatever was learned."""
        return sum(array.nbytes for array in self._tables)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was learned."""
        return not self._entries

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
        p = np.array(probabilities, np.float64)
        memory_learn(np.asarray(ids, np.int64), start, len(ids), p, True, True, self._tables, self.gates)
        # An entry whose beginning was learned by another process goes on as one of its own.
        if start == 1 or not self._is_open:
            self._entries.append(np.zeros(1, np.uint16))
            self._is_open = True
        self._entries.append(np.asarray(ids[start:], np.uint16))
        return p

    def predict(self, ids: Array, start: int, probabilities: Array) -> Array:
        """As ``learn``, but nothing is learned."""
        p = np.array(probabilities, np.float64)
        memory_learn(np.asarray(ids, np.int64), start, len(ids), p, False, False, self._tables, self.gates)
        return p

    def mix(self, history: Sequence[int], probabilities: Array) -> Array:
        """The mixture's distribution [V] after ``history``; sums to 1."""
        p = np.array(probabilities, np.float64)
        recent = np.array(history[-LONGEST:], np.int64)
        memory_read(recent, len(recent), self._tables, self.gates, p)
        return p

    @property
    def tokens(self) -> Array:
        """All entries learned, one after the other, uint16, each beginning with id 0; the newest MAX_TOKENS."""
        joined = np.concatenate(self._entries) if self._entries else np.zeros(0, np.uint16)
        return joined[-MAX_TOKENS:]

    def rebuild(self, tokens: Array, gates: Array) -> None:
        """The inverse of ``tokens`` and ``gates``, on an empty memory."""
        for entry in np.split(tokens, _entry_starts(tokens)[1:]) if len(tokens) else []:
            ids = entry.astype(np.int64)
            memory_learn(ids, 1, len(ids), np.ones(len(ids)), False, True, self._tables, self.gates)
            self._entries.append(entry)
        self.gates[:] = gates


def _entry_starts(tokens: Array) -> list[int]:
    """Where entries begin. An id 0 begins one, unless it is the last of a whole document: then another
    follows it, or nothing does."""
    starts, is_closed = [0], False
    for position in np.flatnonzero(tokens[1:] == 0) + 1:
        is_closed = not is_closed and (position + 1 == len(tokens) or tokens[position + 1] == 0)
        if not is_closed:
            starts.append(int(position))
    return starts
