"""Replay of a log: the weights and the fast memory as a function of the base model and the entries, in their order.

``Replay.apply`` is the one place that learns an entry, whether a person has just written it or a process reads it again
from the log. The same entries give the same bits in whatever processes and threads they are applied:

- each document is learned from an empty state, and segments never cross documents;
- what is drawn at random is drawn from a generator seeded by the entries' own words;
- the guardrail decides anew, from the weights alone.

So learning while a person talks, replaying after a crash, and replaying without an entry that shall be forgotten are
one computation.

For each segment of a document or of an answer the order is: the model scores it; the weights are updated (``Learner``);
the fast memory predicts it, mixed with the model's score from before the update, and then stores it; if
``gate_segments`` segments were learned since the last check, the guardrail checks the weights on general text. Of a
turn of a chat, which the fast memory stores without its label, the weights learn all segments first, checks included;
then the fast memory predicts and stores the whole turn. A consolidation changes the weights alone.

Where a loss or a gradient is not finite, or the check fails, the weights and the gates of the fast memory go back to
the last good point; what the fast memory stored stays. A good point is the state at the start, after a checkpoint, or
after a check that was passed. It holds the change of the weights in float16.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edgelm.config import LearnConfig
from edgelm.errors import DivergenceError
from edgelm.learn.documents import entry_ids
from edgelm.learn.events import Consolidated, GuardrailChecked, OnEvent, SegmentLearned, ignore
from edgelm.learn.good_point import GoodPoint
from edgelm.learn.guardrail import Guardrail
from edgelm.learn.learner import Learner, OnSegment
from edgelm.log.change import GATES, WATCH, apply_change, digest, pack_change
from edgelm.log.entry import CHAT, CHECKPOINT, CONSOLIDATION, FIX, PAIRED, WORDLESS, Entry
from edgelm.matrices.changed import copy_from, pull
from edgelm.matrices.matrix import Operands
from edgelm.memory.fast_memory import FastMemory
from edgelm.model.guard import Guard
from edgelm.model.hub import Model
from edgelm.model.weights import Weights
from edgelm.text.general import rehearsal_text
from edgelm.text.tokenizer import document_ids

Array = np.ndarray
OnTokens = Callable[[int], None]
ShouldStop = Callable[[], bool]
MOST_HALVINGS = 6
"""Of a change that costs general text too much; then all of it goes."""


@dataclass(frozen=True)
class Learned:
    """What a turn taught.

    Parameters
    ----------
    tokens : int
        Tokens of the turn, its label included.
    loss_before, loss_after : float
        Mean nats per token before and after: of the model for the label, of its mixture with the fast memory for the
        rest.
    """

    tokens: int
    loss_before: float
    loss_after: float

    @property
    def bits_gained(self) -> float:
        """Bits by which the same text became cheaper."""
        return float((self.loss_before - self.loss_after) * self.tokens / np.log(2))


class Replay:
    """Weights and fast memory, moved on by one entry of a log after the other.

    Parameters
    ----------
    model : Model
        Read: configuration, tokenizer, template and ``grad_rms``. Its own weights are not used.
    weights : dict of ndarray
        All weights, as they were after the entries applied before. The adaptable ones are updated in place; frozen
        matrices are read and may be integers.
    base : dict of ndarray
        The adaptable weights before any learning; read.
    memory : FastMemory
        Updated in place. It holds the entries applied before.
    config : LearnConfig
    guard : Guard
        Held while weights or memory are written.
    recent : sequence of (Entry, str)
        Entries applied since the last consolidation, which the next one repeats, each with the words before it.
    watch : ndarray [3] of float64, optional
        The counters of the guardrail, as ``round_to_checkpoint`` returned them with the checkpoint that ``weights``
        hold: segments since its last check, checks, and the average excess. Default: nothing was learned.

    Attributes
    ----------
    on_event : callable
        Called at segments, checks and consolidations (``edgelm.learn.events``). It may be set; by default it does
        nothing.
    recent : list of (Entry, str)
        What the next consolidation repeats.
    changed_since_checkpoint : bool
        Whether something was learned since the weights were last rounded.
    notes : list of str
        What the guardrail undid, and why; whoever reads the list empties it.
    """

    def __init__(
        self, model: Model, weights: Operands, base: Operands, memory: FastMemory, config: LearnConfig, guard: Guard,
        *, recent: Sequence[tuple[Entry, str]] = (), watch: Array | None = None,
    ) -> None:  # fmt: skip
        self.model, self.base, self.memory, self.config = model, base, memory, config
        self.adapted = {name: weights[name] for name in base}
        self._guard = guard
        self.on_event: OnEvent = ignore
        self.learner = Learner(model.config, weights, base, model.grad_rms, config, guard)
        bare = model.bare() if model.layers else None
        self.guardrail = Guardrail(model.config, model.tokenizer, weights, base, config, bare)
        self._rehearsal = document_ids(model.tokenizer.encode_document_lines(rehearsal_text()))
        self.changed_since_checkpoint = False
        self.recent = list(recent)
        self.notes: list[str] = []
        self._good = GoodPoint(model.config, self.adapted, base, guard)
        self._good_gates = np.empty_like(memory.gates)
        segments, checks, self._mean_excess = (0, 0, 0.0) if watch is None else map(float, watch)
        self._segments, self._checks = int(segments), int(checks)
        self._save_good_point()

    def _save_good_point(self) -> None:
        """Makes the present weights and gates the last good point. The weights themselves are not rounded."""
        self._good.save()
        np.copyto(self._good_gates, self.memory.gates)

    @property
    def sha256(self) -> str:
        """SHA-256 of the adaptable weights and the gates: equal where the same was learned, to the last bit."""
        return digest(self.adapted | {GATES: self.memory.gates})

    def apply(
        self, entry: Entry, before: str = "", *, on_tokens: OnTokens = lambda _: None, report: bool = False
    ) -> Learned | None:
        """Applies one entry of the log: learns its words, consolidates, or rounds, as its kind says.

        A text or document whose loss or gradient is not finite raises nothing: see the beginning of this module.

        Parameters
        ----------
        entry : Entry
            Not one of ``WORDLESS``, whose words are not in the log; an assertion fails for these.
        before : str
            The words that an answer answers; read for answers alone.
        on_tokens : callable
            Called after each segment with its number of tokens, when it is learned and checked; not in a consolidation.
        report : bool
            Of a turn of a chat, returns what it taught, which takes two more passes. Otherwise the result is None.
        """
        assert entry.kind not in WORDLESS
        if entry.kind == CHECKPOINT:
            self.round_to_checkpoint()
        elif entry.kind == CONSOLIDATION:
            self.consolidate(entry.amount)
        elif entry.kind == CHAT:
            self.changed_since_checkpoint = True
            self.recent.append((entry, before))
            return self._learn_turn(self.model.template.user_turn(entry.text), on_tokens, report)
        elif entry.kind in PAIRED:
            self.changed_since_checkpoint = True
            self.recent.append((entry, before))
            pair = self._entry_ids(entry, before)
            self.learn_document(pair, lambda p: on_tokens(len(p)))
            if entry.kind == FIX:
                with self._guard:
                    self.memory.correct(pair)
        else:
            self.changed_since_checkpoint = True
            for ids in document_ids(self.model.tokenizer.encode_document_lines(entry.text)):
                self.learn_document(np.array(ids), lambda p: on_tokens(len(p)))
        return None

    def consolidate(self, amount: int | None = None, should_stop: ShouldStop = lambda: False) -> int | None:
        """Repeats the entries in ``recent`` until the weights hold them, and mixes samples of general text in.

        The first of ``config.rounds`` rounds learns every entry once more. Later rounds leave out those whose loss has
        fallen to ``config.hold`` of what it was at the beginning. After each entry learned, with probability
        ``config.rehearsal``, a segment of general text is learned too. The fast memory is not changed, except that a
        restored good point restores the gates.

        It is broken off after ``amount`` steps or, where ``amount`` is None, as soon as ``should_stop()``, asked before
        each step, is true. Then it returns the steps done, and all of ``recent`` is left to the next consolidation.
        Otherwise it empties ``recent`` and returns None.
        """
        if not self.recent:
            return None
        self.changed_since_checkpoint = True
        config, learner = self.config, self.learner
        told = [self._entry_ids(entry, before) for entry, before in self.recent]
        held = [learner.score(ids).mean() * config.hold for ids in told]
        words = "\0".join(entry.text for entry, _ in self.recent)
        rng = np.random.default_rng(list(hashlib.sha256(words.encode()).digest()))
        for step in range(config.rounds * len(told)):
            if step == amount or (amount is None and should_stop()):
                self.on_event(Consolidated(len(told), step, complete=False))
                return step
            i = step % len(told)
            if step >= len(told) and learner.score(told[i]).mean() <= held[i]:
                continue
            self._learn_weights(told[i])
            if rng.random() < config.rehearsal:
                sample = self._rehearsal[int(rng.integers(len(self._rehearsal)))]
                self._learn_weights(np.array(sample[: config.segment + 1]))
        self.recent = []
        self.on_event(Consolidated(len(told), config.rounds * len(told), complete=True))
        return None

    def round_to_checkpoint(self) -> Weights:
        """Rounds the weights, in place, to what a checkpoint holds; returns its tensors, to be written before anything
        else is learned.

        The tensors are the change in float16 (``pack_change``), the gates of the fast memory and the counters of the
        guardrail. From them another replay goes on to the same bits. If at least half of ``gate_segments`` segments
        were learned since the last check, the guardrail checks the weights first, on all its excerpts.

        Raises
        ------
        DivergenceError
            A change is too large for float16; the weights are not rounded.
        """
        if self.changed_since_checkpoint and 2 * self._segments >= self.config.gate_segments:
            self._check(thorough=True)
        changes = pack_change(self.adapted, self.base, self.model.config, copy=False)
        if self.changed_since_checkpoint:
            with self._guard.writing():
                apply_change(changes, self.base, self.adapted)
        self.changed_since_checkpoint = False
        self._save_good_point()
        watch = np.array([self._segments, self._checks, self._mean_excess])
        return changes | {GATES: self.memory.gates.copy(), WATCH: watch}

    def copy_from(self, other: Replay) -> None:
        """Takes over all that ``other`` has learned: its weights are copied in place, its memory is shared from now on.

        ``other`` must not be used afterwards.
        """
        with self._guard.writing():
            for name in self.base:
                copy_from(self.adapted[name], other.adapted[name])
            self.memory = other.memory
        self.changed_since_checkpoint, self.recent = other.changed_since_checkpoint, other.recent
        self._segments, self._checks, self._mean_excess = other._segments, other._checks, other._mean_excess
        self._good.take_over(other._good)
        self._good_gates = other._good_gates

    def _entry_ids(self, entry: Entry, before: str) -> Array:
        return entry_ids(entry, before, self.model.tokenizer, self.model.template)

    def _learn_turn(self, text: str, on_tokens: OnTokens, report: bool) -> Learned | None:
        """Learns a turn: first the weights, with the label of who speaks, then the fast memory, without that label.

        The label must not count as a context of what was said.
        """
        tokenizer, template, memory = self.model.tokenizer, self.model.template, self.memory
        ids = np.array(template.document(tokenizer.encode(text)))
        first = 1 + len(tokenizer.encode(template.user_prompt))
        said = np.array(template.document(ids[first:].tolist()))
        before = self._learn_weights(ids, on_tokens)
        with self._guard:
            mixed = -np.log(memory.learn(said, 1, np.exp(-before[first - 1 :])))
        if not report:
            return None
        after = self.learner.score(ids).astype(np.float64)
        with self._guard:
            mixed_after = -np.log(memory.predict(said, 1, np.exp(-after[first - 1 :])))
        losses = (np.concatenate([a[: first - 1], b]) for a, b in ((before, mixed), (after, mixed_after)))
        return Learned(len(before), *(float(values.mean()) for values in losses))

    def learn_document(
        self, ids: Array, on_probabilities: Callable[[Array], None] = lambda p: None, *, keep_words: bool = True
    ) -> None:
        """Learns one document, segment by segment; weights and fast memory are updated in place.

        Parameters
        ----------
        ids : ndarray [n] of int64
            The first is the end-of-document id; ids[1:] are learned.
        on_probabilities : callable
            Called for each segment with the probabilities [segment] float64 that the mixture gave its ids before they
            were learned, and once for all ids that are skipped after a segment failed.
        keep_words : bool
            Without it the weights alone learn; the fast memory, which keeps words, only predicts.
        """
        memory = self.memory

        def after_segment(start: int, losses: Array) -> None:
            known, p = ids[: start + len(losses) + 1], np.exp(-losses.astype(np.float64))
            with self._guard:
                on_probabilities(
                    memory.learn(known, start + 1, p) if keep_words else memory.predict(known, start + 1, p)
                )

        self.changed_since_checkpoint = True
        self._learn_weights(ids, after_segment=after_segment)

    def _learn_weights(
        self, ids: Array, on_tokens: OnTokens = lambda _: None, after_segment: OnSegment = lambda start, losses: None
    ) -> Array:
        """Returns losses [n - 1] in nats float64, before learning; the weights are updated in place.

        Where a loss or a gradient is not finite, the weights go back to the last good point, the rest of ``ids`` is
        skipped, and all losses are those of a uniform guess. ``after_segment`` is called once for the rest all the
        same, so that the fast memory holds the whole log.
        """
        done = 0

        def count(start: int, losses: Array) -> None:
            nonlocal done
            after_segment(start, losses)
            done += len(losses)
            awake = int(np.count_nonzero(self.learner.network.awake))
            self.on_event(SegmentLearned(len(losses), float(losses.mean()), awake))
            self._segments += 1
            if self._segments >= self.config.gate_segments:
                self._check()
            on_tokens(len(losses))

        try:
            return self.learner.learn(ids, count).astype(np.float64)
        except DivergenceError as exc:
            self._restore_good_point(str(exc))
            self.on_event(GuardrailChecked(float("inf"), "restored"))
            uniform = np.full(len(ids) - 1, np.log(self.model.config.vocab_size))
            if done < len(uniform):
                after_segment(done, uniform[done:])
            # What the words were worth against a guess says nothing about the memory.
            np.copyto(self.memory.gates, self._good_gates)
            return uniform

    def _check(self, *, thorough: bool = False) -> None:
        """Scores general text and keeps the weights, pulls them towards the base, or undoes what was learned.

        A check reads a few excerpts, and all if those are not clearly good. ``thorough`` reads all at once.
        """
        excess = np.inf if thorough else self.guardrail.excess(self.learner.network, self._checks)
        self._segments = 0
        self._checks += 1
        limit, draw = self.guardrail.limit, self.config.gate_draw
        if not excess < limit / 2:
            # A few excerpts are off by a percent or so; a point that counts as good must be one.
            excess = self.guardrail.excess_of_all(self.learner.network)
            if not excess < limit:
                self._restore_good_point(f"general text became {excess:.1%} worse")
                self._shrink_change(limit)
                self.on_event(GuardrailChecked(float(excess), "restored"))
                return
        # Excerpts differ, so what pulls the weights towards the base is an average over the last few checks.
        self._mean_excess += (excess - self._mean_excess) / 2
        too_much = self._mean_excess > draw
        if too_much:
            kept = np.float32(max(0.5, (draw / self._mean_excess) ** 0.5))
            self._pull_to_base(1 - kept)
            self._mean_excess *= float(kept) ** 2
        self._save_good_point()
        self.on_event(GuardrailChecked(float(excess), "pulled" if too_much else "kept"))

    def _pull_to_base(self, share: np.float32) -> None:
        """Moves the weights this share of the way to the base, in place."""
        with self._guard.writing():
            for name, base in self.base.items():
                pull(self.adapted[name], base, share)

    def _shrink_change(self, limit: float) -> None:
        """Halves the change until general text is within ``limit``, or drops it; the result is a good point.

        The good point that was restored may be one that was never checked, as that at the start.
        """
        for _ in range(MOST_HALVINGS):
            if self.guardrail.excess_of_all(self.learner.network) < limit:
                break
            self._pull_to_base(np.float32(0.5))
        else:
            self._pull_to_base(np.float32(1))
        self._save_good_point()

    def _restore_good_point(self, reason: str) -> None:
        """Overwrites the weights and the gates with those of the last good point, and adds ``reason`` to ``notes``."""
        with self._guard.writing():
            self._good.restore()
            np.copyto(self.memory.gates, self._good_gates)
        self._mean_excess = 0.0
        self.notes.append(f"{reason}: taken back to the last good point")
