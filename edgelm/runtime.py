"""Composition root: what belongs to the device, one of each in a process.

That is the model with its one set of matrices, the profile with its log, what was learned, the thread that learns, the
fast memory and the bank. What belongs to a dialogue is a ``Conversation`` (``edgelm.conversation``), of which an engine
serves many.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np

from edgelm import ports
from edgelm.config import LearnConfig, data_dir
from edgelm.engine.choice import Choice, choose
from edgelm.engine.generate import Mix
from edgelm.engine.opening import open_session, precision_of
from edgelm.engine.session import Session
from edgelm.engine.sharing import DialogueSession, SharedSession
from edgelm.errors import InputError
from edgelm.heat import Heat
from edgelm.learn.adaptation import Adaptation
from edgelm.learn.events import OnEvent, Reporter
from edgelm.learn.layering import check_layers, set_layers
from edgelm.learn.long_text import LEAST_TOKENS, learn_text, learn_unlogged
from edgelm.learn.transfer import export_change
from edgelm.learn.worker import Worker
from edgelm.log.entry import CHAT, PAIRED
from edgelm.log.profile import Profile
from edgelm.memory import courtesies, kinds
from edgelm.memory.answering import LISTENS_BELOW, Answering, Plan
from edgelm.memory.bank import Bank, Exchange, read_exchanges
from edgelm.memory.meaning import Meaning
from edgelm.memory.reading import Reading
from edgelm.memory.reminder import reminder_text
from edgelm.memory.statements import Statement, Statements, told_in
from edgelm.model import hub
from edgelm.model.layers import Layer
from edgelm.model.needs import memory_needed, memory_of_layers
from edgelm.model.weights import Weights


def profiles_dir() -> Path:
    """Where profiles are kept."""
    return data_dir() / "profiles"


def models_dir() -> Path:
    """Where pulled models are kept."""
    return data_dir() / "models"


def packs_dir() -> Path:
    """Where the packs are kept that lie beneath the logs of profiles."""
    return data_dir() / "packs"


@dataclass(frozen=True)
class EngineOptions:
    """What the common options of the command line say.

    Attributes
    ----------
    model : str or None
        A bundled or pulled model's name, or a folder.
    profile : str
    threads, seed : int
        ``seed`` 0 draws a new one.
    profiles : Path or None
        Where profiles are kept; default: ``profiles_dir()``.
    bank : bool
        Whether answers may come from the bank of exchanges.
    engine : {"kernels", "onnx"}, optional
        What answers; default: ``edgelm.engine.choice`` decides.
    layers : tuple of Layer, optional
        Lie beneath the log in place of those of the profile, which may only be read then: to try them.
    """

    model: str | None = None
    profile: str = "default"
    threads: int = 1
    seed: int = 0
    profiles: Path | None = None
    bank: bool = True
    engine: str | None = None
    layers: tuple[Layer, ...] | None = None


class Engine:
    """A model with a profile, ready to answer and to learn, in many conversations at a time.

    Parameters
    ----------
    options : EngineOptions
    learn : LearnConfig
    writable : bool
        Holds the profile for writing; a second process is refused.
    max_awake : int, optional
        At most this many blocks awake, instead of the model's own number.
    use_profile : bool
        Without it nothing is known, and nothing kept.
    any_base : bool
        Opens a profile of another model, to rebase it.
    idle_seconds : float, optional
        After so long without anything to learn, what was told is consolidated.
    fixed : bool
        Nothing is learned once a session was asked for, which then may be faster.

    Raises
    ------
    ModelFileError, ProfileError
        The model or the profile cannot be used.
    DeviceError
        This device has no room for the model.
    """

    def __init__(
        self, options: EngineOptions, learn: LearnConfig | None = None, *, writable: bool = False,
        max_awake: int | None = None, use_profile: bool = True, any_base: bool = False,
        idle_seconds: float | None = None, fixed: bool = False,
    ) -> None:  # fmt: skip
        self.options = options
        self._reporter = Reporter()
        self._check_memory()
        self.model = hub.load(options.model, models_dir())
        self.config = self.model.config
        if max_awake is not None:
            if not 1 <= max_awake <= self.config.n_blocks:
                raise InputError(f"--blocks must be between 1 and {self.config.n_blocks}, the blocks of a layer")
            self.model.config = self.config = self.config.resized(max_awake=max_awake)
        self.tokenizer, self.guard, self.template = self.model.tokenizer, self.model.guard, self.model.template
        self._threads, self._fixed = options.threads, fixed
        self._idle_seconds = idle_seconds
        self.telling = threading.Lock()
        """Held while a turn is put into the log and given to the worker, so that turns are learned in their order."""
        self._told: tuple[list[tuple[int, int, str]], Statements | None] = ([], None)
        self.profile: Profile | None = None
        try:
            if use_profile:
                self._open_profile(writable, any_base)
            self.model.answers_in_float32 = self.precision == "float32"  # so does learning, then
            if not fixed:
                self._shared  # noqa: B018  before what learning takes
            self.adaptation = Adaptation(self.model, self.profile, learn or LearnConfig(), time.time, self._reporter)
        except BaseException:
            # Whatever fails, nothing is left held.
            self.close()
            raise

    def _check_memory(self, layers: Iterable[Path] = ()) -> None:
        """Refuses what this device has no room for, before it is loaded; ``layers`` are files of packs."""
        needed = memory_needed(self.options.model, models_dir()) + memory_of_layers(layers)
        ports.check_memory(needed, self.options.model or hub.DEFAULT, ports.detect())

    def _open_profile(self, writable: bool, any_base: bool) -> None:
        """Opens the profile, and puts its layers into the model before anything is made of that."""
        folder = self.options.profiles or profiles_dir()
        self.profile = Profile(folder, self.options.profile, self.model, writable=writable, any_base=any_base)
        if self.options.layers is not None:
            assert not writable
            self.model.set_layers(self.options.layers)
        elif self.profile.layers and self.profile.base == self.model.sha256:
            from edgelm.log.packs import load_layers, path_of

            self._check_memory(path_of(packs_dir(), layer.sha256) for layer in self.profile.layers)
            self.model.set_layers(load_layers(packs_dir(), self.profile.layers, self.model))

    @property
    def on_event(self) -> OnEvent:
        """What is told of segments learned, checks of the guardrail, consolidations and entries forgotten.

        See ``edgelm.learn.events``. It is called in the thread that learns, and must not raise.
        """
        return self._reporter.listener

    @on_event.setter
    def on_event(self, listener: OnEvent) -> None:
        """Tells another, and the one before no more."""
        self._reporter.listener = listener

    @cached_property
    def choice(self) -> Choice:
        """Which engine answers, and why."""
        return choose(self.model, self.options.engine, self._threads, learns=not self._fixed, measures=False)

    @property
    def precision(self) -> str:
        """``int8`` or ``float32``, what answers are computed with."""
        return precision_of(self.choice.engine)

    @cached_property
    def _shared(self) -> SharedSession:
        """What answers; a fixed one only where nothing of the log waits to be learned."""
        fixed = self._fixed and not self.adaptation.pending
        session = open_session(self.model, self._threads, fixed=fixed, engine=self.choice.engine)
        self.model.release()
        return SharedSession(session)

    def new_session(self) -> DialogueSession:
        """A session for one dialogue: it has its own state, and shares the matrices with all others."""
        return self._shared.dialogue()

    @cached_property
    def session(self) -> Session:
        """The session of what is no conversation: texts that are continued or scored one after the other."""
        return self.new_session()

    def new_rng(self) -> np.random.Generator:
        """The randomness of one dialogue, as the seed of the options has it."""
        return np.random.default_rng(self.options.seed or None)

    @property
    def weights(self) -> Weights:
        """All weights in float32; to answer takes less."""
        return self.model.weights

    @cached_property
    def worker(self) -> Worker:
        """The thread that learns; the first use starts it."""
        return Worker(self.adaptation, self._idle_seconds, Heat(ports.detect()).is_too_high)

    def new_mix(self, before: Sequence[int] = (), *, as_reply: bool = False) -> Mix:
        """What mixes the fast memory into the predictions of a text after ``before``; ``as_reply``: of an answer."""
        reading = Reading(before)

        def mix(ids: Sequence[int], probabilities: np.ndarray) -> np.ndarray:
            reading.advance(ids)
            memory = self.adaptation.memory
            if memory is None:
                return probabilities
            with self.guard:
                return memory.mix(reading, probabilities, as_reply)

        return mix

    def reminder(self, asked: str, said: Sequence[str] = ()) -> str:
        """What the person said before about the turn ``asked``, as turns to stand before it; often nothing.

        What is in ``said``, the turns of the present conversation, is not said again.
        """
        memory = self.adaptation.memory
        if memory is None:
            return ""
        with self.guard:
            return reminder_text(memory, self.tokenizer, asked, said, self.template)

    @cached_property
    def meaning(self) -> Meaning:
        """The word vectors that come with edgelm."""
        return Meaning()

    @property
    def bank(self) -> Bank:
        """The exchanges that come with edgelm; empty with ``--no-bank``."""
        return self.bank_being_made.result()

    @cached_property
    def bank_being_made(self) -> Future[Bank]:
        """The bank, made by a thread of its own: to be asked for before the first turn, so that nobody waits for it."""
        maker = ThreadPoolExecutor(1, "bank")
        made = maker.submit(lambda: Bank(self.meaning, read_exchanges() if self.options.bank else ()))
        # The heap keeps several MB that the words were cut out of.
        made.add_done_callback(lambda _: self.model.trim())
        maker.shutdown(wait=False)
        return made

    def plan(self, turn: str, said: Sequence[str] = (), own_entries: Sequence[int] = ()) -> Plan:
        """Where the answer to ``turn`` comes from.

        Parameters
        ----------
        turn : str
        said : sequence of str
            The person's turns before it in the present conversation.
        own_entries : sequence of int
            The log's entries of ``turn`` itself, which are no answer to it.
        """
        told, exchanges = [], []
        for entry in self.adaptation.entries:
            if entry.kind == CHAT and entry.id not in own_entries:
                told.append((entry.id, entry.conversation, entry.text))
            elif entry.kind in PAIRED and (before := self.adaptation.before(entry)):
                exchanges.append(Exchange(before, entry.text, entry.id))
        statements, logged = self._statements(told), {text for _, _, text in told}
        if here := [Statement(text, None) for t in said if t not in logged for text in told_in(t)]:
            statements = Statements(self.meaning, here, statements)
        talks = not self.options.bank or self.model.n_parameters >= LISTENS_BELOW
        banks = [Bank(self.meaning, exchanges, self.bank), self.bank]
        known, named = (courtesies.shipped(), kinds.shipped()) if self.options.bank else (None, None)
        answering = Answering(self.meaning, banks, talks=talks, courtesies=known, kinds=named)
        return answering.plan(turn, statements, len(said), learns=bool(own_entries))

    def _statements(self, told: list[tuple[int, int, str]]) -> Statements:
        """The statements of turns (entry, conversation, words); what was read the last time is not read again."""
        known, statements = self._told
        if statements is None or told[: len(known)] != known:
            known, statements = [], Statements(self.meaning)
        new: list[Statement] = []
        for (_, conversation, before), (entry_id, same, text) in pairwise([(0, -1, ""), *told][len(known) :]):
            earlier = told_in(before)[-1:] if same == conversation else []
            new += [Statement(part, entry_id) for part in told_in(text, *earlier)]
        if new:
            statements = Statements(self.meaning, new, statements)
        self._told = (told, statements)
        return statements

    def is_corrected(self, asked: str) -> bool:
        """Whether the person said, word for word, how ``asked`` (a turn and the label after it) shall be answered."""
        memory = self.adaptation.memory
        if memory is None:
            return False
        with self.guard:
            return memory.has_answer(self.template.document(self.tokenizer.encode(asked)))

    def remove(self, entry_ids: Sequence[int], *, wait: bool = True) -> list[int]:
        """Forgets entries of the log, in the thread that learns; returns those that went.

        The words are gone when it returns. What is left of the log is replayed aside: with ``wait`` until that is done.
        """
        try:
            removed: list[int] = self.worker.call(lambda _: self.adaptation.remove(list(entry_ids))).result()
        finally:
            replay = self.worker.call(lambda _: self.adaptation.catch_up(aside=True))
            if wait:
                replay.result()
        return removed

    def set_layers(self, layers: Sequence[Layer], *, wait: bool = True) -> None:
        """Puts these layers, lowest first, beneath what was learned, if general text may cost what it does with them.

        They are in force when it returns. The log is replayed on them aside: with ``wait`` until that is done. Answers
        go on meanwhile. Packs of them must be in ``packs_dir()`` (``edgelm.log.packs``).
        """

        def change(_: object) -> None:
            if layers:
                check_layers(self.adaptation, layers)
            set_layers(self.adaptation, layers)

        self.worker.call(change).result()
        replay = self.worker.call(lambda _: self.adaptation.catch_up(aside=True))
        if wait:
            replay.result()

    def finish(self) -> None:
        """Consolidates what was told, keeps the weights, and ends the learning thread."""
        try:
            self.worker.call(lambda _: self.adaptation.consolidate()).result()
        finally:
            self.worker.close()
            self.adaptation.write_checkpoint(LEAST_TOKENS)

    def close(self) -> None:
        """Ends the learning thread and lets other processes use the profile."""
        if "worker" in self.__dict__:
            self.worker.close()
        if self.profile is not None:
            self.profile.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def learned_change(self, epsilon: float | None = None) -> Weights:
        """The learned change of the weights, with ``epsilon`` clipped and hidden in noise.

        Raises
        ------
        InputError
            ``epsilon`` is out of range.
        ProfileError
            The noise would leave no model that anybody could use.
        """
        try:
            return export_change(self.adaptation, epsilon)
        except ValueError as exc:
            raise InputError(f"--private: {exc}") from None

    def adapt(self, text: str, on_tokens: Callable[[int], None], *, keep_text: bool = True) -> int:
        """Learns a whole text, piece by piece, each an entry of the log; returns the tokens learned.

        Without ``keep_text`` the weights alone learn: neither the log nor the fast memory, which keep the
        words. Interrupted (any exception from ``on_tokens``), the piece under way is learned to its end, and
        the same text goes on from there the next time.
        """
        if not keep_text:
            return learn_unlogged(self.adaptation, text, on_tokens)
        return learn_text(self.adaptation, self.worker, text, on_tokens)
