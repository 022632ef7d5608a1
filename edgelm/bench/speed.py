"""How fast a model decodes, reads and learns in this process."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

import numpy as np

from edgelm.bench.limit import narrow, read_rate, weights_per_token
from edgelm.bench.timing import rate
from edgelm.engine.opening import open_session
from edgelm.engine.ort_session import OrtSession
from edgelm.engine.session import PREFILL_STEPS, Session, Snapshot
from edgelm.export.step import build_graph
from edgelm.matrices.quantize import PRECISIONS
from edgelm.model.weights import random_weights
from edgelm.runtime import Engine
from edgelm.text.general import rehearsal_text

TEXT_TOKENS = 1024
EARLY, LATE = 100, 20_000
"""Positions in a text at which decoding is measured."""
LATE_SLICES = 70
"""Reading up to the late position takes no longer than so many slices; a slow device decodes at an earlier one."""
SCORED_TOKENS = 256
VARIANTS = {"float32": PRECISIONS["none"], "int8": PRECISIONS["int8"], "int4": PRECISIONS["int4"]}
Array = np.ndarray
Slice = Callable[[float], float]


class Speeds:
    """Measures a model within this process.

    The weights are learned from and put back, in memory alone: the profile stays as it is.

    Parameters
    ----------
    engine : Engine
        With its learning kernels loaded (``Adaptation.prepare``).
    slice_seconds : float
        How long a figure is measured in each round.
    threads : int
        Threads of an operator; learning uses one.

    Attributes
    ----------
    main : str
        The variant that answers here.
    pairs_per_token : dict of str to float
        Blocks awake for a token, over all layers together, in each variant of the graph.
    late_position : int
    slices : dict of str to callable
        Each measures for so many seconds and returns tokens (``read_rate``: bytes) per second.
    samples : dict of str to list of float
        A number a round.
    """

    def __init__(self, engine: Engine, slice_seconds: float, threads: int) -> None:
        self._engine, self._slice_seconds = engine, slice_seconds
        config = engine.config
        ids = engine.template.document(engine.tokenizer.encode(rehearsal_text()))
        self._ids = np.array(ids[: TEXT_TOKENS + 1], np.int64)
        self._learner = engine.adaptation.replay.learner
        self._kept = {name: engine.weights[name].copy() for name in engine.adaptation.base}
        self.main = engine.precision
        sessions = {
            "float32": OrtSession(build_graph(config), engine.weights, threads, engine.guard),
            **{
                name: OrtSession(build_graph(config, engine.weights, VARIANTS[name]), {}, threads)
                for name in ("int8", "int4")
            },
            self.main: engine.session,
        }
        fixed = open_session(engine.model, threads, self.main, fixed=True)
        early = {name: self._read_beginning(session) for name, session in sessions.items()}
        self.pairs_per_token = {name: self._pairs_per_token(session) for name, session in sessions.items()}
        self.late_position, late = self._read_far(engine.session, early[self.main])
        self.slices: dict[str, Slice] = {
            "decode_fixed": partial(self._decode, fixed, early[self.main]),
            "decode.late": partial(self._decode, engine.session, late),
            "prefill": self._prefill,
            "learn": self._learn,
            "forward": self._forward,
            "decode_while_learning": partial(self._decode_while_learning, early[self.main]),
        }
        for name, precision in VARIANTS.items():
            tiny = narrow(config, precision)
            weights = random_weights(tiny, np.random.default_rng(0))
            graph = build_graph(tiny) if name == "float32" else build_graph(tiny, weights, precision)
            empty = OrtSession(graph, weights, threads)
            n_bytes = weights_per_token(config, self.pairs_per_token[name], precision)
            self.slices |= {
                f"decode.{name}": partial(self._decode, sessions[name], early[name]),
                f"narrow.{name}": partial(self._decode, empty, empty.snapshot()),
                f"read_rate.{name}": partial(read_rate, n_bytes),
            }
        self.samples: dict[str, list[float]] = {name: [] for name in [*self.slices, "learn_while_decoding"]}

    def round(self) -> None:
        """Measures every figure once more."""
        for name, measure in self.slices.items():
            self.samples[name].append(measure(self._slice_seconds))
            if "learn" in name:
                self._forget()

    def median(self, name: str) -> float:
        """The figure ``name`` over all rounds."""
        return statistics.median(self.samples[name])

    def _forget(self) -> None:
        with self._engine.guard.writing():
            for name, array in self._kept.items():
                self._engine.weights[name][:] = array

    def _read_beginning(self, session: Session) -> Snapshot:
        session.reset()
        session.run(self._ids[:EARLY])
        return session.snapshot()

    def _read_far(self, session: Session, early: Snapshot) -> tuple[int, Snapshot]:
        """Reads the text again and again up to the late position; where that is, and the state there."""
        session.restore(early)
        position, begun = EARLY, time.perf_counter()
        while position < LATE and time.perf_counter() - begun < LATE_SLICES * self._slice_seconds:
            part = np.resize(self._ids, min(PREFILL_STEPS, LATE - position))
            session.run(part)
            position += len(part)
        return position, session.snapshot()

    def _pairs_per_token(self, session: Session) -> float:
        session.reset()
        pairs = 0
        for start in range(0, len(self._ids), PREFILL_STEPS):
            _, a = session.observe(self._ids[start : start + PREFILL_STEPS])
            pairs += int(np.minimum((a > 0).sum(-1), self._engine.config.max_awake).sum())
        return pairs / len(self._ids)

    def _decode(self, session: Session, state: Snapshot, seconds: float) -> float:
        session.restore(state)
        ids = self._ids % session.vocab_size

        def step(done: int) -> int:
            first = done % len(ids)
            session.run(ids[first : first + 1])
            return 1

        return rate(step, seconds)

    def _prefill(self, seconds: float) -> float:
        session, ids = self._engine.session, self._ids[:PREFILL_STEPS]
        session.reset()

        def step(_: int) -> int:
            session.run(ids)
            return len(ids)

        return rate(step, seconds)

    def _forward(self, seconds: float) -> float:
        return rate(lambda _: len(self._learner.score(self._ids[: SCORED_TOKENS + 1])), seconds)

    def _learn(self, seconds: float) -> float:
        begun = time.perf_counter()
        learned = self._learn_until(lambda _: time.perf_counter() - begun >= seconds)
        return learned / (time.perf_counter() - begun)

    def _learn_until(self, is_over: Callable[[int], bool]) -> int:
        """Learns the text again and again until it is over, which is asked after each segment; returns the tokens."""
        learned = 0

        def count(_: int, losses: Array) -> None:
            nonlocal learned
            learned += len(losses)
            if is_over(learned):
                raise _OverError

        with suppress(_OverError):
            while True:
                self._learner.learn(self._ids, count)
        return learned

    def _decode_while_learning(self, state: Snapshot, seconds: float) -> float:
        begun, stop = threading.Event(), threading.Event()

        def learn() -> float:
            try:
                start = time.perf_counter()

                def is_over(_: int) -> bool:
                    begun.set()
                    return stop.is_set()

                return self._learn_until(is_over) / (time.perf_counter() - start)
            finally:
                # Whatever went wrong, nobody is left waiting.
                begun.set()

        with ThreadPoolExecutor(1) as pool:
            job = pool.submit(learn)
            begun.wait()
            try:
                decoded = self._decode(self._engine.session, state, seconds)
            finally:
                stop.set()
            self.samples["learn_while_decoding"].append(job.result())
        return decoded


class _OverError(Exception):
    """Ends learning between two segments."""
