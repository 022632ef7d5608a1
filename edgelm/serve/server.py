"""HTTP/1.1 over asyncio: h11 parses, and every wait of a client for us, or of us for a client, has an end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import h11

from edgelm.serve.http import SAFE, Handler, Request, RequestError, Response, as_json
from edgelm.serve.listener import READ_BYTES, WRITE_BYTES, Connection, GoneError, Listener


@dataclass(frozen=True)
class Limits:
    """What a client may cost.

    Attributes
    ----------
    connections : int
        Open at a time, at most.
    header_bytes, body_bytes : int
        Of a request, at most.
    all_bodies_bytes : int
        Of the bodies of all requests that are not answered yet, at most.
    header_seconds, body_seconds : float
        In which a request's head, and its body, must have arrived.
    idle_seconds : float
        That a connection is kept open for a next request.
    write_seconds, behind_seconds : float
        After which a client is cut off that takes nothing of a response, or never all of what is there for it.
    drop_seconds : float
        That the rest of a refused request is read, and dropped, so that its client can read the answer.
    """

    connections: int = 640
    header_bytes: int = 16_384
    body_bytes: int = 1 << 19
    all_bodies_bytes: int = 1 << 23
    header_seconds: float = 10.0
    body_seconds: float = 20.0
    idle_seconds: float = 60.0
    write_seconds: float = 20.0
    behind_seconds: float = 60.0
    drop_seconds: float = 2.0


@dataclass(eq=False)
class _Connection(Connection):
    """A client's connection, and how far its requests are."""

    http: h11.Connection = field(kw_only=True)
    leftover: list[bytes] = field(default_factory=list)
    body_bytes: int = 0
    kept_up: float = 0.0
    """When it had last taken all that was there for it."""
    is_head: bool = False
    """Whether the last request wants the head of the answer alone."""


