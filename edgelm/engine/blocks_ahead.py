"""Neuron blocks that whoever learns makes integers for whoever answers meanwhile."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgelm.matrices.strips import Strips
from edgelm.model.hub import Model

Array = np.ndarray


class BlocksAhead:
    """Copies of the stacks of blocks of a session, which the thread that learns brings up to date.

    To make all blocks integers takes as long as some tokens, to copy them a tenth of that: so whoever learns does the
    one and whoever answers the other. The copies are there from the first time on that they are wanted. The guard of
    the model is held in all calls.

    Parameters
    ----------
    model : Model
    stacks : sequence of (int, str, Strips)
        Layer, name of the tensor, and the session's own integers.
    """

    def __init__(self, model: Model, stacks: Sequence[tuple[int, str, Strips]]) -> None:
        self._model, self._stacks = model, stacks
        self._copies: list[Strips] = []
        self._versions = np.full_like(model.guard.versions, -1)
        self._are_wanted = False

    def want(self) -> None:
        """Asks for what is written next; it is made once."""
        self._are_wanted = True

    def make(self, versions: Array) -> None:
        """Makes integers of what was written since the ``versions`` [L,M] of the session, if they are wanted."""
        if not self._are_wanted:
            return
        self._are_wanted = False
        self._copies = self._copies or [strips.empty_copy() for _, _, strips in self._stacks]
        now = self._model.guard.versions
        stale = (now != versions) & (now != self._versions)
        for (layer, name, _), copy in zip(self._stacks, self._copies, strict=True):
            if stale[layer].any():
                copy.quantize(self._model.learning(name), stale[layer])
        np.copyto(self._versions, now, where=stale)

    def take(self, versions: Array) -> None:
        """Brings the session's own stacks from ``versions`` [L,M] to what the weights are now, by copies where they
        were made."""
        now = self._model.guard.versions
        stale = now != versions
        made = stale & (now == self._versions)
        left = stale & ~made
        for i, (layer, name, strips) in enumerate(self._stacks):
            if made[layer].any():
                strips.copy_from(self._copies[i], made[layer])
            if left[layer].any():
                strips.quantize(self._model.learning(name), left[layer])
