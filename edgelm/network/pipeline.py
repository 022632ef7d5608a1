"""A long text through the model with several threads: each computes some of the layers, while those before it are
already at the next tokens. Every sum is that of one thread, to the last bit."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from edgelm.matrices.matrix import Operands
from edgelm.model.config import ModelConfig
from edgelm.model.state import State, shared_part
from edgelm.network.decoder import ends_of
from edgelm.network.section import Section

Array = np.ndarray
AHEAD = 2
"""Pieces of text by which a thread may be ahead of the one after it."""


class Pipeline:
    """The layers of a model in sections, a thread for each.

    It is for a model whose layer parts all have kernels, which release Python's global lock
    (``edgelm.network.section.Section.is_fused``).

    Parameters
    ----------
    config : ModelConfig
    weights, state, max_steps
        As of ``edgelm.network.decoder.Decoder``. Weights must not change during a call.
    n_threads : int
        From 2 to the number of layers.
    """

    def __init__(self, config: ModelConfig, weights: Operands, state: State, max_steps: int, n_threads: int) -> None:
        self._shared, parts = shared_part(state), [*config.parts()]
        cuts = [len(parts) * i // config.n_layers for i in range(config.n_layers + 1)]
        bounds = [cuts[config.n_layers * i // n_threads] for i in range(n_threads + 1)]
        self._sections = [
            Section(parts[first:end], weights, state, {k: a.copy() for k, a in self._shared.items()}, max_steps)
            for first, end in itertools.pairwise(bounds)
        ]
        self._ends = ends_of(config, weights, max_steps)
        self._width = config.d_model

    def run(self, pieces: Sequence[Array], logits: Sequence[Array]) -> None:
        """Feeds pieces of a text, ids [T] int64 each; ``logits`` [N,V] of each are overwritten with those of its last N
        tokens."""
        for section in self._sections:
            for name, array in self._shared.items():
                np.copyto(section.shared[name], array)
        progress, last = _Progress(len(self._sections)), len(self._sections) - 1
        between: dict[int, tuple[Array, list[Array]]] = {}

        def work(place: int) -> None:
            """All pieces through one section."""
            section = self._sections[place]
            for number, ids in enumerate(pieces):
                progress.wait(place, number)
                section.begin(len(ids))
                if place == 0:
                    x = np.empty((len(ids), self._width), np.float32)
                    self._ends.read(ids, x)
                else:
                    x, left = between.pop(number)
                    for own, given in zip(section.left, left, strict=True):
                        np.copyto(own, given)
                section.forward(x)
                if place == last:
                    self._ends.write(x, logits[number])
                else:
                    between[number] = x, [array.copy() for array in section.left]
                progress.count(place)

        others: list[Future[None]] = []
        with ThreadPoolExecutor(last) as pool:
            # An interrupt between any two of these lines must not leave the others waiting.
            try:
                others += [pool.submit(progress.stops_with, work, place) for place in range(last)]
                work(last)
            except _StoppedError:
                pass
            except BaseException:
                progress.stop()
                raise
        failed = [exc for exc in (other.exception() for other in others) if exc is not None]
        for exc in sorted(failed, key=lambda exc: isinstance(exc, _StoppedError)):
            raise exc
        for name, array in self._shared.items():
            np.copyto(array, self._sections[last].shared[name])


class _StoppedError(Exception):
    """Another thread failed."""


class _Progress:
    """How many pieces of the text each section has done."""

    def __init__(self, n_sections: int) -> None:
        self._done, self._stopped, self._changed = [0] * n_sections, False, threading.Condition()

    def wait(self, place: int, number: int) -> None:
        """Until a section may take a piece: the one before it has done it, and the one after is not far behind."""
        before, after = max(place - 1, 0), min(place + 1, len(self._done) - 1)
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self._stopped
                    or ((place == 0 or self._done[before] > number) and number <= self._done[after] + AHEAD)
                )
            )
            if self._stopped:
                raise _StoppedError

    def count(self, place: int) -> None:
        """A section has done one more."""
        with self._changed:
            self._done[place] += 1
            self._changed.notify_all()

    def stop(self) -> None:
        """All waits fail from now on."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def stops_with(self, work: Callable[[int], None], place: int) -> None:
        """Calls ``work(place)``; if it fails, so do the waits of all."""
        try:
            work(place)
        except BaseException:
            self.stop()
            raise
