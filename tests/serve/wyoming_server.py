"""A server of the Wyoming protocol on the tiny model, and clients of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from edgelm.runtime import EngineOptions
from edgelm.serve.intents import parse_intents
from edgelm.serve.recognise import Recogniser
from edgelm.serve.served import ServeOptions
from edgelm.serve.service import Service
from edgelm.serve.wyoming import WyomingServer
from edgelm.serve.wyoming_events import WyomingLimits

pytest.importorskip("wyoming", reason="the client that Home Assistant uses")
from wyoming.asr import Transcript
from wyoming.client import AsyncTcpClient
from wyoming.event import Event
from wyoming.ping import Ping, Pong

HOST = "127.0.0.1"
INTENTS = parse_intents(
    {
        "slots": {"area": ["kitchen", "hall"]},
        "intent": [{"name": "LightOn", "examples": ["turn on the {area} light"], "answer": "It is on."}],
    }
)


@dataclass
class Running:
    """A server of the tiny model, and what went wrong in it."""

    service: Service
    server: WyomingServer
    port: int
    errors: list[BaseException] = field(default_factory=list)

    def client(self) -> AsyncTcpClient:
        return AsyncTcpClient(HOST, self.port, read_timeout=120)

    async def ask(self, *events: Event) -> list[Event]:
        """One answer for each event, over one connection."""
        async with self.client() as client:
            answers = []
            for event in events:
                await client.write_event(event)
                answer = await client.read_event()
                assert answer is not None
                answers.append(answer)
            return answers

    async def raw(self, blob: bytes, *, ends: bool = False) -> bytes:
        """All that is answered to bytes, until the server closes; ``ends``: the client ends its side first."""
        reader, writer = await asyncio.open_connection(HOST, self.port)
        try:
            writer.write(blob)
            if ends:
                writer.write_eof()
            return await reader.read()
        except ConnectionError:
            return b""
        finally:
            writer.close()


@asynccontextmanager
async def server_of(
    model: Path, folder: Path, *, learn: bool = False, intents: bool = False, limits: WyomingLimits | None = None
) -> AsyncGenerator[Running, None]:
    """A server of a model, with profiles in a folder; ``learn`` is that of ``ServeOptions``."""
    engine = EngineOptions(str(model), profiles=folder / "profiles", seed=1)
    service = Service(ServeOptions(engine, learn=learn), lambda: 1.0)
    errors: list[BaseException] = []
    try:
        served = await service.open(engine.profile)
        recogniser = Recogniser(INTENTS, served.engine.meaning) if intents else None
        server = WyomingServer(service, engine.profile, recogniser, limits or WyomingLimits(), errors.append)
        try:
            yield Running(service, server, await server.listen(HOST, 0), errors)
        finally:
            await server.close()
    finally:
        await service.close()


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(scenario())


def said(text: str, conversation_id: str | None = None) -> Event:
    context = {"conversation_id": conversation_id} if conversation_id else None
    return Transcript(text, context=context, language="en").event()


async def lives(running: Running) -> None:
    """An honest client is answered."""
    (pong,) = await running.ask(Ping("there?").event())
    assert Pong.from_event(pong).text == "there?"
    assert running.errors == []


def line(**fields: Any) -> bytes:
    return json.dumps(fields).encode() + b"\n"
