"""A profile that is open, with its conversations."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from edgelm.asking import Friend
from edgelm.config import LearnConfig, SampleConfig
from edgelm.conversation import Conversation
from edgelm.learn.events import Event, GuardrailChecked
from edgelm.log.entry import Entry
from edgelm.runtime import Engine, EngineOptions
from edgelm.serve.http import RequestError
from edgelm.serve.talks import Asked, Talk, Talks
from edgelm.turn import Source, Turn

IDLE_SECONDS = 20.0
"""After so long without a word, what was said is consolidated."""
MOST_EVENTS, MOST_GAINS = 256, 500
"""Events that a listener may be behind, and turns whose gain is remembered, at most."""


@dataclass(frozen=True)
class ServeOptions:
    """How edgelm serves.

    Attributes
    ----------
    engine : EngineOptions
        Its profile is that of whoever is on this device and gives no key.
    learn : bool
        Whether turns are learned where a request does not say.
    may_learn : bool
        Whether any are; without, the profiles are only read.
    sampling : SampleConfig
        Where a request does not say.
    friend : callable or None
        As of ``Conversation``.
    """

    engine: EngineOptions
    learn: bool = False
    may_learn: bool = True
    sampling: SampleConfig = field(default_factory=SampleConfig)
    friend: Friend | None = None


class Served:
    """A profile that is open, with its conversations and those who listen to what happens to it.

    Parameters
    ----------
    options : ServeOptions
    profile : str
    loop : asyncio.AbstractEventLoop

    Attributes
    ----------
    in_use : int
        Requests that use it now.
    listeners : set of asyncio.Queue
        Each is given the events from now on.
    last_check : GuardrailChecked or None
    gains : deque of float
        Bits that the last turns gained by being learned.
    tokens_per_s : float or None
        Of the last answer that the model made.

    Raises
    ------
    EdgelmError
        The model or the profile cannot be used.
    """

    def __init__(self, options: ServeOptions, profile: str, loop: asyncio.AbstractEventLoop) -> None:
        self.options, self.profile, self._loop = options, profile, loop
        self.engine = Engine(
            replace(options.engine, profile=profile), LearnConfig(), writable=options.may_learn,
            idle_seconds=IDLE_SECONDS,
        )  # fmt: skip
        try:
            if self.engine.adaptation.pending:
                self.engine.worker.call(lambda _: self.engine.adaptation.catch_up(aside=True))
            self.engine.bank_being_made  # noqa: B018  while nobody asks
            self.talks = Talks(self.engine.session.state_bytes)
        except BaseException:
            self.engine.close()
            raise
        self.in_use, self._n_answering, self._n_changing = 0, 0, 0
        self._changing, self._moved = asyncio.Lock(), asyncio.Event()
        """``_moved`` is set, and then another takes its place, when one of the two counts has become less."""
        self.listeners: set[asyncio.Queue[Event]] = set()
        self.last_check: GuardrailChecked | None = None
        self.gains: deque[float] = deque(maxlen=MOST_GAINS)
        self.tokens_per_s: float | None = None
        self.engine.on_event = self._tell

    def _tell(self, event: Event) -> None:
        """In the thread that learns."""
        self._loop.call_soon_threadsafe(self._pass_on, event)

    def _pass_on(self, event: Event) -> None:
        if isinstance(event, GuardrailChecked):
            self.last_check = event
        for queue in self.listeners:
            if queue.qsize() < MOST_EVENTS:
                queue.put_nowait(event)

    @asynccontextmanager
    async def answering(self) -> AsyncGenerator[None, None]:
        """While conversations are used; what is forgotten meanwhile waits."""
        while self._n_changing:
            await self._moved.wait()
        self._n_answering += 1
        try:
            yield
        finally:
            # Nothing is waited for here: whoever is cancelled while it waits would never be counted out.
            self._n_answering -= 1
            self._move()

    @asynccontextmanager
    async def changing(self) -> AsyncGenerator[None, None]:
        """While no conversation is used; new answers wait."""
        self._n_changing += 1
        try:
            async with self._changing:
                while self._n_answering:
                    await self._moved.wait()
                yield
        finally:
            self._n_changing -= 1
            self._move()

    def _move(self) -> None:
        """Lets those who wait look again."""
        self._moved.set()
        self._moved = asyncio.Event()

    def talk_for(self, asked: Asked) -> Talk:
        """The conversation that a turn belongs to: a kept one, or a new one that has still to read its history.

        Raises
        ------
        RequestError
            It names one that is not kept.
        """
        talk = self.talks.find(asked)
        if talk is None and asked.conversation:
            raise RequestError(404, "that conversation is not kept any more; begin a new one", "no_conversation")
        if talk is None:
            conversation = Conversation(self.engine, asked.sampling, learn=False, system=asked.system, patient=False)
            conversation.friend = self.options.friend
            talk = Talk(conversation, asked.user)
        return talk

    def learns(self, asked: Asked) -> bool:
        """Whether a turn shall be learned.

        Raises
        ------
        RequestError
            It asks for it, and this server does not learn.
        """
        if asked.learn and not self.options.may_learn:
            raise RequestError(403, "this server was begun with --no-learn: nothing is learned", "no_learning")
        return self.options.may_learn and (self.options.learn if asked.learn is None else asked.learn)

    def note_turn(self, turn: Turn) -> None:
        """Remembers how quickly the last answer of the model came."""
        if turn.source is Source.MODEL and turn.seconds and turn.tokens:
            self.tokens_per_s = round(turn.tokens / turn.seconds, 1)

    def may_change(self) -> None:
        """Raises a ``RequestError`` where the profile is only read."""
        if not self.options.may_learn:
            raise RequestError(403, "this server was begun with --no-learn: the profile is only read", "no_learning")

    def forget(self, entries: list[Entry], words: list[str]) -> list[int]:
        """Forgets entries of the log, and in all kept conversations what they and ``words`` were; returns their ids.

        To be called in a thread; no answer may be under way.
        """
        removed = self.engine.remove([entry.id for entry in entries], wait=False) if entries else []
        gone = [*words, *(entry.text for entry in entries if entry.id in set(removed) and entry.text)]
        self.drop(removed, gone)
        return removed

    def drop(self, entry_ids: list[int], words: list[str]) -> None:
        """Leaves out of all kept conversations what rests on entries that are gone, or holds one of ``words``."""
        for talk in self.talks:
            if any(text.casefold() in talk.conversation.system.casefold() for text in words):
                self.talks.discard(talk)
            else:
                talk.conversation.drop(entry_ids, words)

    def close(self) -> None:
        """Keeps what was learned, and lets others use the profile; a consolidation is left to the next time."""
        try:
            if self.options.may_learn and "worker" in self.engine.__dict__:
                self.engine.worker.close()
                if not self.engine.adaptation.pending:
                    self.engine.adaptation.write_checkpoint()
        finally:
            self.engine.close()
