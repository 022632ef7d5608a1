"""The life of the weights: a function of the base model and the log, entry by entry.

The same entries give the same bits, in whatever processes and threads they are learned: each entry is learned
from an empty state, segments never cross entries, what is drawn at random is drawn from the entries' own
words, and the gate's decisions are made anew. So what is learned while a person talks, what is replayed after
a crash and what is replayed without an entry that shall be forgotten are one and the same computation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edgelm.config import LearnConfig
from edgelm.errors import DivergenceError
from edgelm.learn.gate import Gate
from edgelm.learn.learner import Learner, OnSegment
from edgelm.log.change import GATES, WATCH, apply_change, digest, pack_change
from edgelm.log.entry import CHAT, CHECKPOINT, CONSOLIDATION, FIX, PAIRED, WORDLESS, Entry
from edgelm.memory.fast_memory import FastMemory
from edgelm.model.guard import Guard
from edgelm.model.hub import Model
from edgelm.model.packing import Operands
from edgelm.model.weights import Weights
from edgelm.text.conversation import USER_LABEL, assistant_turn, user_turn
from edgelm.text.general import rehearsal_text
from edgelm.text.tokenizer import DOC_ID, Tokenizer, document_ids

Array = np.ndarray
OnTokens = Callable[[int], None]
ShouldStop = Callable[[], bool]
MOST_HALVINGS = 6
"""Of a change that costs general text too much; then all of it goes."""


@dataclass(frozen=True)
class Learned:
    """What a turn taught: tokens, and mean nats per token before and after."""

    tokens: int
    loss_before: float
    loss_after: float

    @property
    def bits_gained(self) -> float:
        """Bits by which the same text became cheaper."""
        return float((self.loss_before - self.loss_after) * self.tokens / np.log(2))


class Life:
    """Weights and fast memory, moved on by entries of a log.

    Parameters
    ----------
    model : Model
    weights : dict of ndarray
        All weights, frozen matrices maybe as integers; the adaptable ones are changed in place. They may hold an
        earlier part of the life.
    base : dict of ndarray
        The adaptable weights before any learning.
    memory : FastMemory
    config : LearnConfig
    recent : sequence of (Entry, str)
        What the next consolidation repeats, each with the words before it.
    guard : Guard
        Held while weights or memory are written.
    watch : ndarray, optional
        Where the gate stood at the checkpoint that is taken up: segments since its last check, checks, and the average
        excess, float64. Default: nothing was learned.
    """

    def __init__(
        self, model: Model, weights: Operands, base: Operands, memory: FastMemory, config: LearnConfig, guard: Guard,
        *, recent: Sequence[tuple[Entry, str]] = (), watch: Array | None = None,
    ) -> None:  # fmt: skip
        self.model, self.base, self.memory, self.config = model, base, memory, config
        self.adapted: Weights = {name: np.asarray(weights[name]) for name in base}
        self._guard = guard
        self.learner = Learner(model.config, weights, base, model.grad_rms, config, guard)
        self.gate = Gate(model.config, model.tokenizer, weights, base, config)
        self._rehearsal = document_ids(model.tokenizer.encode_document_lines(rehearsal_text()))
        self.unsettled = False
        """Whether something was learned since the last checkpoint."""
        self.recent = list(recent)
        self.notes: list[str] = []
        """What was taken back, and why; for whoever reads and empties it."""
        # The change in float16, as a checkpoint holds it: a second copy of the weights would be twice that.
        self._good = {name: np.empty(array.shape, np.float16) for name, array in self.adapted.items()}
        self._good_gates = np.empty_like(memory.gates)
        segments, checks, self._level = (0, 0, 0.0) if watch is None else map(float, watch)
        self._segments, self._checks = int(segments), int(checks)
        self._remember()

    def _remember(self) -> None:
        """This is a good point."""
        for name, change in self._good.items():
            np.subtract(self.adapted[name], self.base[name], out=change, casting="same_kind")
        np.copyto(self._good_gates, self.memory.gates)

    @property
    def sha256(self) -> str:
        """Identifies what was learned, to the last bit."""
        return digest(self.adapted | {GATES: self.memory.gates})

    def live(
        self, entry: Entry, before: str = "", *, on_tokens: OnTokens = lambda _: None, report: bool = False
    ) -> Learned | None:
        """Learns one entry of the log.

        Parameters
        ----------
        entry : Entry
        before : str
            The words that an answer answers.
        on_tokens : callable
            Called with the number of tokens of each segment when it is learned.
        report : bool
            Computes what a turn taught, which learning does not need.
        """
        assert entry.kind not in WORDLESS
        if entry.kind == CHECKPOINT:
            self.settle()
        elif entry.kind == CONSOLIDATION:
            self.consolidate(entry.amount)
        elif entry.kind == CHAT:
            self.unsettled = True
            self.recent.append((entry, before))
            return self._turn(user_turn(entry.text), on_tokens, report)
        elif entry.kind in PAIRED:
            self.unsettled = True
            self.recent.append((entry, before))
            pair = self._ids(entry, before)
            self.read(pair, lambda p: on_tokens(len(p)))
            if entry.kind == FIX:
                with self._guard:
                    self.memory.correct(pair)
        else:
            self.unsettled = True
            for ids in document_ids(self.model.tokenizer.encode_document_lines(entry.text)):
                self.read(np.array(ids), lambda p: on_tokens(len(p)))
        return None

    def consolidate(self, amount: int | None = None, should_stop: ShouldStop = lambda: False) -> int | None:
        """Repeats what was told since the last consolidation until it holds, between samples of general text.

        Returns the steps done if it was broken off: after ``amount`` of them, or because ``should_stop()``,
        which is asked between steps, said so. What was told is then left to the next consolidation.
        """
        if not self.recent:
            return None
        self.unsettled = True
        config, learner = self.config, self.learner
        told = [self._ids(entry, before) for entry, before in self.recent]
        held = [learner.score(ids).mean() * config.hold for ids in told]
        words = "\0".join(entry.text for entry, _ in self.recent)
        rng = np.random.default_rng(list(hashlib.sha256(words.encode()).digest()))
        for step in range(config.rounds * len(told)):
            if step == amount or (amount is None and should_stop()):
                return step
            i = step % len(told)
            if step >= len(told) and learner.score(told[i]).mean() <= held[i]:
                continue
            self._weights_learn(told[i])
            if rng.random() < config.rehearsal:
                sample = self._rehearsal[int(rng.integers(len(self._rehearsal)))]
                self._weights_learn(np.array(sample[: config.segment + 1]))
        self.recent = []
        return None

    def settle(self) -> Weights:
        """Rounds the change to what a checkpoint holds, and returns that: from here a life can be taken up.

        What was learned since the last check, if it is much, is checked before.
        """
        if self.unsettled and 2 * self._segments >= self.config.gate_segments:
            self._check(thorough=True)
        changes = pack_change(self.adapted, self.base, self.model.config)
        if self.unsettled:
            with self._guard.writing():
                apply_change(changes, self.base, self.adapted)
        self.unsettled = False
        self._remember()
        watch = np.array([self._segments, self._checks, self._level])
        return changes | {GATES: self.memory.gates.copy(), WATCH: watch}

    def adopt(self, other: Life) -> None:
        """Goes on from where another life came."""
        with self._guard.writing():
            for name in self.base:
                np.copyto(self.adapted[name], other.adapted[name])
            self.memory = other.memory
        self.unsettled, self.recent = other.unsettled, other.recent
        self._segments, self._checks, self._level = other._segments, other._checks, other._level
        self._good, self._good_gates = other._good, other._good_gates

    def _ids(self, entry: Entry, before: str) -> Array:
        tokenizer = self.model.tokenizer
        if entry.kind == CHAT:
            return np.array([DOC_ID, *tokenizer.encode(user_turn(entry.text))])
        return paired_ids(entry, before, tokenizer)

    def _turn(self, text: str, on_tokens: OnTokens, report: bool) -> Learned | None:
        """The fast memory learns what follows the label alone: it must not take "who speaks" for a context of
        what was said."""
        tokenizer, memory = self.model.tokenizer, self.memory
        ids = np.array([DOC_ID, *tokenizer.encode(text)])
        first = 1 + len(tokenizer.encode(USER_LABEL))
        said = np.array([DOC_ID, *ids[first:]])
        before = self._weights_learn(ids, on_tokens)
        with self._guard:
            mixed = -np.log(memory.learn(said, 1, np.exp(-before[first - 1 :])))
        if not report:
            return None
        after = self.learner.score(ids).astype(np.float64)
        with self._guard:
            mixed_after = -np.log(memory.predict(said, 1, np.exp(-after[first - 1 :])))
        losses = (np.concatenate([a[: first - 1], b]) for a, b in ((before, mixed), (after, mixed_after)))
        return Learned(len(before), *(float(values.mean()) for values in losses))

    def read(
        self, ids: Array, on_probabilities: Callable[[Array], None] = lambda p: None, *, keep: bool = True
    ) -> None:
        """Learns a document [n], its first id the end-of-document id, segment by segment.

        ``on_probabilities`` is given what the mixture of both memories thought of each segment before it was
        learned. Without ``keep`` the weights alone learn, which keep no words.
        """
        memory = self.memory

        def after_segment(start: int, losses: Array) -> None:
            known, p = ids[: start + len(losses) + 1], np.exp(-losses.astype(np.float64))
            with self._guard:
                on_probabilities(memory.learn(known, start + 1, p) if keep else memory.predict(known, start + 1, p))

        self.unsettled = True
        self._weights_learn(ids, after_segment=after_segment)

    def _weights_learn(
        self, ids: Array, on_tokens: OnTokens = lambda _: None, after_segment: OnSegment = lambda start, losses: None
    ) -> Array:
        """Losses in nats before learning. What cannot be learned is skipped: the memory learns it all the
        same, so that its counts are always those of the whole log."""
        done = 0

        def count(start: int, losses: Array) -> None:
            nonlocal done
            after_segment(start, losses)
            done += len(losses)
            self._segments += 1
            if self._segments >= self.config.gate_segments:
                self._check()
            on_tokens(len(losses))

        try:
            return self.learner.learn(ids, count).astype(np.float64)
        except DivergenceError as exc:
            self._take_back(str(exc))
            uniform = np.full(len(ids) - 1, np.log(self.model.config.vocab_size))
            if done < len(uniform):
                after_segment(done, uniform[done:])
            # What the words were worth against a guess says nothing about the memory.
            np.copyto(self.memory.gates, self._good_gates)
            return uniform

    def _check(self, *, thorough: bool = False) -> None:
        excess = np.inf if thorough else self.gate.excess(self.learner.network, self._checks)
        self._segments = 0
        self._checks += 1
        limit, draw = self.config.gate_limit, self.config.gate_draw
        if not excess < limit / 2:
            # A few excerpts are off by a percent or so; a point that counts as good must be one.
            excess = self.gate.excess_of_all(self.learner.network)
            if not excess < limit:
                self._take_back(f"general text became {excess:.1%} worse")
                self._draw_in(limit)
                return
        # Excerpts differ, so what draws the weights back is an average over the last few checks.
        self._level += (excess - self._level) / 2
        if self._level > draw:
            kept = np.float32(max(0.5, (draw / self._level) ** 0.5))
            with self._guard.writing():
                for name, base in self.base.items():
                    self.adapted[name] += (1 - kept) * (base - self.adapted[name])
            self._level *= float(kept) ** 2
        self._remember()

    def _draw_in(self, limit: float) -> None:
        """Halves the change until general text is within the limit: a checkpoint counts as good unchecked."""
        for _ in range(MOST_HALVINGS):
            if self.gate.excess_of_all(self.learner.network) < limit:
                break
            with self._guard.writing():
                for name, base in self.base.items():
                    self.adapted[name] += np.float32(0.5) * (base - self.adapted[name])
        else:
            with self._guard.writing():
                for name, base in self.base.items():
                    self.adapted[name] += base - self.adapted[name]
        self._remember()

    def _take_back(self, reason: str) -> None:
        with self._guard.writing():
            for name, change in self._good.items():
                np.add(self.base[name], change, out=self.adapted[name])
            np.copyto(self.memory.gates, self._good_gates)
        self._level = 0.0
        self.notes.append(f"{reason}: taken back to the last good point")


def remember(memory: FastMemory, entries: Sequence[Entry], befores: Sequence[str], tokenizer: Tokenizer) -> None:
    """Lets the fast memory learn what a life lets it learn of ``entries``, without computing the model."""
    n_label = len(tokenizer.encode(USER_LABEL))
    for entry, before in zip(entries, befores, strict=True):
        if entry.kind == CHAT:
            memory.rebuild([np.array([DOC_ID, *tokenizer.encode(user_turn(entry.text))[n_label:]])])
        elif entry.kind in PAIRED:
            ids = paired_ids(entry, before, tokenizer)
            memory.rebuild([ids])
            if entry.kind == FIX:
                memory.correct(ids)
        elif entry.text:
            memory.rebuild([np.array(ids) for ids in document_ids(tokenizer.encode_document_lines(entry.text))])


def paired_ids(entry: Entry, before: str, tokenizer: Tokenizer) -> Array:
    """Ids of an answer after what it answers."""
    text = (user_turn(before) if before else "") + assistant_turn(entry.text)
    return np.array([DOC_ID, *tokenizer.encode(text)])
