"""A server of the Wyoming protocol, by which Home Assistant asks: turns are answered, and intents recognised.

Answers come from the same profile, and the same ``Service``, as over HTTP. Wyoming knows no keys: whoever reaches the
port may talk, so it is this device alone unless somebody says otherwise.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import edgelm
from edgelm.errors import EdgelmError
from edgelm.serve.http import RequestError
from edgelm.serve.listener import Connection, GoneError, Listener
from edgelm.serve.recognise import Recogniser
from edgelm.serve.service import Service, as_request_error
from edgelm.serve.talks import Asked
from edgelm.serve.wyoming_events import BadEventError, EventReader, WyomingEvent, WyomingLimits
from edgelm.turn import Source

MAX_CHARS, MAX_ID = 4_000, 128
"""Of a sentence, and of the id of a conversation, at most."""
NO_SOUND = ("audio-", "transcribe", "synthesize", "detect")
"""How the types of events begin that are for programs of sound."""
LANGUAGES = ["en"]
"""What the models that come with edgelm, and its word vectors, know."""
_ATTRIBUTION = {"name": "edgelm", "url": ""}


@dataclass(eq=False)
class _Connection(Connection):
    """A client's connection."""

    events: EventReader = field(kw_only=True)
    told_of_sound: bool = False
    conversation: str = field(default_factory=lambda: secrets.token_urlsafe(12))


