"""Connections that come in: how many there may be, which of them makes place for a new one, and how each ends.

A connection that asks for nothing costs a task and two buffers. When as many are open as may be, the one that has been
silent longest, if that is a while, makes place for a new one, so that clients who hold connections open cannot keep
others out.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

READ_BYTES, WRITE_BYTES = 1 << 14, 1 << 14
"""Read, and given to the system to be sent, at a time."""
SILENT_SECONDS = 1.0
"""After so long without a whole request a connection may have to make place for another."""


class GoneError(Exception):
    """The client has gone, or is cut off."""


@dataclass(eq=False)
class Connection:
    """A client's connection.

    Attributes
    ----------
    reader, writer
    since : float
        When it came, or when its last request was answered, by the clock of the loop.
    silent : bool
        Whether no whole request was read that is not answered yet.
    """

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    since: float
    silent: bool = True

    @property
    def peer(self) -> str:
        """The address of the other end."""
        name = self.writer.get_extra_info("peername")
        return str(name[0]) if isinstance(name, tuple) else ""

    def cut(self) -> None:
        """Ends it at once, whatever is still to be sent."""
        self.writer.transport.abort()


C = TypeVar("C", bound=Connection)


class Listener(Generic[C]):
    """Listens, and lets ``serve`` serve each connection until it returns.

    Parameters
    ----------
    make : callable
        A connection of the reader, the writer, and the time.
    serve : callable
        What it does with it. ``GoneError``, ``ConnectionError`` and ``TimeoutError`` cut the connection.
    most : int
        Connections at a time.
    wait_seconds, write_seconds : float
        That a new connection waits for its place at most, and that what was written may take to be sent.
    refusal : bytes
        Sent to one that gets no place.
    line_bytes : int
        That are read before somebody takes them.
    """

    def __init__(
        self, make: Callable[[asyncio.StreamReader, asyncio.StreamWriter, float], C],
        serve: Callable[[C], Awaitable[None]], most: int, *, wait_seconds: float, write_seconds: float,
        refusal: bytes = b"", line_bytes: int = READ_BYTES,
    ) -> None:  # fmt: skip
        self._make, self._serve, self._most, self._refusal = make, serve, most, refusal
        self._wait_seconds, self._write_seconds, self._line_bytes = wait_seconds, write_seconds, line_bytes
        self._connections: dict[C, None] = {}
        self._tasks: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._n_waiting, self._closed = 0, False
        self._server: asyncio.Server | None = None

    async def listen(self, host: str, port: int) -> int:
        """Begins to listen; returns the port, a free one for 0.

        Raises
        ------
        OSError
            The address cannot be had.
        """
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = found[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # What the system keeps for us of a connection is read at once, and is ours then.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2 * READ_BYTES)
            listening.bind(address)
        except OSError:
            listening.close()
            raise
        self._server = await asyncio.start_server(self._accept, sock=listening, limit=self._line_bytes, backlog=256)
        return int(listening.getsockname()[1])

    async def close(self) -> None:
        """Listens no more, and cuts all connections."""
        self._closed = True
        if self._server is not None:
            self._server.close()
        # A task that has not begun, or waits for its place, knows of no connection yet: the writer is cut here.
        for task, writer in list(self._tasks.items()):
            writer.transport.abort()
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def connections(self) -> list[C]:
        """Those that are open, the one that was served last at the end."""
        return list(self._connections)

    def is_served(self, connection: C) -> None:
        """A whole request of it was read: it makes place for nobody until ``is_silent``.

        Raises
        ------
        GoneError
            It made place for another before.
        """
        if self._connections.pop(connection, connection) is not None:
            raise GoneError
        self._connections[connection] = None  # the newest of all
        connection.silent = False

    def is_silent(self, connection: C) -> None:
        """Its request was answered."""
        connection.silent, connection.since = True, asyncio.get_running_loop().time()

    def drop(self, connection: C) -> None:
        """Cuts a connection and counts it no more, though it may take a while until ``serve`` has ended."""
        self._connections.pop(connection, None)
        connection.cut()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._closed:
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._served(reader, writer))
        self._tasks[task] = writer
        task.add_done_callback(self._tasks.pop)

    async def _served(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not await self._has_room():
            # So few bytes go into the buffer of a new connection at once; nobody waits for them.
            writer.write(self._refusal)
            writer.close()
            return
        connection = self._make(reader, writer, asyncio.get_running_loop().time())
        writer.transport.set_write_buffer_limits(high=WRITE_BYTES)
        self._connections[connection] = None
        try:
            await self._serve(connection)
        except (GoneError, ConnectionError, TimeoutError, asyncio.CancelledError):
            connection.cut()
        finally:
            # What was written is still to be sent, but not for ever.
            writer.close()
            try:
                async with asyncio.timeout(self._write_seconds):
                    await writer.wait_closed()
            except (OSError, TimeoutError, asyncio.CancelledError):
                connection.cut()
            self._connections.pop(connection, None)

    async def _has_room(self) -> bool:
        """Waits, if it must, until another connection can be served; of those that have been silent for a while the
        one that came first makes place."""
        loop = asyncio.get_running_loop()
        if self._n_waiting >= self._most:
            return False
        self._n_waiting += 1
        try:
            end = loop.time() + self._wait_seconds
            while len(self._connections) >= self._most:
                before = loop.time() - SILENT_SECONDS
                silent = next((one for one in self._connections if one.silent and one.since < before), None)
                if silent is not None:
                    self.drop(silent)
                elif loop.time() > end:
                    return False
                else:
                    await asyncio.sleep(0.05)
            return True
        finally:
            self._n_waiting -= 1
