"""A profile together with the weights and the fast memory that its log makes of a model.

Everything that is learned goes through ``Adaptation``, in this order:

1. Opening it loads the newest checkpoint of the profile into the model's weights. The entries of the log after that
   checkpoint are ``pending``.
2. ``catch_up`` replays what is pending. Until it has, nothing else may be learned.
3. ``tell`` appends words to the log; they are durable when it returns. ``learn`` then applies the entry to weights and
   fast memory. ``consolidate`` repeats what was told lately, and appends an entry that says so.
4. ``write_checkpoint`` rounds the weights to what a file holds, appends an entry that says so, and writes that file.

``remove``, ``rebase``, an import (``edgelm.learn.transfer``) and other layers (``edgelm.learn.layering``) change the
log or what lies beneath it. Each of them loads the checkpoint that is left, and ``catch_up`` must be called afterwards.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from edgelm.config import LearnConfig
from edgelm.errors import ProfileError
from edgelm.interrupt import held_back
from edgelm.learn.events import Forgotten, OnEvent, ignore
from edgelm.log.change import GATES, WATCH, apply_change, digest, is_watch, misfit
from edgelm.log.entry import CHAT, CHECKPOINT, CONSOLIDATION, PAIRED, UNLOGGED, Entry
from edgelm.log.profile import Profile
from edgelm.matrices.matrix import Operand
from edgelm.memory.reading import Reading
from edgelm.model.guard import Guard
from edgelm.model.hub import Model

if TYPE_CHECKING:
    # Kernels are loaded only by those who learn, or who learned before.
    from edgelm.learn.replay import Learned, Replay
    from edgelm.memory.fast_memory import FastMemory

OnTokens = Callable[[int], None]


class Adaptation:
    """A profile, and the weights and the fast memory that its log makes of a model.

    One thread at a time may learn (``edgelm.learn.worker``). ``tell``, ``memory`` and ``before`` may be called from
    another thread meanwhile.

    Parameters
    ----------
    model : Model
        Its adaptable weights are overwritten when this is made, and updated in place while its guard is held.
    profile : Profile or None
        Where the log and its checkpoints are kept. None: nothing is written to disk.
    config : LearnConfig
    clock : callable
        Returns seconds since 1970, the time of an entry.
    on_event : callable
        Called at what happens to weights and memory (``edgelm.learn.events``).

    Attributes
    ----------
    pending : list of Entry
        Entries of the log that the weights have not learned yet, oldest first. ``catch_up`` empties it.

    Raises
    ------
    ProfileError
        The profile's weights are damaged and cannot be replayed, or do not fit the model.
    """

    def __init__(
        self, model: Model, profile: Profile | None, config: LearnConfig, clock: Callable[[], float],
        on_event: OnEvent = ignore,
    ) -> None:  # fmt: skip
        self._on_event = on_event
        self.model, self.profile, self.config, self.guard = model, profile, config, model.guard
        self.clock = clock
        self._order = threading.Lock()
        """Held while an entry is appended whose place in the log says what the weights had learned by then."""
        self.load_checkpoint()

    @cached_property
    def base(self) -> dict[str, Operand]:
        """The adaptable weights before any learning, with the layers of the model; read when first asked for."""
        return self.model.base()

    def load_checkpoint(self) -> None:
        """Sets the weights to those of the profile's newest checkpoint, or of the base model where there is none.

        The adaptable weights are overwritten. Entries after the checkpoint become ``pending``, which is the whole log
        where the profile belongs to another model. What was in the fast memory is dropped, and is built again from the
        log when it is next asked for.

        Raises
        ------
        ProfileError
            The checkpoint is damaged, or does not fit the model.
        """
        # The checkpoint of another model is of no use: until the profile is rebased there is the log alone.
        ours = self.profile is not None and self.profile.identity == self.model.identity
        found = self.profile.checkpoint() if self.profile and ours else None
        self._since, tensors, _ = found or (0, {}, {})
        self._gates, self._watch = tensors.pop(GATES, None), tensors.pop(WATCH, None)
        if (name := misfit(tensors, self.model.config)) or (found and self._gates is None):
            raise ProfileError(f"{self.profile.path}: its weights are damaged at {name or GATES!r}")  # type: ignore[union-attr]
        if self._watch is not None and not is_watch(self._watch):
            raise ProfileError(f"{self.profile.path}: its weights are damaged at {WATCH!r}")  # type: ignore[union-attr]
        if tensors or "base" in self.__dict__:
            base = self.base
            with self.guard.writing():
                apply_change(tensors, base, self.model.adaptable)
        self.pending = [entry for entry in self.entries if entry.id > self._since]
        # What is told from now on enters the memory when it is learned, not when the memory is first asked for.
        self._known = self.entries[-1].id if self.entries else 0
        self._memory: FastMemory | None = None
        self._replay: Replay | None = None
        self._unsaved = 0
        """Tokens learned since the last checkpoint that was written."""
        self._unlearned: set[int] = set()
        """Entries that this session appended and that the weights do not have, because their turn is still to come or
        because something failed: until they have them, no later entry may say that all before it was learned."""

    @property
    def entries(self) -> list[Entry]:
        """The log, oldest first; empty without a profile."""
        return self.profile.entries if self.profile else []

    @property
    def memory(self) -> FastMemory | None:
        """The fast memory of layers and log, built when first asked for. None if they have no words.

        Then no kernels are loaded either.
        """
        with self.guard:
            if self._memory is None:
                known = [entry for entry in self.entries if entry.id <= self._known]
                has_words = any(layer.text for layer in self.model.layers) or any(entry.text for entry in known)
                self._memory = self._memory_of(known) if has_words else None
            return self._memory

    @property
    def replay(self) -> Replay:
        """Applies entries to weights and fast memory. Made when first asked for, when nothing may be ``pending``."""
        assert not self.pending
        if self._replay is None:
            memory = self.memory or self._memory_of(())
            self._replay = self._replay_from_checkpoint(self.model.operands, memory, self.guard)
            self._memory = self._replay.memory
        return self._replay

    @property
    def sha256(self) -> str:
        """SHA-256 of the adaptable weights and the gates: equal where the same was learned, to the last bit."""
        told = self.profile is None or any(entry.text for entry in self.entries)
        gates = {GATES: self.memory.gates} if told and self.memory is not None else {}
        return digest(self.model.adaptable | gates)

    def _memory_of(self, entries: Iterable[Entry]) -> FastMemory:
        """A fast memory that holds the texts of the layers and ``entries``, with the gates of the checkpoint."""
        from edgelm.learn.documents import remember, remember_text
        from edgelm.memory.fast_memory import FastMemory

        memory, entries = FastMemory(self.model.tokenizer, template=self.model.template), list(entries)
        if self._gates is not None:
            values = self._gates[..., 0]
            fits = self._gates.dtype == np.float64 and self._gates.shape == memory.gates.shape
            if not (fits and np.isfinite(self._gates).all() and (values >= 0).all() and (values <= 1).all()):
                raise ProfileError(f"{self.profile.path}: its weights are damaged at {GATES!r}")  # type: ignore[union-attr]
            memory.gates[:] = self._gates
        for layer in self.model.layers:
            remember_text(memory, layer.text, self.model.tokenizer)
        befores = [self.before(entry) for entry in entries]
        remember(memory, entries, befores, self.model.tokenizer, self.model.template)
        return memory

    def _replay_from_checkpoint(self, weights: dict[str, Operand], memory: FastMemory, guard: Guard) -> Replay:
        """A replay that goes on after the entry of the checkpoint, over ``weights``, which hold that checkpoint."""
        from edgelm.learn.replay import Replay

        recent: list[tuple[Entry, str]] = []
        for entry in (entry for entry in self.entries if entry.id <= self._since):
            if entry.kind == CHAT or entry.kind in PAIRED:
                recent.append((entry, self.before(entry)))
            elif entry.kind == CONSOLIDATION:
                # One that was broken off may be complete without what was forgotten since.
                complete = entry.amount is None or entry.amount >= self.config.rounds * len(recent)
                recent = [] if complete else recent
        replay = Replay(self.model, weights, self.base, memory, self.config, guard, recent=recent, watch=self._watch)
        replay.on_event = self._on_event
        return replay

    def before(self, entry: Entry) -> str:
        """The words that an answer answers; empty for an entry that is no answer."""
        if entry.parent is None:
            return ""
        return next((other.text for other in self.entries if other.id == entry.parent), "")

    def prepare(self) -> None:
        """Loads, or the first time compiles, all kernels. Nothing is learned."""
        self.replay.learner.prepare()
        self.replay.memory.predict(np.array(self.model.template.document([1])), 1, np.ones(1))
        self.replay.memory.mix(Reading(self.model.template.document([])), np.ones(self.model.config.vocab_size))

    def catch_up(self, on_tokens: OnTokens = lambda _: None, *, aside: bool = False) -> None:
        """Replays what is pending, which is empty afterwards.

        If it is interrupted and not ``aside``, call ``load_checkpoint`` before another try: weights are partly
        replayed.

        Parameters
        ----------
        on_tokens : callable
            Called with the number of tokens of each segment when it is learned.
        aside : bool
            Replays on copies, which replace weights and memory when they are complete: until then answers come from
            the weights of the checkpoint. Otherwise the weights are updated in place.
        """
        if not self.pending:
            return
        pending, own = self.pending, self.model.operands
        weights = own | {name: array.copy() for name, array in self.model.adaptable.items()} if aside else own
        first = pending[0].id
        memory = self._memory_of(entry for entry in self.entries if entry.id < first)
        replay = self._replay_from_checkpoint(weights, memory, Guard(self.model.config) if aside else self.guard)
        for entry in pending:
            replay.apply(entry, self.before(entry), on_tokens=self._counting(on_tokens))
        replay.notes.clear()
        if aside:
            copied, replay = replay, self._replay_from_checkpoint(own, replay.memory, self.guard)
            replay.copy_from(copied)
        with self.guard:
            self.pending, self._memory, self._replay = [], replay.memory, replay

    def _counting(self, on_tokens: OnTokens) -> OnTokens:
        """``on_tokens``, which also counts the tokens learned since a checkpoint was written."""

        def count(n_tokens: int) -> None:
            self._unsaved += n_tokens
            on_tokens(n_tokens)

        return count

    def tell(self, kind: str, text: str, *, conversation: int, parent: int | None = None, progress: str = "") -> Entry:
        """Appends words to the log. They are durable when this returns; ``learn`` of the entry must follow.

        Without a profile the entry is only made, with the id 0. ``progress`` is kept beside the log: how far the run of
        ``adapt`` came that the entry belongs to.

        Raises
        ------
        ProfileError
            The disk is full or fails; the log is as it was.
        """
        if self.profile is None:
            return Entry(0, self.clock(), kind, text, conversation, parent)
        with held_back(), self._order:
            entry = self.profile.append(
                kind, text, time=self.clock(), conversation=conversation, parent=parent, progress=progress
            )
            self._unlearned.add(entry.id)
        with self.guard:
            if self.pending and self._memory is not None:
                # While an older part of the log is replayed, the fast memory knows the new words at once.
                from edgelm.learn.documents import remember

                model = self.model
                remember(self._memory, [entry], [self.before(entry)], model.tokenizer, model.template)
        return entry

    def learn(self, entry: Entry, *, on_tokens: OnTokens = lambda _: None, report: bool = False) -> Learned | None:
        """Applies an entry that ``tell`` returned to weights and fast memory, which are updated in place.

        Entries must be learned in the order in which they were told. With ``report`` it returns what the entry taught,
        if that is a turn of a chat, which costs two more passes; otherwise None.
        """
        learned = self.replay.apply(entry, self.before(entry), on_tokens=self._counting(on_tokens), report=report)
        self.model.trim()
        self._unlearned.discard(entry.id)
        self._write_notes(entry)
        return learned

    def _write_notes(self, entry: Entry) -> None:
        """Writes the last thing that the guardrail undid, if there is one, into the entry at which it did so."""
        notes = self.replay.notes
        if notes and self.profile is not None:
            self.profile.change(entry.id, note=notes[-1])
        notes.clear()

    @property
    def has_unconsolidated(self) -> bool:
        """Whether something was learned that is not consolidated; False until ``replay`` was made."""
        return self._replay is not None and bool(self._replay.recent)

    def consolidate(self, should_stop: Callable[[], bool] = lambda: False) -> None:
        """Repeats what was told lately until the weights hold it, and appends an entry to the log that says so.

        ``should_stop`` is asked between two steps. If it says so, the number of steps is written into the entry, so
        that a replay stops there too. Nothing happens without a profile, or while an entry that was told is not
        learned.

        Raises
        ------
        ProfileError
            The disk is full or fails.
        """
        if not self.has_unconsolidated or self.profile is None:
            return
        with self._order:
            if self._unlearned:
                return
            entry = self.profile.append(CONSOLIDATION, time=self.clock())
            self._unlearned.add(entry.id)
        self._unsaved += 3 * sum(len(told.text) for told, _ in self.replay.recent) // 4
        steps = self.replay.consolidate(None, should_stop)
        self.model.trim()
        if steps is not None:
            self.profile.change(entry.id, amount=steps)
        self._unlearned.discard(entry.id)
        self._write_notes(entry)

    def write_checkpoint(self, least_tokens: int = 0) -> None:
        """Appends a checkpoint to the log, rounds the weights, in place, to what a file holds, and writes that file.

        The file is left out if fewer than ``least_tokens`` tokens were learned since the last one, because these are
        replayed sooner than it is written. Nothing at all happens without a profile, where nothing was learned since
        the last rounding, or while an entry that was told is not learned.

        Raises
        ------
        ProfileError
            The disk is full or fails. What was learned is in the log.
        """
        if self._replay is None or not self._replay.changed_since_checkpoint or self.profile is None:
            return
        with self._order:
            if self._unlearned:
                return
            # The log first: should it fail, the weights are still those of the log.
            entry = self.profile.append(CHECKPOINT, time=self.clock())
        tensors = self._replay.round_to_checkpoint()
        self.model.trim()
        self._write_notes(entry)
        if self._unsaved >= least_tokens:
            self.profile.write_checkpoint(tensors)
            self._unsaved = 0

    def write_replayed_checkpoint(self, least_tokens: int) -> None:
        """Writes the weights to a file if the log ends at a checkpoint and ``least_tokens`` or more were replayed."""
        ends_at_checkpoint = bool(self.entries) and self.entries[-1].kind == CHECKPOINT
        if self.profile is not None and ends_at_checkpoint and self._unsaved >= least_tokens:
            self.profile.write_checkpoint(self.replay.round_to_checkpoint())
            self._unsaved = 0

    def append_unlogged(self, note: str) -> None:
        """Rounds the weights and appends an entry without words, which stands for a text and has a checkpoint.

        The text was learned by ``replay`` before. No earlier entry can be forgotten or replayed any more.
        """
        assert self.profile is not None
        tensors = self.replay.round_to_checkpoint()
        self.profile.append(UNLOGGED, time=self.clock(), note=note, tensors=tensors)
        self._unsaved = 0

    def remove(self, ids: Iterable[int]) -> list[int]:
        """Removes entries from log and files, and loads the checkpoint that is left; ``catch_up`` must follow.

        Answers to these entries, and approved answers given later in the same conversation, go with them. Returns the
        ids of all that went.

        Raises
        ------
        ProfileError
            There is no such entry, something learned later cannot be replayed, or a file could not be tidied
            afterwards.
        """
        assert self.profile is not None
        known = [entry.id for entry in self.entries]
        try:
            return self.profile.remove(ids)
        finally:
            # What is out of the log leaves the weights too, even if some file could not be tidied.
            if len(self.entries) != len(known):
                self.load_checkpoint()
                left = {entry.id for entry in self.entries}
                self._on_event(Forgotten(tuple(i for i in known if i not in left)))

    def rebase(self) -> None:
        """Makes the profile one of this model, whatever model it was learned on; ``catch_up`` must follow.

        The layers of its old model do not come along.
        """
        assert self.profile is not None
        self.profile.rebase(self.model)
        self.load_checkpoint()