class WyomingServer:
    """Listens, and answers events.

    Parameters
    ----------
    service : Service
    profile : str
        Whose learning answers, and is added to.
    recogniser : Recogniser, optional
        Without it no intents are recognised.
    limits : WyomingLimits
    on_error : callable
        Called with an exception that nobody expected.
    """

    def __init__(
        self, service: Service, profile: str, recogniser: Recogniser | None, limits: WyomingLimits,
        on_error: Callable[[BaseException], None],
    ) -> None:  # fmt: skip
        self._service, self._profile, self._recogniser = service, profile, recogniser
        self._limits, self._on_error = limits, on_error
        self._listener = Listener(
            self._connection, self._serve, limits.connections, wait_seconds=limits.wait_seconds,
            write_seconds=limits.write_seconds, line_bytes=limits.line_bytes,
            refusal=_error("too many clients at a time; try again in a few seconds", "overloaded").to_bytes(),
        )  # fmt: skip
        self.listen, self.close = self._listener.listen, self._listener.close

    def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, now: float) -> _Connection:
        return _Connection(reader, writer, now, events=EventReader(reader, self._limits))

    @property
    def n_connections(self) -> int:
        """Connections that are open."""
        return len(self._listener.connections)

    @property
    def n_answering(self) -> int:
        """Connections that are being answered."""
        return sum(not connection.silent for connection in self._listener.connections)

    async def _serve(self, connection: _Connection) -> None:
        """Answers events, one after the other."""
        while True:
            try:
                event = await connection.events.next()
                if event is None:
                    return
                self._listener.is_served(connection)
                answer = await self._answer(connection, event)
            except BadEventError as exc:
                await self._send(connection, _error(str(exc), "bad-event"))
                return
            if answer is not None:
                await self._send(connection, answer)
            self._listener.is_silent(connection)

    async def _send(self, connection: _Connection, event: WyomingEvent) -> None:
        connection.writer.write(event.to_bytes())
        async with asyncio.timeout(self._limits.write_seconds):
            await connection.writer.drain()

    async def _answer(self, connection: _Connection, event: WyomingEvent) -> WyomingEvent | None:
        """What is sent back; nothing for events that are unknown."""
        if event.type.startswith(NO_SOUND):
            # One sentence of sound is many events.
            told, connection.told_of_sound = connection.told_of_sound, True
            return None if told else _error("edgelm answers text: it neither recognises nor makes speech", "no-sound")
        connection.told_of_sound = False
        if event.type == "ping":
            return WyomingEvent("pong", {"text": _text(event.data, "text")})
        if event.type == "describe":
            return await self._expected(self._info)
        if event.type == "recognize":
            text, context = _sentence(event.data), _context(event.data)
            return self._recognised(text, context) or WyomingEvent("not-recognized", {"text": "", "context": context})
        if event.type == "transcript":
            return await self._unless_gone(connection, event.data)
        return None

    def _recognised(self, text: str, context: Mapping[str, Any]) -> WyomingEvent | None:
        found = self._recogniser.recognise(text) if self._recogniser is not None else None
        if found is None:
            return None
        entities = [{"name": name, "value": value} for name, value in found.entities.items()]
        answer = {"text": found.answer} if found.answer else {}
        return WyomingEvent("intent", {"name": found.name, "entities": entities, "context": context, **answer})

    async def _unless_gone(self, connection: _Connection, data: Mapping[str, Any]) -> WyomingEvent:
        """The answer to a turn; a client that goes meanwhile ends that."""
        text, context = _sentence(data), _context(data)
        if (intent := self._recognised(text, context)) is not None:
            return intent
        user = context.setdefault("conversation_id", connection.conversation)
        answering = asyncio.ensure_future(self._expected(lambda: self._turn(text, str(user), context)))
        watching = asyncio.ensure_future(connection.events.gone())
        try:
            await asyncio.wait({answering, watching}, return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                raise GoneError
            return answering.result()
        finally:
            for task in (answering, watching):
                task.cancel()
            await asyncio.gather(answering, watching, return_exceptions=True)

    async def _expected(self, action: Callable[[], Any]) -> WyomingEvent:
        """What an action returns, or its error as an event."""
        try:
            try:
                found: WyomingEvent = await action()
            except EdgelmError as exc:
                raise as_request_error(exc) from None
        except RequestError as exc:
            return _error(str(exc), exc.code or "failed")
        except Exception as exc:
            self._on_error(exc)
            return _error("an error in edgelm; its log says more", "failed")
        return found

    async def _turn(self, text: str, user: str, context: Mapping[str, Any]) -> WyomingEvent:
        if not text:
            return WyomingEvent("not-handled", {"text": "Nothing was heard.", "context": context})
        served = await self._service.open(self._profile)
        # Clients of HTTP name users too; the two are not to meet by chance.
        asked = Asked(text, sampling=self._service.options.sampling, user=f"wyoming:{user}")
        async with self._service.answer(served, asked) as answer:
            async for _ in answer.pieces():
                pass
            turn = answer.turn
        served.note_turn(turn)
        answered = bool(turn.reply) and turn.source is not Source.NOTHING
        return WyomingEvent("handled" if answered else "not-handled", {"text": turn.reply, "context": context})

    async def _info(self) -> WyomingEvent:
        served = await self._service.open(self._profile)
        version = edgelm.__version__
        program = {"name": "edgelm", "attribution": _ATTRIBUTION, "installed": True, "version": version}
        model = program | {"name": served.engine.model.name, "languages": LANGUAGES}
        handle = program | {
            "description": "Small language model that learns", "supports_handled_streaming": False,
            "supports_home_control": False, "models": [model | {"description": "The model that answers"}],
        }  # fmt: skip
        intent = program | {
            "description": "Intents of a file, by word vectors",
            "models": [model | {"name": "intents", "description": "The intents of the file"}],
        }  # fmt: skip
        nothing: dict[str, list[Any]] = {name: [] for name in ("asr", "tts", "wake", "mic", "snd")}
        intents = [intent] if self._recogniser is not None else []
        return WyomingEvent("info", {**nothing, "handle": [handle], "intent": intents})


def _error(text: str, code: str) -> WyomingEvent:
    return WyomingEvent("error", {"text": text, "code": code})


def _text(data: Mapping[str, Any], name: str) -> str | None:
    value = data.get(name)
    if value is not None and (not isinstance(value, str) or len(value) > MAX_CHARS):
        raise BadEventError(f"{name}: a text of at most {MAX_CHARS} characters was expected")
    # What JSON may hold and UTF-8 may not is no text.
    return None if value is None else value.encode("utf-8", "replace").decode()


def _sentence(data: Mapping[str, Any]) -> str:
    text = _text(data, "text")
    if text is None:
        raise BadEventError("text: it is missing")
    return text.strip()


def _context(data: Mapping[str, Any]) -> dict[str, Any]:
    """The conversation that is meant, and nothing else of what the client may have put there."""
    context = data.get("context")
    if context is not None and not isinstance(context, dict):
        raise BadEventError("context: an object was expected")
    found = (context or {}).get("conversation_id")
    if found is None:
        return {}
    if not isinstance(found, str) or not 1 <= len(found) <= MAX_ID:
        raise BadEventError(f"context.conversation_id: a text of 1 to {MAX_ID} characters was expected")
    return {"conversation_id": found.encode("utf-8", "replace").decode()}
