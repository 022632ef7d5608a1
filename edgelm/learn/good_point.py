"""The last point that counted as good: what learning had changed by then, in float16, as a checkpoint holds it.

Of neuron blocks only the change of those that differ from the base is memory: the pages of the others are never
touched. Saving reads the blocks that were written since the last time, and no others.
"""

from __future__ import annotations

import numpy as np

from edgelm.matrices.changed import blocks_at_a_time, change_of, set_change
from edgelm.matrices.matrix import Operands
from edgelm.matrices.pages import untouched
from edgelm.model.config import ModelConfig
from edgelm.model.guard import Guard
from edgelm.model.weights import block_names

Array = np.ndarray


class GoodPoint:
    """Saves and brings back the change of ``adapted`` to ``base``.

    Parameters
    ----------
    config : ModelConfig
    adapted : dict of ndarray
        The weights that learn; read by ``save``, updated in place by ``restore``.
    base : dict of ndarray or Matrix
    guard : Guard
        Whoever writes blocks of ``adapted`` tells it which.
    """

    def __init__(self, config: ModelConfig, adapted: Operands, base: Operands, guard: Guard) -> None:
        self._adapted, self._base, self._guard = adapted, base, guard
        self._change = {name: untouched(array.shape, np.float16) for name, array in adapted.items()}
        self._rows = {name: row for row, name in enumerate(block_names(config))}
        self._seen = np.full_like(guard.versions, -1)
        self._is_held = np.zeros(guard.versions.shape, bool)

    def save(self) -> None:
        """Makes it the point of now."""
        stale = self._guard.versions != self._seen
        for name, change in self._change.items():
            row = self._rows.get(name)
            if row is None:
                np.subtract(self._adapted[name], self._base[name], out=change, casting="same_kind")
                continue
            for blocks in blocks_at_a_time(np.flatnonzero(stale[row]), change):
                now = change_of(self._adapted[name], self._base[name], blocks).astype(np.float16, copy=False)
                self._is_held[row, blocks] |= now.any(tuple(range(1, now.ndim)))
                held = self._is_held[row, blocks]
                change[blocks[held]] = now[held]
        np.copyto(self._seen, self._guard.versions)

    def restore(self) -> None:
        """Brings the weights back to it; the guard is to be held."""
        for name, change in self._change.items():
            set_change(self._adapted[name], self._base[name], change)

    def take_over(self, other: GoodPoint) -> None:
        """Becomes the point that another one saved of other weights on the same base; that one is not used any more."""
        self._change, self._is_held = other._change, other._is_held
        # Of what was written there since, nothing is known here.
        self._seen[:] = -1
