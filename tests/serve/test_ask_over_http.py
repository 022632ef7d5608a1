"""A served conversation with a friend: the source of an answer is said, and it is learned where the turn is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from edgelm.config import SampleConfig
from edgelm.runtime import EngineOptions
from edgelm.serve.friend import Friend
from tests.serve.local_friend import answer, local_friend

pytest.importorskip("h11")
pytest.importorskip("msgspec")

QUESTION, ANSWER = "Which metal melts in a warm hand?", "Gallium melts in a warm hand."
Post = Callable[..., Any]


def _served(home: Path, tiny_model: Path, friend: Friend, use: Callable[[Post], None]) -> None:
    """Calls ``use`` in a thread while a server runs that learns if it is asked to."""
    from edgelm.serve.app import Listening, serve
    from edgelm.serve.served import ServeOptions

    options = ServeOptions(
        EngineOptions(str(tiny_model), seed=1), sampling=SampleConfig(max_tokens=30), friend=friend
    )  # fmt: skip

    async def run() -> None:
        ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        problems: list[BaseException] = []
        listening = Listening("127.0.0.1", 0, home / "serve.keys")
        serving = asyncio.create_task(
            serve(options, listening, lambda: 0.0, lambda url, _: ready.set_result(url), problems.append)
        )
        try:
            await asyncio.wait({serving, ready}, return_when=asyncio.FIRST_COMPLETED)
            url = ready.result()

            def post(path: str, **body: Any) -> Any:
                request = Request(url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
                with urlopen(request, timeout=120) as response:
                    return json.load(response)

            await asyncio.to_thread(use, post)
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
        assert problems == []

    asyncio.run(run())


def test_a_server_asks_too(home: Path, tiny_model: Path) -> None:
    home.mkdir(mode=0o700)
    with local_friend() as larger:
        larger.says = answer(ANSWER)

        def use(post: Post) -> None:
            def ask(text: str, learn: bool) -> Any:
                messages = [{"role": "user", "content": text}]
                return post("/v1/chat/completions", messages=messages, learn=learn, temperature=0)

            first = ask(QUESTION, False)
            assert first["choices"][0]["message"]["content"] == ANSWER
            assert (first["edgelm"]["source"], first["edgelm"]["entries"]) == ("friend", [])
            talk = f"/edgelm/v1/conversations/{first['edgelm']['conversation']}/ask"
            assert post(talk)["reply"] == ANSWER
            learned = ask(QUESTION, True)
            assert len(learned["edgelm"]["entries"]) == 2 and len(larger.bodies) == 3
            assert ask(QUESTION, False)["edgelm"]["source"] != "friend" and len(larger.bodies) == 3
            secret = ask("my password is hunter22. Which metal melts?", False)
            with pytest.raises(HTTPError) as refused:
                post(f"/edgelm/v1/conversations/{secret['edgelm']['conversation']}/ask")
            assert "looks like a secret" in refused.value.read().decode()
            refused.value.close()
            assert len(larger.bodies) == 3

        _served(home, tiny_model, Friend(larger.url), use)
        assert "hunter22" not in str(larger.bodies)
