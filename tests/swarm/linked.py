"""A server and its devices in one process, on loopback."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

pytest.importorskip("flwr", reason="the swarm needs Flower: pip install 'edgelm[swarm]'")

from edgelm.swarm.connection import Connection
from edgelm.swarm.flower import ConfigRecord, Error, Message, RecordDict
from edgelm.swarm.link import Link, LinkGrid, Listening
from edgelm.swarm.wire import MODEL, PACK, RECORD, ROUND, UPDATE

SHA256 = "ab" * 32
Answerer = Callable[[Any], Any]


@contextmanager
def linked() -> Iterator[Link]:
    """A link on a free port."""
    link = Link(Listening(), lambda: {"round": 0})
    try:
        yield link
    finally:
        link.close()


def address_of(link: Link) -> str:
    """HOST:PORT of a link."""
    return link.url.partition("//")[2]


def connect(link: Link, most: int = 1 << 20) -> Connection:
    """A device that has joined."""
    return Connection(address_of(link), most, None, 10.0)


def asking(node_id: int, number: int = 1, model: str = SHA256, pack: bytes = b"") -> Any:
    """The message of a round."""
    record = ConfigRecord({ROUND: number, MODEL: model, PACK: pack})
    return Message(RecordDict({RECORD: record}), node_id, "train", ttl=60, group_id=str(number))


def updating(message: Any, update: Any = b"update") -> Any:
    """The answer to it."""
    return Message(RecordDict({RECORD: ConfigRecord({UPDATE: update})}), reply_to=message)


def declining(message: Any, code: int) -> Any:
    """An error as the answer to it."""
    return Message(Error(code), reply_to=message)


def ask(link: Link, answerers: list[Answerer], timeout: float = 20.0) -> list[Any]:
    """One message to each of so many new devices, each with something that answers; what came back."""
    grid = LinkGrid(link)
    try:
        connections = [connect(link) for _ in answerers]
        threads = [
            threading.Thread(target=_answer, args=(connection, answerer), daemon=True)
            for connection, answerer in zip(connections, answerers, strict=True)
        ]
        for thread in threads:
            thread.start()
        answers = list(grid.send_and_receive([asking(node) for node in grid.get_node_ids()], timeout=timeout))
        for thread in threads:
            thread.join()
        return answers
    finally:
        grid.close()


def _answer(connection: Connection, answerer: Answerer) -> None:
    with connection:
        while (message := connection.receive()) is None:
            threading.Event().wait(0.05)
        answer = answerer(message)
        if answer is not None:
            connection.send(answer)
