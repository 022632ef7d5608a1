"""The Wyoming protocol: a hostile client changes nothing of what honest ones get."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
from collections.abc import Callable
from typing import Any

import pytest

from edgelm.serve.wyoming_events import WyomingLimits

pytest.importorskip("wyoming", reason="the client that Home Assistant uses")
from wyoming.info import Describe

from tests.serve.wyoming_server import HOST, line, lives, run, said

SHORT = WyomingLimits(connections=4, wait_seconds=0.2, event_seconds=0.2, idle_seconds=30)
CROWDED = WyomingLimits(connections=24)
HOSTILE = {
    "a long line without an end": b"x" * 200_000,
    "a long line": b'{"type": "' + b"x" * 100_000 + b'"}\n',
    "no JSON": b"GET / HTTP/1.1\r\n\r\n",
    "no UTF-8": b'{"type": "\xff\xfe"}\n',
    "no object": b"[1, 2]\n",
    "an empty line": b"\n",
    "deep nesting": b"[" * 60_000 + b"\n",
    "deep nesting of data": line(type="transcript", data_length=60_000) + b'{"text":' * 7_500,
    "a huge number": b'{"type": "ping", "data_length": ' + b"9" * 5_000 + b"}\n",
    "no type": line(data={}),
    "a type that is a number": line(type=3),
    "a long type": line(type="x" * 65),
    "data that is a list": line(type="ping", data=[1]),
    "a negative length": line(type="ping", data_length=-1),
    "a length that is a text": line(type="ping", data_length="5"),
    "a length that is true": line(type="ping", payload_length=True),
    "a length that is a fraction": line(type="ping", payload_length=1.5),
    "much data": line(type="transcript", data_length=1 << 40),
    "much sound": line(type="audio-chunk", payload_length=1 << 40),
    "data that is no JSON": line(type="ping", data_length=4) + b"????",
    "data that is no object": line(type="ping", data_length=4) + b"null",
    "no text": line(type="transcript"),
    "a text that is a list": line(type="transcript", data={"text": ["a"]}),
    "a long text": line(type="transcript", data={"text": "a" * 4_001}),
    "a ping that is a number": line(type="ping", data={"text": 1}),
    "a context that is a text": line(type="transcript", data={"text": "a", "context": "b"}),
    "a conversation that is a number": line(type="recognize", data={"text": "a", "context": {"conversation_id": 1}}),
    "a long conversation": line(type="transcript", data={"text": "a", "context": {"conversation_id": "x" * 129}}),
}


def test_what_is_no_event_gets_one_error_and_the_end(serving: Callable[..., Any]) -> None:
    async def scenario() -> None:
        async with serving(limits=SHORT) as running:
            for name, blob in HOSTILE.items():
                answer = await running.raw(blob)
                # Where the client still sends when the server closes, the system may drop the answer.
                if len(blob) < 10_000 or answer:
                    head, data = answer.split(b"\n", 1)
                    assert json.loads(head)["type"] == "error", name
                    assert json.loads(head)["data_length"] == len(data), name
                    assert json.loads(data)["code"] == "bad-event", name
                await lives(running)

    run(scenario)


@pytest.mark.parametrize(
    "blob", [b'{"type": "pi', line(type="ping", data_length=9) + b"{", line(type="ping", payload_length=9) + b"x"]
)
@pytest.mark.parametrize("ends", [False, True])
def test_half_an_event_is_not_waited_for(serving: Callable[..., Any], blob: bytes, ends: bool) -> None:
    async def scenario() -> None:
        async with serving(limits=SHORT) as running:
            assert b'"bad-event"' in await running.raw(blob, ends=ends)
            await lives(running)

    run(scenario)


def test_half_a_pair_of_surrogates_is_no_text(serving: Callable[..., Any]) -> None:
    blob = rb'{"type": "ping", "data": {"text": "a\ud800"}}' + b"\n"
    turn = (
        rb'{"type": "transcript", "data": {"text": "hello \udfff", "context": {"conversation_id": "\ud800"}}}' + b"\n"
    )

    async def scenario() -> None:
        async with serving() as running:
            answer = await running.raw(blob + turn + b"end\n")
            assert b'"a?"' in answer
            assert b"handled" in answer
            await lives(running)

    run(scenario)


def test_events_may_come_in_pieces_and_many_at_once(serving: Callable[..., Any]) -> None:
    async def scenario() -> None:
        async with serving() as running:
            reader, writer = await asyncio.open_connection(HOST, running.port)
            for byte in line(type="ping", data_length=15) + b'{"text": "abc"}':
                writer.write(bytes([byte]))
                await writer.drain()
            answer = await reader.readuntil(b'"abc"}')
            assert b"pong" in answer
            writer.write(line(type="ping", data={"text": "one"}) * 50 + b"end\n")
            assert (await reader.read()).count(b'"one"') == 50
            writer.close()

    run(scenario)


def test_a_flood_of_connections_keeps_nobody_out(serving: Callable[..., Any]) -> None:
    async def scenario() -> None:
        async with serving(limits=CROWDED) as running:
            writers = [(await asyncio.open_connection(HOST, running.port))[1] for _ in range(40)]
            await lives(running)
            assert running.server.n_connections <= CROWDED.connections
            for writer in writers:
                writer.close()
            await lives(running)

    run(scenario)


def test_where_all_are_being_answered_a_new_one_is_told_so(
    serving: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with serving(limits=SHORT) as running:
            opened, may_go_on = running.service.open, asyncio.Event()

            async def waits(profile: str) -> Any:
                await may_go_on.wait()
                return await opened(profile)

            monkeypatch.setattr(running.service, "open", waits)
            asking = [asyncio.create_task(running.ask(Describe().event())) for _ in range(SHORT.connections)]
            while running.server.n_answering < SHORT.connections:
                await asyncio.sleep(0.01)
            assert b"overloaded" in await running.raw(b"")
            may_go_on.set()
            assert [answer.type for (answer,) in await asyncio.gather(*asking)] == ["info"] * SHORT.connections
            await lives(running)

    run(scenario)


def test_clients_that_go_while_they_are_answered_end_that(serving: Callable[..., Any]) -> None:
    async def scenario() -> None:
        async with serving() as running:
            for _ in range(8):
                _, writer = await asyncio.open_connection(HOST, running.port)
                writer.write(line(type="transcript", data={"text": "Tell me all that you know about the sea."}))
                await writer.drain()
                writer.close()
            await lives(running)
            (answer,) = await running.ask(said("Good morning, how are you?"))
            assert answer.type == "handled"

    run(scenario)


def test_a_silent_client_is_left_alone_and_then_let_go(serving: Callable[..., Any]) -> None:
    async def scenario() -> None:
        async with serving(limits=WyomingLimits(idle_seconds=0.1)) as running:
            assert await running.raw(b"") == b""
            await lives(running)

    run(scenario)


def test_those_who_wait_for_their_place_are_cut_when_the_server_closes(serving: Callable[..., Any]) -> None:
    async def scenario() -> None:
        async with serving(limits=WyomingLimits(connections=4, wait_seconds=60)) as running:
            waiting = [await asyncio.open_connection(HOST, running.port) for _ in range(4 + 3)]
            while running.server.n_connections < 4:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
        # What is not cut is found by the collector after the loop, and fails the test.
        for reader, writer in waiting:
            with contextlib.suppress(ConnectionError):
                assert await asyncio.wait_for(reader.read(), 10) == b""
            writer.close()

    run(scenario)
    gc.collect()
