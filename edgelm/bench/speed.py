"""How fast a model decodes, reads and learns in this process."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

import numpy as np

from edgelm.bench.limit import read_rate, weights_per_token
from edgelm.bench.timing import rate
from edgelm.bench.variants import KERNELS, main_variant, variant_of, variants
from edgelm.engine.choice import ENGINES
from edgelm.engine.opening import open_session
from edgelm.engine.session import PREFILL_STEPS, Session, Snapshot
from edgelm.runtime import Engine
from edgelm.text.general import rehearsal_text

TEXT_TOKENS = 1024
EARLY, LATE = 100, 20_000
"""Positions in a text at which decoding is measured."""
LATE_SLICES = 70
"""Reading up to the late position takes no longer than so many slices; a slow device decodes at an earlier one."""
SCORED_TOKENS = 256
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
        Of the kernels while a text is read, and of an operator of ONNX Runtime; learning uses one.
    engines : collection of str
        Which engines are measured, that which answers here among them.

    Attributes
    ----------
    main : str
        The variant that answers here.
    of_engine : dict of str to str
        Of each engine that is measured, the variant that it is compared by.
    precisions : dict of str to Precision
        Of each variant that is measured.
    fixed : str or None
        The variant that ``decode_fixed`` is of, all of its weights constants; of ONNX Runtime alone, for the kernels
        take as long whether anything is learned or not.
    pairs_per_token : dict of str to float
        Blocks awake for a token, over all layers together, in each variant.
    late_position : int
    slices : dict of str to callable
        Each measures for so many seconds and returns tokens (``read_rate``: bytes) per second.
    samples : dict of str to list of float
        A number a round.
    """

    def __init__(self, engine: Engine, slice_seconds: float, threads: int, engines: Collection[str] = ENGINES) -> None:
        self._engine, self._slice_seconds = engine, slice_seconds
        ids = engine.template.document(engine.tokenizer.encode(rehearsal_text()))
        self._ids = np.array(ids[: TEXT_TOKENS + 1], np.int64)
        self._learner = engine.adaptation.replay.learner
        self._kept = {name: engine.weights[name].copy() for name in engine.adaptation.base}
        self.main = main_variant(engine)
        self.of_engine = {name: variant_of(name) for name in ENGINES if name in engines}
        found = variants(engine, threads, engines)
        self.precisions = {name: variant.precision for name, variant in found.items()}
        early = {name: self._read_beginning(variant.session) for name, variant in found.items()}
        self.pairs_per_token = {name: self._pairs_per_token(variant.session) for name, variant in found.items()}
        self.late_position, late = self._read_far(engine.session, early[self.main])
        self.fixed: str | None = None
        self.slices: dict[str, Slice] = {}
        if "onnx" in engines:
            self.fixed = self.of_engine["onnx"] if self.main == KERNELS else self.main
            fixed = open_session(engine.model, threads, self.fixed, fixed=True, engine="onnx")
            self.slices["decode_fixed"] = partial(self._decode, fixed, self._read_beginning(fixed))
        self.slices |= {
            "decode.late": partial(self._decode, engine.session, late),
            "learn": self._learn,
            "forward": self._forward,
            "decode_while_learning": partial(self._decode_while_learning, early[self.main]),
        }
        for name in sorted({self.main, *self.of_engine.values()}):
            self.slices[f"prefill.{name}"] = partial(self._prefill, found[name].session)
        for name, variant in found.items():
            n_bytes = weights_per_token(engine.config, self.pairs_per_token[name], variant.precision)
            self.slices |= {
                f"decode.{name}": partial(self._decode, variant.session, early[name]),
                f"narrow.{name}": partial(self._decode, variant.narrow, variant.narrow.snapshot()),
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

    def _prefill(self, session: Session, seconds: float) -> float:
        ids = self._ids[:PREFILL_STEPS]
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
