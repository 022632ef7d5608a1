"""The Wyoming protocol: an honest client is answered."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgelm import conversation
from tests.command import ROOT

pytest.importorskip("wyoming", reason="the client that Home Assistant uses")
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.event import Event
from wyoming.handle import Handled, NotHandled
from wyoming.info import Describe, Info
from wyoming.intent import Intent, NotRecognized, Recognize
from wyoming.ping import Ping

from tests.serve.wyoming_server import HOST, lives, run, said


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
            nothing, heard, silence = await running.ask(said("Qwe zxc asdf?"), said("Qwe zxc asdf."), said("  "))
            assert NotHandled.is_type(nothing.type)
            assert Handled.is_type(heard.type) and heard.data["text"]
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
