"""Keeps those who read the weights and the one who writes them apart, and tells readers what was written."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol
from weakref import WeakSet

import numpy as np

from edgelm.model.config import ModelConfig

Array = np.ndarray


class Follower(Protocol):
    """Who wants to know of each change."""

    def follow(self) -> None:
        """Called by the thread that wrote, which still holds the guard; what is written is whole."""


class Guard:
    """A lock that may be entered again by the thread that holds it: ``with guard`` to read, ``writing`` to write.

    Parameters
    ----------
    config : ModelConfig

    Attributes
    ----------
    versions : ndarray [L,M] of int64
        How often each neuron block was written. A reader that keeps a copy of a block in another form, say in
        integers, makes it anew when this has changed.
    n_writes : int
        How often anything was written.
    followers : set of Follower
        They are forgotten when nobody else holds them.
    """

    def __init__(self, config: ModelConfig) -> None:
        self.versions = np.zeros((config.n_layers, config.n_blocks), np.int64)
        self.n_writes = 0
        self.followers: WeakSet[Follower] = WeakSet()
        self._depth = 0
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def enter_if_free(self) -> bool:
        """Enters as ``with`` does, unless another thread is inside; whether it did. Who entered calls ``leave``."""
        return self._lock.acquire(blocking=False)

    def leave(self) -> None:
        """Ends what ``enter_if_free`` began."""
        self._lock.release()

    @contextmanager
    def writing(self, blocks: Array | None = None) -> Iterator[None]:
        """While weights change; ``blocks`` [L,M] of bool: of the neuron blocks these alone."""
        with self._lock:
            self.versions[... if blocks is None else blocks] += 1
            self.n_writes += 1
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
            if self._depth == 0:
                for follower in list(self.followers):
                    follower.follow()
