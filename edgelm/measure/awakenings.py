"""Which neuron blocks a text wakes, and how strongly: what a smaller model for such texts has to keep."""

from __future__ import annotations

import numpy as np

from edgelm.model.config import ModelConfig

Array = np.ndarray


class Awakenings:
    """Counts over the tokens of a text.

    Parameters
    ----------
    config : ModelConfig
        Of a model with neuron blocks.

    Attributes
    ----------
    strengths : ndarray [L,M] of float64
        The sum of each block's activations over the tokens that woke it.
    """

    def __init__(self, config: ModelConfig) -> None:
        self._max_awake = config.max_awake
        self.strengths = np.zeros((config.n_layers, config.n_blocks))

    def add(self, activations: Array) -> None:
        """Those of some tokens, [L,T,M], as a session observes them: the weakest of a token are not asleep yet."""
        n_blocks = activations.shape[-1]
        least = np.partition(activations, n_blocks - self._max_awake, axis=-1)[..., n_blocks - self._max_awake, None]
        self.strengths += np.where(activations >= least, activations, 0).sum(1, dtype=np.float64)

    def strongest(self, n_blocks: int) -> list[Array]:
        """Of each layer the indices of the ``n_blocks`` blocks that were awake most, in order of index."""
        order = np.argsort(-self.strengths, axis=-1, kind="stable")
        return [np.sort(layer[:n_blocks]) for layer in order]

    def covered(self, n_blocks: int) -> float:
        """The share of all that was awake, from 0 to 1, that the strongest ``n_blocks`` of each layer had."""
        each = -np.sort(-self.strengths, axis=-1)
        return float(each[:, :n_blocks].sum() / max(each.sum(), np.finfo(float).tiny))

    def enough(self, share: float) -> int:
        """The smallest number of blocks of a layer, from 1 up, that covers so much; all layers have as many."""
        n_blocks = self.strengths.shape[1]
        return next((n for n in range(1, n_blocks) if self.covered(n) >= share), n_blocks)
