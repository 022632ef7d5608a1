"""What is held while a client goes: conversations, threads, profiles. And what others said of what is forgotten."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from edgelm.config import SampleConfig
from edgelm.conversation import Conversation
from edgelm.memory.answering import Plan
from edgelm.memory.statements import Found, Statement
from edgelm.runtime import Engine, EngineOptions
from edgelm.serve.served import Served, ServeOptions
from edgelm.serve.service import Service
from edgelm.serve.talks import Asked
from edgelm.turn import Turn


@pytest.fixture
def options(tiny_model: Path, home: Path) -> ServeOptions:
    """Those of a small server."""
    return ServeOptions(EngineOptions(str(tiny_model), profile="default", seed=1), sampling=SampleConfig(max_tokens=4))


@asynccontextmanager
async def _service(options: ServeOptions) -> AsyncIterator[tuple[Service, Served]]:
    service = Service(options, lambda: 1.7e9)
    try:
        yield service, await service.open("default")
    finally:
        await service.close()


def _run(coroutine: Any) -> None:
    asyncio.run(asyncio.wait_for(coroutine, 60))


def test_what_a_thread_uses_is_held_until_it_has_ended(options: ServeOptions) -> None:
    async def go() -> None:
        async with _service(options) as (service, served):
            goes_on, began = threading.Event(), threading.Event()

            def act() -> None:
                began.set()
                goes_on.wait(10)

            async def change() -> None:
                async with served.changing():
                    await service.run(served, act)

            task = asyncio.ensure_future(change())
            await asyncio.to_thread(began.wait, 10)
            for _ in range(2):
                task.cancel()  # the client has gone, and the server ends
                await asyncio.sleep(0.05)
            assert not task.done()
            assert served.in_use == 1
            goes_on.set()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert served.in_use == 0

    _run(go())


def test_an_answer_that_is_given_up_ends_before_its_conversation_is_let_go(
    options: ServeOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgelm.serve.bodies import ChatRequest, Message
    from edgelm.serve.openai import _Chat
    from edgelm.serve.routes import Call

    ended = threading.Event()

    def turn(self: Conversation, text: str) -> Iterator[str]:
        self.turns.append(Turn(1, text))
        try:
            yield "a"
            self.cancelled.wait(10)
            time.sleep(0.2)
            yield "b"
        finally:
            ended.set()

    monkeypatch.setattr(Conversation, "turn", turn)

    async def go() -> None:
        async with _service(options) as (service, served):
            body = ChatRequest(messages=[Message("user", "Hello")])
            call = Call(None, service, served, body)  # type: ignore[arg-type]
            events = _Chat(call, "tiny", body, Asked("Hello", sampling=options.sampling)).events()
            await anext(events)
            await events.aclose()
            assert ended.is_set(), "the thread still uses the conversation, which another request may have"

    _run(go())


def test_whoever_waits_for_a_forgetting_and_goes_is_counted_out(options: ServeOptions) -> None:
    async def go() -> None:
        async with _service(options) as (_, served):
            answers = [asyncio.ensure_future(_answer(served)) for _ in range(3)]
            await asyncio.sleep(0)
            changes = [asyncio.ensure_future(_change(served)) for _ in range(3)]
            for n in range(20):
                answers.append(asyncio.ensure_future(_answer(served)))
                await asyncio.sleep(0)
                answers[n].cancel()
            await asyncio.wait([*answers, *changes], timeout=10)
            async with asyncio.timeout(5), served.changing():
                pass

    _run(go())


async def _answer(served: Served) -> None:
    async with served.answering():
        await asyncio.sleep(0.01)


async def _change(served: Served) -> None:
    async with served.changing():
        await asyncio.sleep(0.01)


def test_a_profile_whose_first_client_goes_is_open_for_the_next(
    options: ServeOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = list[Served]()
    before = Served.__init__

    def slow(self: Served, *args: Any) -> None:
        time.sleep(0.2)
        before(self, *args)
        made.append(self)

    async def go() -> None:
        async with _service(options) as (service, _):
            monkeypatch.setattr(Served, "__init__", slow)
            first = asyncio.ensure_future(service.open("other"))
            await asyncio.sleep(0.05)
            first.cancel()
            served = await service.open("other")
            assert made == [served], "the other one would keep the profile, and nobody would ever close it"

    _run(go())


def test_an_answer_that_rests_on_what_is_forgotten_is_left_out_in_every_conversation(
    tiny_model: Path, home: Path
) -> None:
    with Engine(EngineOptions(str(tiny_model))) as engine:
        chat = Conversation(engine, SampleConfig(max_tokens=4), learn=False)
        chat.resume([("What is she called?", "She is called Clara."), ("And he?", "Ann's brother.")])
        statement = Statement("My brother is Bert.", 7)
        chat._said[1].plan = Plan("Ann's brother.", (Found(statement, 1.0, 0.5),))
        chat.drop([], ["clara"])
        assert chat.exchanges == [("What is she called?", ""), ("And he?", "Ann's brother.")]
        chat.drop([7], ["My brother is Bert."])
        assert chat.exchanges[1] == ("And he?", "")
        assert chat.sources() == []
