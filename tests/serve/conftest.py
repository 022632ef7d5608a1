"""A server in a thread of this process, on the tiny model."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from edgelm.config import SampleConfig
from edgelm.runtime import EngineOptions

pytest.importorskip("h11")
pytest.importorskip("msgspec")

from edgelm.serve.access import KEYS
from edgelm.serve.app import Listening, serve
from edgelm.serve.served import ServeOptions
from edgelm.serve.server import Limits

HOST = "127.0.0.1"


class Running:
    """A server that listens.

    Attributes
    ----------
    url : str
    errors : list of BaseException
        What nobody expected.
    """

    def __init__(self, url: str) -> None:
        self.url, self.errors = url, list[BaseException]()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.url.rpartition(":")[2])

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """The status, and the answer as JSON, or as text where it is none; ``body`` as JSON, unless it is bytes."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=60)
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        blob = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        if blob is not None:
            given.setdefault("Content-Type", "application/json")
        connection.request(method, path, blob, given)
        response = connection.getresponse()
        text = response.read().decode()
        connection.close()
        try:
            return response.status, json.loads(text)
        except ValueError:
            return response.status, text

    def get(self, path: str) -> Any:
        """What is answered with 200."""
        status, found = self.ask("GET", path)
        assert status == 200, found
        return found

    def post(self, path: str, body: Any = None) -> Any:
        """What is answered with 200."""
        status, found = self.ask("POST", path, {} if body is None else body)
        assert status == 200, found
        return found

    def turn(self, text: str, **fields: Any) -> dict[str, list[dict[str, Any]]]:
        """The events of a turn over edgelm's own API, by their names."""
        events: dict[str, list[dict[str, Any]]] = {}
        for block in self.post("/edgelm/v1/chat", {"text": text, "max_tokens": 6, **fields}).strip().split("\n\n"):
            name, data = block.split("\n")
            events.setdefault(name.removeprefix("event: "), []).append(json.loads(data.removeprefix("data: ")))
        return events


Start = Callable[..., Running]


@contextmanager
def _running(options: ServeOptions, listening: Listening) -> Iterator[Running]:
    ready, found, failed = threading.Event(), list[Running](), list[BaseException]()
    stop: list[Callable[[], object]] = []

    def run() -> None:
        async def until_told() -> None:
            def on_ready(url: str, wyoming: str) -> None:
                found.append(Running(url))
                ready.set()

            task = asyncio.ensure_future(
                serve(options, listening, lambda: 1.7e9, on_ready, lambda exc: found[0].errors.append(exc))
            )
            loop = asyncio.get_running_loop()
            stop.append(lambda: loop.call_soon_threadsafe(task.cancel))
            await asyncio.gather(task, return_exceptions=False)

        try:
            asyncio.run(until_told())
        except asyncio.CancelledError:
            pass
        except BaseException as exc:
            failed.append(exc)
        finally:
            ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait(60)
    try:
        if failed:
            raise failed[0]
        yield found[0]
    finally:
        if stop and found:
            stop[0]()
        thread.join(60)
        assert not thread.is_alive()
    assert not (found and found[0].errors), found[0].errors


@pytest.fixture
def start(tiny_model: Path, home: Path) -> Iterator[Start]:
    """``start(learn=True)``: a server on a free port, stopped after the test; nothing unexpected may have happened."""
    with ExitStack() as stack:

        def run(
            *, limits: Limits | None = None, needs_key: bool = False, profile: str = "default", bank: bool = True,
            **options: Any,
        ) -> Running:  # fmt: skip
            options.setdefault("sampling", SampleConfig(max_tokens=8))
            engine = EngineOptions(str(tiny_model), profile=profile, seed=1, bank=bank)
            listening = Listening(HOST, 0, home / KEYS, needs_key=needs_key, limits=limits or Limits())
            return stack.enter_context(_running(ServeOptions(engine, **options), listening))

        yield run


@pytest.fixture
def serving(tiny_model: Path, tmp_path: Path) -> Callable[..., Any]:
    """A context of a server of the Wyoming protocol."""
    from tests.serve.wyoming_server import server_of

    return partial(server_of, tiny_model, tmp_path)
