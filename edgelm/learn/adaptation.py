"""Everything that is learned goes through here: into the log first, then into weights and fast memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgelm.config import LearnConfig
from edgelm.errors import ProfileError
from edgelm.interrupt import held_back
from edgelm.log.change import GATES, WATCH, apply_change, digest, misfit
from edgelm.log.entry import CHAT, CHECKPOINT, CONSOLIDATION, IMPORT, PAIRED, UNLOGGED, Entry
from edgelm.log.profile import Profile
from edgelm.model import tensorfile
from edgelm.model.guard import Guard
from edgelm.model.hub import Model
from edgelm.model.packing import Tensor
from edgelm.model.weights import Weights
from edgelm.text.tokenizer import DOC_ID

if TYPE_CHECKING:
    # Kernels are loaded only by those who learn, or who learned before.
    from edgelm.learn.replay import Learned, Life
    from edgelm.memory.fast_memory import FastMemory

HARM, HARM_STEPS = 2, 8
"""A change from outside may cost general text this many times what learning may; tokens that are scored at a time."""
OnTokens = Callable[[int], None]


class Adaptation:
    """A profile, and the weights and the fast memory that its log makes of a model.

    Parameters
    ----------
    model : Model
        Its weights are changed in place.
    profile : Profile or None
        None: nothing is kept.
    config : LearnConfig
    clock : callable
        Seconds since 1970.

    Attributes
    ----------
    pending : list of Entry
        What the log holds and the weights do not yet: see ``catch_up``.

    Raises
    ------
    ProfileError
        The profile's weights belong to another model, or are damaged and cannot be replayed.
    """

    def __init__(self, model: Model, profile: Profile | None, config: LearnConfig, clock: Callable[[], float]) -> None:
        self.model, self.profile, self.config, self.guard = model, profile, config, model.guard
        self._clock = clock
        self._order = threading.Lock()
        """Held while the log is given something whose place in it says what the weights had learned then."""
        self.restart()

    @cached_property
    def base(self) -> dict[str, Tensor]:
        """The adaptable weights before any learning; taken before they are written for the first time."""
        return self.model.base()

    def restart(self) -> None:
        """Takes the life up at the newest checkpoint; what the log holds beyond it is pending."""
        # Of another model there is the log alone, until it is moved.
        ours = self.profile is not None and self.profile.base == self.model.sha256
        found = self.profile.checkpoint() if self.profile and ours else None
        self._since, tensors, _ = found or (0, {}, {})
        self._gates, self._watch = tensors.pop(GATES, None), tensors.pop(WATCH, None)
        if (name := misfit(tensors, self.model.config)) or (found and self._gates is None):
            raise ProfileError(f"{self.profile.path}: its weights are damaged at {name or GATES!r}")  # type: ignore[union-attr]
        if self._watch is not None and not _is_watch(self._watch):
            raise ProfileError(f"{self.profile.path}: its weights are damaged at {WATCH!r}")  # type: ignore[union-attr]
        if tensors or "base" in self.__dict__:
            base = self.base
            with self.guard.writing():
                apply_change(tensors, base, self.model.adaptable)
        self.pending = [entry for entry in self.entries if entry.id > self._since]
        # What is told from now on is learned when its turn comes, not when the memory is first asked for.
        self._known = self.entries[-1].id if self.entries else 0
        self._memory: FastMemory | None = None
        self._life: Life | None = None
        self._unsaved = 0
        self._unlearned: set[int] = set()
        """What this session put into the log and the weights do not have, because its turn is still to come, or
        because something failed: until they have it, nothing that follows may be written down as done."""

    @property
    def entries(self) -> list[Entry]:
        """The log, oldest first."""
        return self.profile.entries if self.profile else []

    @property
    def memory(self) -> FastMemory | None:
        """The fast memory with the whole log; None where nothing was learned, so that nobody loads kernels."""
        with self.guard:
            if self._memory is None:
                known = [entry for entry in self.entries if entry.id <= self._known]
                self._memory = self._memory_of(known) if any(entry.text for entry in known) else None
            return self._memory

    @property
    def life(self) -> Life:
        """Moves weights and memory on; ``catch_up`` comes first."""
        assert not self.pending
        if self._life is None:
            self._life = self._take_up(self.model.operands, self.memory or self._memory_of(()), self.guard)
            self._memory = self._life.memory
        return self._life

    @property
    def sha256(self) -> str:
        """Identifies what was learned, to the last bit."""
        told = self.profile is None or any(entry.text for entry in self.entries)
        gates = {GATES: self.memory.gates} if told and self.memory is not None else {}
        return digest(self.model.adaptable | gates)

    def _memory_of(self, entries: Iterable[Entry]) -> FastMemory:
        from edgelm.learn.replay import remember
        from edgelm.memory.fast_memory import FastMemory

        memory, entries = FastMemory(self.model.tokenizer), list(entries)
        if self._gates is not None:
            values = self._gates[..., 0]
            fits = self._gates.dtype == np.float64 and self._gates.shape == memory.gates.shape
            if not (fits and np.isfinite(self._gates).all() and (values >= 0).all() and (values <= 1).all()):
                raise ProfileError(f"{self.profile.path}: its weights are damaged at {GATES!r}")  # type: ignore[union-attr]
            memory.gates[:] = self._gates
        remember(memory, entries, [self.before(entry) for entry in entries], self.model.tokenizer)
        return memory

    def _take_up(self, weights: dict[str, Tensor], memory: FastMemory, guard: Guard) -> Life:
        from edgelm.learn.replay import Life

        recent: list[tuple[Entry, str]] = []
        for entry in (entry for entry in self.entries if entry.id <= self._since):
            if entry.kind == CHAT or entry.kind in PAIRED:
                recent.append((entry, self.before(entry)))
            elif entry.kind == CONSOLIDATION:
                # One that was broken off may be complete without what was forgotten since.
                complete = entry.amount is None or entry.amount >= self.config.rounds * len(recent)
                recent = [] if complete else recent
        return Life(self.model, weights, self.base, memory, self.config, guard, recent=recent, watch=self._watch)

    def before(self, entry: Entry) -> str:
        """The words that an answer answers."""
        if entry.parent is None:
            return ""
        return next((other.text for other in self.entries if other.id == entry.parent), "")

    def prepare(self) -> None:
        """Loads, or the first time compiles, all kernels."""
        self.life.learner.prepare()
        self.life.memory.predict(np.array([DOC_ID, 1]), 1, np.ones(1))
        self.life.memory.mix([DOC_ID], np.ones(self.model.config.vocab_size))

    def catch_up(self, on_tokens: OnTokens = lambda _: None, *, aside: bool = False) -> None:
        """Replays what is pending.

        With ``aside`` on copies that take the place of weights and memory when they are complete: until
        then answers come from the weights of the checkpoint.
        """
        if not self.pending:
            return
        pending, own = self.pending, self.model.operands
        weights = own | {name: array.copy() for name, array in self.model.adaptable.items()} if aside else own
        first = pending[0].id
        memory = self._memory_of(entry for entry in self.entries if entry.id < first)
        life = self._take_up(weights, memory, Guard(self.model.config) if aside else self.guard)
        for entry in pending:
            life.live(entry, self.before(entry), on_tokens=self._counting(on_tokens))
        life.notes.clear()
        if aside:
            settled = self._take_up(own, life.memory, self.guard)
            settled.adopt(life)
            life = settled
        with self.guard:
            self.pending, self._memory, self._life = [], life.memory, life

    def _counting(self, on_tokens: OnTokens) -> OnTokens:
        def count(n_tokens: int) -> None:
            self._unsaved += n_tokens
            on_tokens(n_tokens)

        return count

    def tell(self, kind: str, text: str, *, conversation: int, parent: int | None = None, progress: str = "") -> Entry:
        """Puts words into the log. They are durable when this returns; ``learn`` is to follow."""
        if self.profile is None:
            return Entry(0, self._clock(), kind, text, conversation, parent)
        with held_back(), self._order:
            entry = self.profile.append(
                kind, text, time=self._clock(), conversation=conversation, parent=parent, progress=progress
            )
            self._unlearned.add(entry.id)
        with self.guard:
            if self.pending and self._memory is not None:
                # While an older part of the log is replayed, the fast memory knows the new words at once.
                from edgelm.learn.replay import remember

                remember(self._memory, [entry], [self.before(entry)], self.model.tokenizer)
        return entry

    def learn(self, entry: Entry, *, on_tokens: OnTokens = lambda _: None, report: bool = False) -> Learned | None:
        """Learns an entry that ``tell`` gave; with ``report`` says what it taught."""
        learned = self.life.live(entry, self.before(entry), on_tokens=self._counting(on_tokens), report=report)
        self._unlearned.discard(entry.id)
        self._write_notes(entry)
        return learned

    def _write_notes(self, entry: Entry) -> None:
        notes = self.life.notes
        if notes and self.profile is not None:
            self.profile.change(entry.id, note=notes[-1])
        notes.clear()

    @property
    def is_restless(self) -> bool:
        """Whether something was told that is not consolidated."""
        return self._life is not None and bool(self._life.recent)

    def consolidate(self, should_stop: Callable[[], bool] = lambda: False) -> None:
        """Repeats what was told lately until it holds, as an entry of the log."""
        if not self.is_restless or self.profile is None:
            return
        with self._order:
            if self._unlearned:
                return
            entry = self.profile.append(CONSOLIDATION, time=self._clock())
            self._unlearned.add(entry.id)
        self._unsaved += 3 * sum(len(told.text) for told, _ in self.life.recent) // 4
        steps = self.life.consolidate(None, should_stop)
        if steps is not None:
            self.profile.change(entry.id, amount=steps)
        self._unlearned.discard(entry.id)
        self._write_notes(entry)

    def settle(self, least_tokens: int = 0) -> None:
        """Ends a session: rounds the weights to what a file keeps, as an entry of the log, and writes that
        file if at least so many tokens were learned since the last one."""
        if self._life is None or not self._life.unsettled or self.profile is None:
            return
        with self._order:
            if self._unlearned:
                return
            # The log first: should it fail, the weights are still those of the log.
            entry = self.profile.append(CHECKPOINT, time=self._clock())
        tensors = self._life.settle()
        self._write_notes(entry)
        if self._unsaved >= least_tokens:
            self.profile.keep_weights(tensors)
            self._unsaved = 0

    def keep(self, least_tokens: int) -> None:
        """Writes the weights after a replay that was worth so many tokens, where it ended at a checkpoint."""
        ends_settled = bool(self.entries) and self.entries[-1].kind == CHECKPOINT
        if self.profile is not None and ends_settled and self._unsaved >= least_tokens:
            self.profile.keep_weights(self.life.settle())
            self._unsaved = 0

    def seal(self, note: str) -> None:
        """Keeps weights whose words are not kept; nothing before can be forgotten or replayed any more."""
        assert self.profile is not None
        self.profile.append(UNLOGGED, time=self._clock(), note=note, tensors=self.life.settle())
        self._unsaved = 0

    def remove(self, ids: Iterable[int]) -> list[int]:
        """Takes entries out of the log and all files; returns those that went. ``catch_up`` is to follow."""
        assert self.profile is not None
        known = len(self.entries)
        try:
            return self.profile.remove(ids)
        finally:
            # What is out of the log leaves the weights too, even if some file could not be tidied.
            if len(self.entries) != known:
                self.restart()

    def rebase(self) -> None:
        """Moves the profile to this model; ``catch_up`` is to follow."""
        assert self.profile is not None
        self.profile.rebase(self.model)
        self.restart()

    def exported(self, epsilon: float | None = None) -> Weights:
        """The learned change as ``take_in`` reads it, with ``epsilon`` clipped and in noise (``edgelm.log.privacy``).

        Raises
        ------
        ProfileError
            The noise would leave no model that anybody could use.
        """
        from edgelm.log.change import pack_change

        changes = pack_change(self.model.adaptable, self.base, self.model.config)
        if epsilon is not None:
            from edgelm.log.privacy import hidden

            changes = hidden(changes, self.model.config, epsilon, np.random.default_rng())
            self._refuse_harm(changes, f"epsilon {epsilon:g}", "nothing is written; a larger one hides less")
        return changes

    def write_change(self, path: Path, changes: Weights) -> int:
        """Writes what ``exported`` gave; returns its bytes."""
        metadata = {"base": self.model.sha256, "base_name": self.model.name, "kind": "edgelm learned change"}
        tensorfile.write(path, changes, metadata)
        return path.stat().st_size

    def take_in(self, path: Path) -> None:
        """Begins an empty profile with a change that ``export`` wrote, or with the log of another profile's
        ``.db``; then ``catch_up`` is to follow. What would make general text worse is refused before any of it is kept.
        """
        assert self.profile is not None
        if self.entries:
            raise ProfileError(f"profile {self.profile.name!r} is not empty; import into a new one: --profile NAME")
        if path.suffix == ".db":
            if not path.is_file():
                raise ProfileError(f"{path}: no such file")
            source = Profile(path.absolute().parent, path.stem, self.model, writable=False)
            try:
                # Its words alone; what they do to the weights is done anew, under this model's gate.
                self.profile.copy_log(source.entries)
            finally:
                source.close()
            self.restart()
            return
        changes, metadata = tensorfile.read(path)
        if metadata.get("base") != self.model.sha256:
            raise ProfileError(f"{path} was learned on another model ({metadata.get('base_name')!r})")
        self._refuse_harm(changes, str(path), "it is not taken in")
        changes[GATES] = self._memory_of(()).gates
        self.profile.append(IMPORT, time=self._clock(), note=f"from {path.name}", tensors=changes)
        self.restart()

    def _refuse_harm(self, changes: Weights, what: str, advice: str) -> None:
        """Raises ``ProfileError`` if tensors are no change, or one that costs general text more than learning may."""
        if name := misfit(changes, self.model.config):
            raise ProfileError(f"{what}: damaged at {name!r}")
        from edgelm.learn.gate import Gate
        from edgelm.learn.network import Network

        weights = {name: array.copy() for name, array in self.model.adaptable.items()}
        apply_change(changes, self.base, weights)
        operands = {**self.model.operands, **weights}
        gate = Gate(self.model.config, self.model.tokenizer, operands, self.base, self.config)
        excess = gate.excess_of_all(Network(self.model.config, operands, (), HARM_STEPS))
        if not excess < HARM * self.config.gate_limit:
            cost = f"{excess:.0%} more" if excess < 10 else "many times as much, or nothing that is finite"
            raise ProfileError(f"{what}: with it general text would cost {cost}; {advice}")


def _is_watch(watch: np.ndarray) -> bool:
    """Whether an array is where a gate may stand (``Life``)."""
    fits = watch.dtype == np.float64 and watch.shape == (3,) and bool(np.isfinite(watch).all())
    return fits and bool((watch[:2] >= 0).all() and (watch[:2] < 2**53).all() and (watch[:2] == watch[:2] // 1).all())
