"""What the neurons of a model write, as integers, for sessions that multiply integers."""

from __future__ import annotations

from collections.abc import Container

import numpy as np

from edgelm.model.hub import Model
from edgelm.model.packing import integers
from edgelm.model.weights import Weights, block_names, tensors

Array = np.ndarray


class IntegerBlocks:
    """What the neurons of a model write, as integers that follow the float32.

    Parameters
    ----------
    model : Model
    without : container of str
        Names of those that are kept elsewhere.

    Attributes
    ----------
    arrays : dict of ndarray
        ``NAME.q`` uint8 [M,D,B] and ``NAME.scale`` float32 [M,D,B/32] of each w2, changed in place by ``refresh``;
        empty for a model whose blocks do not divide into runs.
    """

    def __init__(self, model: Model, without: Container[str] = ()) -> None:
        self._model = model
        # What was written before now is not in the file.
        self._seen = np.zeros_like(model.guard.versions)
        self._names = block_names(model.config)
        self.arrays: Weights = {}
        divided = [name for name in self._names if tensors(model.config)[name].divides and name not in without]
        packed = model.private(divided)
        for name in divided:
            q, scale = integers(packed, name, blocks=True)
            self.arrays |= {name + ".q": q, name + ".scale": scale}

    def refresh(self) -> None:
        """Makes the integers of all blocks that were written since the last call; the guard is to be held."""
        versions = self._model.guard.versions
        stale = versions != self._seen
        if not self.arrays or not stale.any():
            return
        # Whoever learned has loaded the kernels.
        from edgelm.matrices.changed import quantize_into

        for name, used in zip(self._names, stale, strict=True):
            if name + ".q" not in self.arrays:
                continue
            quantize_into(self._model.learning(name), used, self.arrays[name + ".q"], self.arrays[name + ".scale"])
        np.copyto(self._seen, versions)
