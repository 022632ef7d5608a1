"""The Wyoming protocol: an honest client is answered, and a hostile one changes nothing of that."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from edgelm import conversation
from edgelm.runtime import EngineOptions
from edgelm.serve.intents import parse_intents
from edgelm.serve.recognise import Recogniser
from edgelm.serve.served import ServeOptions
from edgelm.serve.service import Service
from edgelm.serve.wyoming import WyomingServer
from edgelm.serve.wyoming_events import WyomingLimits
from tests.command import ROOT

pytest.importorskip("wyoming", reason="the client that Home Assistant uses")
from wyoming.asr import Transcript
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.event import Event
from wyoming.handle import Handled, NotHandled
from wyoming.info import Describe, Info
from wyoming.intent import Intent, NotRecognized, Recognize
from wyoming.ping import Ping, Pong

HOST = "127.0.0.1"
INTENTS = parse_intents(
    {
        "slots": {"area": ["kitchen", "hall"]},
        "intent": [{"name": "LightOn", "examples": ["turn on the {area} light"], "answer": "It is on."}],
    }
)
SHORT = WyomingLimits(connections=4, wait_seconds=0.2, event_seconds=0.2, idle_seconds=30)
CROWDED = WyomingLimits(connections=24)


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


@pytest.fixture
def serving(tiny_model: Path, tmp_path: Path) -> Callable[..., Any]:
    """A context of a server; ``learn`` is that of ``ServeOptions``."""

    @asynccontextmanager
    async def serve(
        *, learn: bool = False, intents: bool = False, limits: WyomingLimits | None = None
    ) -> AsyncGenerator[Running, None]:
        engine = EngineOptions(str(tiny_model), profiles=tmp_path / "profiles", seed=1)
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

    return serve


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


@pytest.mark.parametrize("intents", [False, True])
def test_it_says_what_it_can_do(serving: Callable[..., Any], intents: bool) -> None:
    async def scenario() -> None:
        async with serving(intents=intents) as running:
            (answer,) = await running.ask(Describe().event())
            info = Info.from_event(answer)
            assert [program.name for program in info.handle] == ["edgelm"]
            assert info.handle[0].installed
            assert [(model.name, model.languages) for model in info.handle[0].models] == [("tiny", ["en"])]
            assert [program.name for program in info.intent] == ["edgelm"] * intents
            assert info.asr == info.tts == info.wake == []

    run(scenario)


def test_a_turn_is_answered(serving: Callable[..., Any]) -> None:
    async def scenario() -> None:
        async with serving() as running:
            (answer,) = await running.ask(said("Good morning, how are you?"))
            assert Handled.is_type(answer.type)
            handled = Handled.from_event(answer)
            assert handled.text
            assert handled.context is not None
            assert handled.context["conversation_id"]
            assert (await running.service.open("default")).engine.adaptation.entries == []
            assert running.errors == []

    run(scenario)


def test_what_was_said_belongs_to_its_conversation(serving: Callable[..., Any]) -> None:
    told, asked = "My dog is called Rex.", "What is my dog called?"

    async def scenario() -> None:
        async with serving() as running:
            await running.ask(said(told, "one"))
            assert "Rex" in (await running.ask(said(asked, "one")))[0].data["text"]
            assert "Rex" not in (await running.ask(said(asked, "two")))[0].data["text"]
            # Without an id it is the connection that is a conversation.
            assert "Rex" in (await running.ask(said(told), said(asked)))[1].data["text"]
            assert "Rex" not in (await running.ask(said(asked)))[0].data["text"]

    run(scenario)


@pytest.mark.jit_only
def test_it_learns_if_the_server_was_told_to(serving: Callable[..., Any]) -> None:
    async def scenario() -> None:
        async with serving(learn=True) as running:
            await running.ask(said("My dog is called Rex."))
            entries = (await running.service.open("default")).engine.adaptation.entries
            assert [entry.text for entry in entries] == ["My dog is called Rex."]

    run(scenario)


def test_without_an_answer_it_says_so(serving: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation, "POOR", 1e9)

    async def scenario() -> None:
        async with serving() as running:
            nothing, silence = await running.ask(said("Qwe zxc asdf."), said("  "))
            assert NotHandled.is_type(nothing.type)
            assert nothing.data["text"]
            assert NotHandled.is_type(silence.type)

    run(scenario)


def test_intents_are_recognised(serving: Callable[..., Any]) -> None:
    text = "turn the light on in the kitchen"

    async def scenario() -> None:
        async with serving(intents=True) as running:
            answers = await running.ask(
                said(text, "a"), Recognize(text).event(), Recognize("how are you").event(), said("how are you")
            )
            for answer in answers[:2]:
                intent = Intent.from_event(answer)
                assert (intent.name, intent.text) == ("LightOn", "It is on.")
                assert [(entity.name, entity.value) for entity in intent.entities] == [("area", "kitchen")]
            assert answers[0].data["context"] == {"conversation_id": "a"}
            assert NotRecognized.is_type(answers[2].type)
            assert answers[3].type in ("handled", "not-handled")
        async with serving() as running:
            recognised, handled = await running.ask(Recognize(text).event(), said(text))
            assert NotRecognized.is_type(recognised.type)
            assert handled.type in ("handled", "not-handled")

    run(scenario)


def test_sound_is_refused_once_a_sentence(serving: Callable[..., Any]) -> None:
    sound = [AudioStart(16000, 2, 1), AudioChunk(16000, 2, 1, bytes(100_000)), AudioStop()]

    async def scenario() -> None:
        async with serving() as running, running.client() as client:
            for _ in range(2):
                for event in sound:
                    await client.write_event(event.event())
                await client.write_event(Event("played"))  # unknown, so dropped
                await client.write_event(Ping("on").event())
                answers = [await client.read_event(), await client.read_event()]
                assert [answer.type for answer in answers if answer] == ["error", "pong"]
                assert answers[0] is not None
                assert "neither recognises nor makes speech" in answers[0].data["text"]

    run(scenario)


def test_errors_are_events(serving: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with serving() as running:
            monkeypatch.setattr("edgelm.serve.service.MOST_WAITING", -100)
            (busy,) = await running.ask(said("hello"))
            assert (busy.type, busy.data["code"]) == ("error", "overloaded")
            monkeypatch.undo()
            await lives(running)

            async def fails(profile: str) -> None:
                raise RuntimeError("secret of the inside")

            monkeypatch.setattr(running.service, "open", fails)
            failed, pong = await running.ask(said("hello"), Ping().event())
            assert failed.type == "error"
            assert "secret" not in failed.data["text"]
            assert [str(error) for error in running.errors] == ["secret of the inside"]
            assert pong.type == "pong"

    run(scenario)


def line(**fields: Any) -> bytes:
    return json.dumps(fields).encode() + b"\n"


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


def test_the_command_says_where(tiny_model: Path, home: Path) -> None:
    command = [
        sys.executable, "-m", "edgelm", "serve", "--model", str(tiny_model), "--port", "0", "--wyoming", "0", "--json",
    ]  # fmt: skip
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            ready = json.loads(process.stdout.readline())
            host, _, port = ready["wyoming"].removeprefix("tcp://").partition(":")
            assert host == HOST

            async def ping() -> str | None:
                async with AsyncTcpClient(HOST, int(port), read_timeout=60) as client:
                    await client.write_event(Ping("there?").event())
                    answer = await client.read_event()
                    return answer and answer.data["text"]

            assert asyncio.run(ping()) == "there?"
            assert ready["url"].startswith("http://127.0.0.1:")
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
