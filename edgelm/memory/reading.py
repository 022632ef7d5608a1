"""What one conversation has read, as far as the fast memory looks back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Array = np.ndarray
REACH = 512
"""Tokens that are looked back upon at most."""
NEUTRAL = (0.0, 0.0)
"""Trust of late and of long in a text that begins (``edgelm.memory.fast_memory``)."""


class Reading:
    """The last tokens of a text, and how far the fast memory is trusted in it.

    It belongs to one text: a conversation, or one of several continuations that are tried. The memory, which knows
    nothing of who asks, is handed it, reads it, and leaves its prediction in it. Its size is constant.

    Parameters
    ----------
    ids : sequence of int
        What was read before the memory is first asked.

    Attributes
    ----------
    ids : list of int
        At least the last ``REACH`` tokens of what was read, or all.
    """

    def __init__(self, ids: Sequence[int] = ()) -> None:
        self.ids: list[int] = list(ids[-REACH:])
        self._prediction: tuple[Array, Array] | None = None
        self._trust, self._n_since = NEUTRAL, 0

    def advance(self, ids: Sequence[int]) -> None:
        """Reads ``ids``."""
        self._n_since += len(ids)
        self.ids.extend(ids[-REACH:])
        if len(self.ids) > 2 * REACH:
            del self.ids[:-REACH]

    @property
    def followed(self) -> tuple[tuple[float, float], float, float] | None:
        """The trust at the last prediction, and what that gave the token that was read since then: with the memory, and
        without. None where there was no prediction, or not exactly one token since.
        """
        if self._prediction is None or self._n_since != 1:
            return None
        mixed, below = self._prediction
        return self._trust, float(mixed[self.ids[-1]]), float(below[self.ids[-1]])

    def predicted(self, mixed: Array, below: Array, trust: tuple[float, float]) -> None:
        """Keeps a prediction: the distribution [V] with the memory, before trust, that of the model, and the trust."""
        self._prediction, self._trust, self._n_since = (mixed, below), trust, 0
