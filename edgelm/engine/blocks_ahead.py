"""Neuron blocks that whoever learns makes integers for whoever answers meanwhile."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgelm.matrices.strips import Strips
from edgelm.model.hub import Model

Array = np.ndarray


class BlocksAhead:
    """The stacks of blocks of a session as integers, and copies of them that the thread that learns brings up to date.

    To make all blocks integers takes nine times as long as to copy them: so whoever learns does the one, and whoever
    answers the other. The copies are there from the first time on that they are wanted. The guard of the
    model is held in all calls but ``want``.

    Parameters
    ----------
    model : Model
    stacks : sequence of (int, str, Strips)
        Layer, name of the tensor, and the session's own integers, which are those of the file.
    """

    def __init__(self, model: Model, stacks: Sequence[tuple[int, str, Strips]]) -> None:
        self._model, self._guard, self._stacks = model, model.guard, stacks
        self._copies: list[Strips] = []
        # What was written before now is not in the file.
        self._versions = np.zeros_like(self._guard.versions)
        self._made = np.zeros_like(self._versions)
        self._are_wanted = False
        with self._guard:
            self._guard.followers.add(self)

    def want(self) -> None:
        """Asks for what is written next; it is made once."""
        self._are_wanted = True

    def follow(self) -> None:
        """As of ``edgelm.model.guard.Follower``: makes integers of what the session has not, if they are wanted."""
        if not self._are_wanted:
            return
        self._are_wanted = False
        self._copies = self._copies or [strips.empty_copy() for _, _, strips in self._stacks]
        now = self._guard.versions
        stale = (now != self._versions) & (now != self._made)
        for (layer, name, _), copy in zip(self._stacks, self._copies, strict=True):
            if stale[layer].any():
                copy.quantize(self._model.learning(name), stale[layer])
        np.copyto(self._made, now, where=stale)

    def take(self) -> None:
        """Brings the session's own stacks to what the weights are now, by copies where they were made."""
        now = self._guard.versions
        stale = now != self._versions
        made = stale & (now == self._made)
        left = stale & ~made
        for i, (layer, name, strips) in enumerate(self._stacks):
            if made[layer].any():
                strips.copy_from(self._copies[i], made[layer])
            if left[layer].any():
                strips.quantize(self._model.learning(name), left[layer])
        np.copyto(self._versions, now)
