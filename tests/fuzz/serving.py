"""Readers of what reaches a server: files of intents, and events of the Wyoming protocol."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from edgelm.errors import InputError
from edgelm.serve.intents import read_intents
from edgelm.serve.wyoming_events import BadEventError, EventReader, WyomingEvent, WyomingLimits
from tests.fuzz import mutations as m
from tests.fuzz.readers import Reader, Room

MEASURED = Path(__file__).resolve().parents[2] / "tools" / "measure" / "intents.toml"
LIMITS = WyomingLimits(line_bytes=2_000, data_bytes=1_000, payload_bytes=1_000)


def intents(room: Room) -> Reader:
    """A file of intents for ``serve --wyoming PORT --intents FILE``."""
    path = room.folder / "intents.toml"

    def read(blob: bytes) -> None:
        path.write_bytes(blob)
        found = read_intents(path)
        assert found.intents
        assert all(intent.examples and all(intent.examples) for intent in found.intents)
        assert all(set(intent.slots) <= set(found.slots) for intent in found.intents)
        json.dumps([dict(intent.entities) for intent in found.intents], allow_nan=False)

    short = b'[slots]\nn = { from = 1, to = 9 }\n[[intent]]\nname = "A"\nexamples = ["do {n}", "go"]\nanswer = "Yes."\n'
    return Reader([MEASURED.read_bytes(), short], m.mutate_bytes, read, InputError, 50)


def wyoming(room: Room) -> Reader:
    """What a client sends over a connection, to its end."""

    async def events(blob: bytes) -> list[WyomingEvent]:
        stream, found = asyncio.StreamReader(), []
        stream.feed_data(blob)
        stream.feed_eof()
        reader = EventReader(stream, LIMITS)
        while (event := await reader.next()) is not None:
            found.append(event)
        return found

    def read(blob: bytes) -> None:
        for event in asyncio.run(events(blob)):
            assert 1 <= len(event.type) <= 64
            assert asyncio.run(events(event.to_bytes()))[0].type == event.type

    said = json.dumps({"text": "Grüße", "context": {"conversation_id": "a"}}, ensure_ascii=False).encode()
    seeds = [
        b'{"type": "describe"}\n{"type": "ping", "data": {"text": "a"}}\n',
        json.dumps({"type": "transcript", "data_length": len(said)}).encode() + b"\n" + said,
        b'{"type": "audio-chunk", "data": {"rate": 16000}, "payload_length": 20}\n' + bytes(range(20)),
    ]
    return Reader(seeds, m.mutate_lines, read, BadEventError, 100)
