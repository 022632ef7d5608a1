"""Events of the Wyoming protocol, read from and written to a stream.

An event is a line of JSON with ``type`` and, where they follow, ``data_length`` and ``payload_length``; then so many
bytes of JSON, and so many of sound. Small data may stand in the line itself, as ``data``. Every length has a bound, and
every wait for a client has an end.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

READ_BYTES = 1 << 14
"""Read at a time."""


@dataclass(frozen=True)
class WyomingLimits:
    """What a client may cost.

    Attributes
    ----------
    connections : int
        Open at a time, at most; of those that have been silent for a while, the one that has been longest makes place
        for a new one.
    wait_seconds : float
        That a new one waits for its place at most, before it is told that there is none.
    line_bytes, data_bytes, payload_bytes : int
        Of an event, at most.
    event_seconds : float
        In which an event that has begun must have arrived.
    idle_seconds : float
        That a connection may be silent.
    write_seconds : float
        After which a client that takes nothing of an answer is cut off.
    """

    connections: int = 64
    wait_seconds: float = 10.0
    line_bytes: int = 1 << 16
    data_bytes: int = 1 << 16
    payload_bytes: int = 1 << 18
    event_seconds: float = 10.0
    idle_seconds: float = 600.0
    write_seconds: float = 20.0


@dataclass(frozen=True)
class WyomingEvent:
    """An event; sound is dropped while it is read, since nothing here listens to it.

    Attributes
    ----------
    type : str
    data : dict
    """

    type: str
    data: Mapping[str, Any] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """As it is sent."""
        # A file or a client may bring half of a pair of surrogates, which is no text in UTF-8.
        data = json.dumps(self.data, ensure_ascii=False).encode("utf-8", "replace") if self.data else b""
        length = {"data_length": len(data)} if data else {}
        return json.dumps({"type": self.type, **length}).encode() + b"\n" + data


class BadEventError(Exception):
    """What a client sent is no event that it may send; its connection is closed."""


class EventReader:
    """Reads events, and sees when the client goes.

    Parameters
    ----------
    stream : asyncio.StreamReader
    limits : WyomingLimits
    """

    def __init__(self, stream: asyncio.StreamReader, limits: WyomingLimits) -> None:
        self._stream, self._limits = stream, limits
        self._buffer = bytearray()

    async def next(self) -> WyomingEvent | None:
        """The next event; None where the client has gone or was silent for too long.

        Raises
        ------
        BadEventError
            What came is no event, is too large, or did not arrive whole.
        """
        if not self._buffer:
            try:
                async with asyncio.timeout(self._limits.idle_seconds):
                    if not await self._more():
                        return None
            except TimeoutError:
                return None
        try:
            async with asyncio.timeout(self._limits.event_seconds):
                return await self._event()
        except TimeoutError:
            raise BadEventError("the event did not arrive in time") from None

    async def gone(self) -> None:
        """Returns when the client has gone; what it sends meanwhile is kept, up to the bound of a line."""
        while len(self._buffer) <= self._limits.line_bytes:
            if not await self._more():
                return
        await asyncio.Event().wait()

    async def _more(self) -> bool:
        """Whether something came; False at the end."""
        data = await self._stream.read(READ_BYTES)
        self._buffer += data
        return bool(data)

    async def _event(self) -> WyomingEvent:
        limits = self._limits
        head = _table(await self._line(), "the line of an event")
        kind, data = head.get("type"), head.get("data")
        if not isinstance(kind, str) or not 1 <= len(kind) <= 64:
            raise BadEventError("type: a text of 1 to 64 characters was expected")
        if data is not None and not isinstance(data, dict):
            raise BadEventError("data: an object was expected")
        n_data = _length(head, "data_length", limits.data_bytes)
        n_payload = _length(head, "payload_length", limits.payload_bytes)
        if n_data:
            data = (data or {}) | _table(await self._bytes(n_data), "the data of an event")
        await self._skip(n_payload)
        return WyomingEvent(kind, data or {})

    async def _line(self) -> bytes:
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            if searched > self._limits.line_bytes:
                break
            if not await self._more():
                raise BadEventError("the event ended before its line did")
        if not 0 <= end <= self._limits.line_bytes:
            raise BadEventError(f"the line of an event has at most {self._limits.line_bytes} bytes")
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line

    async def _bytes(self, n: int) -> bytes:
        while len(self._buffer) < n:
            if not await self._more():
                raise BadEventError("the event ended before its data did")
        data = bytes(self._buffer[:n])
        del self._buffer[:n]
        return data

    async def _skip(self, n: int) -> None:
        """Drops bytes as they come, so that sound is never held."""
        while n > 0:
            if not self._buffer and not await self._more():
                raise BadEventError("the event ended before its payload did")
            dropped = min(n, len(self._buffer))
            del self._buffer[:dropped]
            n -= dropped


def _table(blob: bytes, what: str) -> dict[str, Any]:
    try:
        found = json.loads(blob)
    except (ValueError, RecursionError):
        raise BadEventError(f"{what} must be JSON") from None
    if not isinstance(found, dict):
        raise BadEventError(f"{what} must be a JSON object")
    return found


def _length(head: Mapping[str, Any], name: str, most: int) -> int:
    value = head.get(name)
    if value is None:
        return 0
    if type(value) is not int or not 0 <= value <= most:
        raise BadEventError(f"{name}: a whole number from 0 to {most} was expected")
    return value
