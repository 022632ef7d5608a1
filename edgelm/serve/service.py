"""What a request needs of edgelm: profiles, their conversations, and threads that answer.

Everything here runs in the thread of the event loop, but for what ``Service.run`` is given, and the answers themselves:
those run in a few threads, since they take long. An answer holds the lock of its conversation.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from edgelm import ports
from edgelm.engine.sharing import StoppedError
from edgelm.errors import ConfigError, EdgelmError, InputError
from edgelm.heat import Heat
from edgelm.learn.events import Event
from edgelm.serve.http import RequestError
from edgelm.serve.served import Served, ServeOptions
from edgelm.serve.talks import Asked, Talk, digest
from edgelm.turn import Turn

Result = TypeVar("Result")
Make = Callable[[threading.Event], Iterator[str]]
InPieces = Callable[[Make], AsyncGenerator[str, None]]
THREADS, MOST_WAITING = 4, 256
"""Threads that answer, and requests that wait for one, at most."""
MOST_LONG = 2
"""Threads of them that continue texts, which may be long: the others are for conversations."""
MOST_PROFILES = 3
"""Profiles that are open at a time; each has weights of its own."""
MOST_LISTENERS = 16
"""Clients that listen to events, at most."""


class Answer:
    """An answer in pieces, each as soon as it is there: to be iterated over once, within ``Service.answer``.

    Attributes
    ----------
    talk : Talk
    turn : Turn
        How it went; whole when the iteration has ended.
    """

    def __init__(self, talk: Talk, asked: Asked, in_pieces: InPieces, *, learn: bool) -> None:
        self.talk, self._asked, self._in_pieces, self._learn = talk, asked, in_pieces, learn

    @property
    def turn(self) -> Turn:
        """How it went."""
        return self.talk.conversation.turns[-1]

    def pieces(self) -> AsyncGenerator[str, None]:
        """The pieces; closing it ends the answer, and waits for the thread to let go."""
        return self._in_pieces(self._answer)

    def _answer(self, gone: threading.Event) -> Iterator[str]:
        """In a thread."""
        conversation, asked = self.talk.conversation, self._asked
        conversation.cancelled, conversation.sampling, conversation.learn = gone, asked.sampling, self._learn
        if asked.seed is not None:
            conversation.rng = np.random.default_rng(asked.seed)
        if asked.history and self.talk.digest != digest(asked.system, asked.history):
            conversation.resume(asked.history)
        return conversation.turn(asked.text)


class Service:
    """Profiles that are open, and the threads that answer.

    Parameters
    ----------
    options : ServeOptions
    clock : callable
        Returns seconds since 1970.
    """

    def __init__(self, options: ServeOptions, clock: Callable[[], float]) -> None:
        self.options, self._clock, self.started = options, clock, int(clock())
        self._heat = Heat(ports.detect())
        self._pool = ThreadPoolExecutor(THREADS, "edgelm-answering")
        self._served: dict[str, Served] = {}
        self._tasks: dict[str, asyncio.Future[None]] = {}
        """Those that are being opened."""
        self._opening, self._long = asyncio.Lock(), asyncio.Semaphore(MOST_LONG)
        self._threads = asyncio.Semaphore(THREADS)
        """Whoever has gone before its turn waits no more, as it would for the pool."""
        self._waiting = 0

    def celsius(self) -> float | None:
        """The temperature of the processor, where the device tells it."""
        degrees = self._heat.celsius()
        return round(degrees, 1) if degrees > -273.0 else None

    @staticmethod
    def resident_bytes() -> int:
        """Memory that this process has; 0 where the system does not tell."""
        try:
            return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
        except (OSError, ValueError, IndexError):
            return 0

    def now(self) -> int:
        """Seconds since 1970."""
        return int(self._clock())

    @property
    def profiles(self) -> list[str]:
        """Those that are open."""
        return list(self._served)

    async def open(self, profile: str) -> Served:
        """The profile, which is opened if it was not; one that nobody uses is closed for it, if there are too many.

        Raises
        ------
        EdgelmError
            It cannot be used.
        RequestError
            Too many are in use.
        """
        while profile not in self._served:
            if profile not in self._tasks:
                self._tasks[profile] = task = asyncio.ensure_future(self._open(profile))
                task.add_done_callback(lambda done: self._opened(profile, done))
            # Whoever asked first may be gone before it is open: others wait for it too.
            await asyncio.shield(self._tasks[profile])
        self._served[profile] = self._served.pop(profile)  # the one used last is the last
        return self._served[profile]

    def _opened(self, profile: str, done: asyncio.Future[None]) -> None:
        del self._tasks[profile]
        if not done.cancelled():
            done.exception()  # those who wait, if there are any, have it

    async def _open(self, profile: str) -> None:
        async with self._opening:
            if len(self._served) >= MOST_PROFILES:
                idle = next((one for one in self._served.values() if not (one.in_use or one.listeners)), None)
                if idle is None:
                    raise busy()
                del self._served[idle.profile]
                await self._in_thread(idle.close)
            loop = asyncio.get_running_loop()
            self._served[profile] = await self._in_thread(lambda: Served(self.options, profile, loop))

    async def _in_thread(self, action: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._pool, action)

    async def run(self, served: Served, action: Callable[[], Result]) -> Result:
        """Does something with a profile in a thread.

        Raises
        ------
        RequestError
            Too many wait already.
        """
        with _Use(self, served):
            async with self._threads:
                running = asyncio.ensure_future(self._in_thread(action))
                try:
                    return await asyncio.shield(running)
                finally:
                    # A thread cannot be ended: until it has, nobody else is given what it uses, nor its place.
                    await _over(running)

    @asynccontextmanager
    async def answer(self, served: Served, asked: Asked) -> AsyncGenerator[Answer, None]:
        """The answer to a turn, whose conversation nobody else uses meanwhile.

        Raises
        ------
        RequestError
            Too many wait already, or the request asks for what is not to be had.
        """
        learn = served.learns(asked)
        with _Use(self, served):
            async with served.answering():
                talk = served.talk_for(asked)
                if asked.user:
                    served.talks.keep(talk)  # a second turn of theirs waits for this one
                async with talk.lock:
                    try:
                        yield Answer(talk, asked, self._in_pieces, learn=learn)
                    finally:
                        served.talks.keep(talk)

    async def _in_pieces(self, make: Make) -> AsyncGenerator[str, None]:
        """What ``make`` yields in a thread, as it comes; the event that it is given says that nobody listens."""
        loop, pieces = asyncio.get_running_loop(), asyncio.Queue[str | None]()
        gone = threading.Event()

        def run() -> None:
            try:
                if gone.is_set():
                    return
                made = make(gone)
                try:
                    for piece in made:
                        loop.call_soon_threadsafe(pieces.put_nowait, piece)
                        if gone.is_set():
                            return
                except StoppedError:
                    return
                finally:
                    if isinstance(made, Generator):
                        made.close()
            finally:
                loop.call_soon_threadsafe(pieces.put_nowait, None)

        await self._threads.acquire()
        running = loop.run_in_executor(self._pool, run)
        # The thread is another's once it has ended, however slowly the client takes what it made.
        running.add_done_callback(lambda _: self._threads.release())
        try:
            while (piece := await pieces.get()) is not None:
                yield piece
            await running
        finally:
            gone.set()
            # Whoever is told that nobody listens any more ends with the present token.
            await _over(running)

    async def stream(self, served: Served, make: Make) -> AsyncGenerator[str, None]:
        """What a generator yields in a thread, as it comes.

        Raises
        ------
        RequestError
            Too many wait already.
        """
        with _Use(self, served):
            async with self._long, aclosing(self._in_pieces(make)) as pieces:
                async for piece in pieces:
                    yield piece

    async def close(self) -> None:
        """Closes all profiles."""
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        for served in self._served.values():
            await self._in_thread(served.close)
        self._served.clear()
        self._pool.shutdown(wait=False)

    def begin(self) -> None:
        """Counts a request that uses a thread.

        Raises
        ------
        RequestError
            Too many wait already.
        """
        if self._waiting >= THREADS + MOST_WAITING:
            raise busy()
        self._waiting += 1

    def end(self) -> None:
        """Counts it no more."""
        self._waiting -= 1

    def listen(self, served: Served) -> asyncio.Queue[Event]:
        """A queue of what happens to a profile from now on; to be given back to ``leave``.

        Raises
        ------
        RequestError
            Too many listen already.
        """
        if sum(len(one.listeners) for one in self._served.values()) >= MOST_LISTENERS:
            raise busy()
        queue: asyncio.Queue[Event] = asyncio.Queue()
        served.listeners.add(queue)
        return queue

    def leave(self, served: Served, queue: asyncio.Queue[Event]) -> None:
        """Listens no more."""
        served.listeners.discard(queue)


class _Use:
    """A profile that a request uses, and so is not closed; counts the requests that wait."""

    def __init__(self, service: Service, served: Served) -> None:
        self._service, self._served = service, served

    def __enter__(self) -> None:
        self._service.begin()
        self._served.in_use += 1

    def __exit__(self, *_: object) -> None:
        self._served.in_use -= 1
        self._service.end()


async def _over(running: asyncio.Future[Any]) -> None:
    """Waits until it is over, however often that is to be cancelled; its error, if any, is not raised."""
    cancelled: asyncio.CancelledError | None = None
    while not running.done():
        try:
            await asyncio.wait([running])
        except asyncio.CancelledError as exc:
            cancelled = exc
    if not running.cancelled():
        running.exception()  # somebody has seen it
    if cancelled is not None:
        raise cancelled


def busy() -> RequestError:
    """Too much is asked at a time."""
    return RequestError(503, "too many requests at a time; try again in a few seconds", "overloaded")


def as_request_error(exc: EdgelmError) -> RequestError:
    """What a client is told of an error that edgelm raised on purpose."""
    if isinstance(exc, (InputError, ConfigError)):
        return RequestError(400, str(exc), "invalid_request")
    return RequestError(503, str(exc), "unavailable")
