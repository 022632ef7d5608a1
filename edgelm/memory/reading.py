"""The last tokens of one text, as far back as the fast memory looks, and its last prediction there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Array = np.ndarray
REACH = 512
"""Tokens that are looked back upon at most."""
NEUTRAL = (0.0, 0.0)
"""Trust where a text begins: the sums of gains over about 20 and about 200 tokens (``edgelm.memory.fast_memory``)."""


class Reading:
    """The last tokens of a text, and how far the fast memory is trusted in it.

    It belongs to one text: a conversation, or one of several continuations that are tried. ``FastMemory.mix`` is given
    it, reads its ids, and keeps its prediction in it, so that the memory itself holds nothing of any conversation. It
    keeps no more than 2 * ``REACH`` ids after ``advance`` and one prediction, however long the text is.

    Parameters
    ----------
    ids : sequence of int
        What was read before the memory is first asked.

    Attributes
    ----------
    ids : list of int
        The last tokens that were read: all of them, or at least ``REACH``.
    """

    def __init__(self, ids: Sequence[int] = ()) -> None:
        self.ids: list[int] = list(ids[-REACH:])
        self._prediction: tuple[Array, Array] | None = None
        self._trust, self._n_since = NEUTRAL, 0

    def advance(self, ids: Sequence[int]) -> None:
        """Appends ``ids``, which were read since the last call, and drops the oldest where there are too many."""
        self._n_since += len(ids)
        self.ids.extend(ids[-REACH:])
        if len(self.ids) > 2 * REACH:
            del self.ids[:-REACH]

    @property
    def followed(self) -> tuple[tuple[float, float], float, float] | None:
        """How well the one token that was read since the last prediction was predicted.

        None if there was no prediction, or if not exactly one token was read since. Otherwise the trust at that
        prediction, and the probability of the token with the memory and by the model alone.
        """
        if self._prediction is None or self._n_since != 1:
            return None
        mixed, below = self._prediction
        return self._trust, float(mixed[self.ids[-1]]), float(below[self.ids[-1]])

    def predicted(self, mixed: Array, below: Array, trust: tuple[float, float]) -> None:
        """Keeps a prediction in place of the last one.

        Parameters
        ----------
        mixed : ndarray [V] of float64
            The distribution with the memory, before trust is applied. It is not copied and must not be changed
            afterwards.
        below : ndarray [V] of float64
            The model's distribution. The same holds for it.
        trust : tuple of two float
            The two decayed sums of gains, of about 20 and of about 200 tokens, that applied to the prediction.
        """
        self._prediction, self._trust, self._n_since = (mixed, below), trust, 0
