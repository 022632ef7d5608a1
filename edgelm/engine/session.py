"""A running model: token ids in, logits out, memory of constant size in between."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from edgelm.model.config import ModelConfig
from edgelm.model.reference import forward
from edgelm.model.state import empty_state
from edgelm.model.weights import Weights

Array = np.ndarray
Snapshot = list[Array]

PREFILL_STEPS = 256
"""Longest run of a graph; longer texts are fed in parts, so that memory stays flat."""


class Session(Protocol):
    """What generation and measures need of a running model."""

    @property
    def vocab_size(self) -> int:
        """V, logits of a position."""

    @property
    def state_bytes(self) -> int:
        """Bytes of the state, whatever the position."""

    def run(self, ids: Array, first_logit: int | None = None) -> Array:
        """Feeds ids [T]; returns logits [N,V] of the positions from ``first_logit`` (default: the last)."""

    def observe(self, ids: Array) -> tuple[Array, Array]:
        """Feeds ids [T]; returns all logits [T,V] and the router's activations [L,T,M], before the cap."""

    def reset(self) -> None:
        """Forgets everything that was fed."""

    def snapshot(self) -> Snapshot:
        """A copy of the state."""

    def restore(self, snapshot: Snapshot) -> None:
        """Returns to a state that ``snapshot`` gave."""


class ReferenceSession:
    """The same over ``edgelm.model.reference``: slow, and right by definition."""

    def __init__(self, config: ModelConfig, weights: Weights) -> None:
        self._config, self._weights = config, weights
        self.vocab_size = config.vocab_size
        self._state = empty_state(config, weights["embed"].dtype.type)

    def run(self, ids: Array, first_logit: int | None = None) -> Array:
        """Feeds ids [T]; returns logits [N,V] from ``first_logit`` on (default: the last alone)."""
        logits, self._state, _ = forward(np.asarray(ids), self._weights, self._state, self._config)
        return logits[len(ids) - 1 if first_logit is None else first_logit :]

    def observe(self, ids: Array) -> tuple[Array, Array]:
        """Feeds ids [T]; returns all logits [T,V] and the router's activations [L,T,M], before the cap."""
        logits, self._state, a = forward(np.asarray(ids), self._weights, self._state, self._config)
        return logits, a

    def reset(self) -> None:
        """Forgets everything that was fed."""
        self._state = empty_state(self._config, self._weights["embed"].dtype.type)

    def snapshot(self) -> Snapshot:
        """A copy of the state."""
        return [array.copy() for array in self._state.values()]

    def restore(self, snapshot: Snapshot) -> None:
        """Returns to a state that ``snapshot`` gave."""
        self._state = {name: saved.copy() for name, saved in zip(self._state, snapshot, strict=True)}

    @property
    def state_bytes(self) -> int:
        """Bytes of the state, whatever the position."""
        return sum(array.nbytes for array in self._state.values())