class Server:
    """Listens, and lets ``handler`` answer.

    Parameters
    ----------
    handler : callable
        Request to response. What it raises is answered with 500 and told to ``on_error``.
    limits : Limits
    on_error : callable
        Called with an exception of ``handler`` that nobody expected.
    """

    def __init__(self, handler: Handler, limits: Limits, on_error: Callable[[BaseException], None]) -> None:
        self._handler, self._limits, self._on_error = handler, limits, on_error
        self._bodies_bytes = 0
        self._listener = Listener(
            self._connection, self._serve, limits.connections, wait_seconds=limits.header_seconds,
            write_seconds=limits.write_seconds,
        )  # fmt: skip
        self.listen, self.close = self._listener.listen, self._listener.close

    def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, now: float) -> _Connection:
        http = h11.Connection(h11.SERVER, max_incomplete_event_size=self._limits.header_bytes)
        return _Connection(reader, writer, now, http=http)

    @property
    def n_connections(self) -> int:
        """Connections that are open."""
        return len(self._listener.connections)

    async def _serve(self, connection: _Connection) -> None:
        """Answers requests, one after the other."""
        try:
            await self._requests(connection)
        finally:
            self._let_go(connection)

    async def _requests(self, connection: _Connection) -> None:
        seconds = self._limits.header_seconds
        while True:
            try:
                request = await self._read(connection, seconds)
            except RequestError as exc:
                await self._refuse(connection, exc)
                return
            if request is None:
                return
            self._listener.is_served(connection)
            connection.kept_up = asyncio.get_running_loop().time()
            try:
                await self._answer(connection, request)
            finally:
                self._let_go(connection)
            self._listener.is_silent(connection)
            if connection.http.our_state is not h11.DONE or connection.http.their_state is not h11.DONE:
                return
            connection.http.start_next_cycle()
            seconds = self._limits.idle_seconds

    async def _refuse(self, connection: _Connection, exc: RequestError) -> None:
        """Answers a request that was not read to its end, and closes; what still comes of it is dropped.

        While something unread lies here, closing would have the client's system throw the answer away.
        """
        response = as_json({"error": {"message": str(exc)}}, exc.status)
        await self._send(connection, response, closes=True, head_only=connection.is_head)
        self._let_go(connection)
        with contextlib.suppress(TimeoutError, OSError):
            connection.writer.write_eof()
            async with asyncio.timeout(self._limits.drop_seconds):
                while await connection.reader.read(READ_BYTES):
                    pass

    async def _read(self, connection: _Connection, seconds: float) -> Request | None:
        """The next request; None where the client has closed, or sent nothing for ``seconds``."""
        connection.is_head = False
        try:
            async with asyncio.timeout(seconds):
                head = await self._next(connection)
        except TimeoutError:
            if connection.http.trailing_data[0]:
                raise RequestError(408, "the head of the request did not arrive in time") from None
            return None
        if not isinstance(head, h11.Request):
            return None
        connection.is_head = head.method == b"HEAD"
        headers: dict[str, str] = {}
        for name, value in head.headers:
            key, text = name.decode("ascii").lower(), value.decode("latin-1")
            headers[key] = f"{headers[key]}, {text}" if key in headers else text
        if int(headers.get("content-length", "0") or 0) > self._limits.body_bytes:
            raise RequestError(413, f"the body must have at most {self._limits.body_bytes} bytes")
        if connection.http.they_are_waiting_for_100_continue:
            await self._write(connection, h11.InformationalResponse(status_code=100, headers=[]))
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                body = await self._body(connection)
        except TimeoutError:
            raise RequestError(408, "the body of the request did not arrive in time") from None
        try:
            target = urlsplit(head.target.decode("latin-1"))
            query = dict(parse_qsl(target.query, keep_blank_values=True, max_num_fields=64))
        except ValueError:
            raise RequestError(400, "the address of the request cannot be read") from None
        method = head.method.decode("ascii")
        return Request(method, unquote(target.path), query, headers, body, connection.peer)

    async def _body(self, connection: _Connection) -> bytes:
        parts, n_bytes = list[bytes](), 0
        while isinstance(part := await self._next(connection), h11.Data):
            n_bytes += len(part.data)
            connection.body_bytes += len(part.data)
            self._bodies_bytes += len(part.data)
            if n_bytes > self._limits.body_bytes:
                raise RequestError(413, f"the body must have at most {self._limits.body_bytes} bytes")
            if self._bodies_bytes > self._limits.all_bodies_bytes:
                raise RequestError(503, "too much is sent at a time; try again in a few seconds")
            parts.append(bytes(part.data))
        if not isinstance(part, h11.EndOfMessage):
            raise GoneError
        return b"".join(parts)

    def _let_go(self, connection: _Connection) -> None:
        """The body of its request counts no more."""
        self._bodies_bytes -= connection.body_bytes
        connection.body_bytes = 0

    async def _next(self, connection: _Connection) -> Any:
        """The next event of the client's."""
        while True:
            try:
                found = connection.http.next_event()
            except h11.RemoteProtocolError as exc:
                raise RequestError(exc.error_status_hint, f"this is not HTTP/1.1 as it should be: {exc}") from None
            if found is not h11.NEED_DATA:
                return found
            if connection.leftover:
                connection.http.receive_data(connection.leftover.pop(0))
                continue
            connection.http.receive_data(await connection.reader.read(READ_BYTES))

    async def _answer(self, connection: _Connection, request: Request) -> None:
        """Lets the handler answer; a client that goes meanwhile ends that."""
        answering = asyncio.ensure_future(self._answered(connection, request))
        watching = asyncio.ensure_future(self._watch(connection))
        try:
            await asyncio.wait({answering, watching}, return_when=asyncio.FIRST_COMPLETED)
            if not answering.done() and watching.result():
                self._listener.drop(connection)
                raise GoneError
            await answering
        finally:
            for task in (answering, watching):
                task.cancel()
            await asyncio.gather(answering, watching, return_exceptions=True)

    async def _watch(self, connection: _Connection) -> bool:
        """Whether the client has closed its end, as soon as it has; False when it sent something more."""
        data = await connection.reader.read(READ_BYTES)
        if data:
            connection.leftover.append(data)
        return not data

    async def _answered(self, connection: _Connection, request: Request) -> None:
        try:
            response = await self._handler(request)
        except Exception as exc:
            self._on_error(exc)
            response = as_json({"error": {"message": "an error in edgelm; its log says more"}}, 500)
        try:
            await self._send(connection, response, head_only=request.method == "HEAD")
        finally:
            if (aclose := getattr(response.body, "aclose", None)) is not None:
                await aclose()

    async def _send(
        self, connection: _Connection, response: Response, *, closes: bool = False, head_only: bool = False
    ) -> None:
        headers = [("content-type", response.content_type), *SAFE, *response.headers]
        if isinstance(response.body, bytes):
            headers.append(("content-length", str(len(response.body))))
        if closes:
            headers.append(("connection", "close"))
        if connection.http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            raise GoneError
        await self._write(connection, h11.Response(status_code=response.status, headers=headers))
        if isinstance(response.body, bytes):
            for start in range(0, 0 if head_only else len(response.body), WRITE_BYTES):
                await self._write(connection, h11.Data(data=response.body[start : start + WRITE_BYTES]))
        elif not head_only:
            await self._stream(connection, response.body)
        await self._write(connection, h11.EndOfMessage())

    async def _stream(self, connection: _Connection, parts: AsyncIterator[bytes]) -> None:
        """Sends the parts as they come; they are closed when the client goes."""
        try:
            async for part in parts:
                await self._write(connection, h11.Data(data=part))
        except (ConnectionError, TimeoutError, GoneError):
            raise
        except Exception as exc:
            # What was begun cannot be taken back: the client sees that it is not whole.
            self._on_error(exc)
            raise GoneError from None

    async def _write(self, connection: _Connection, part: Any) -> None:
        data = connection.http.send(part)
        if connection.writer.transport.is_closing():
            raise GoneError
        if data:
            connection.writer.write(data)
        await self._drain(connection)

    async def _drain(self, connection: _Connection) -> None:
        try:
            async with asyncio.timeout(self._limits.write_seconds):
                await connection.writer.drain()
        except TimeoutError:
            raise GoneError from None
        now = asyncio.get_running_loop().time()
        if connection.writer.transport.get_write_buffer_size() == 0:
            connection.kept_up = now
        elif now - connection.kept_up > self._limits.behind_seconds:
            raise GoneError
