"""What a client may cost, over sockets as they are."""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncIterator
from contextlib import closing

import pytest

from edgelm.serve.server import Limits
from tests.serve.conftest import HOST, Running, Start

QUICK = Limits(
    connections=4, header_bytes=2000, body_bytes=5000, header_seconds=0.5, body_seconds=0.5, idle_seconds=0.5,
    write_seconds=0.5,
)  # fmt: skip
GET = f"GET /api/version HTTP/1.1\r\nHost: {HOST}\r\n"


@pytest.fixture
def running(start: Start) -> Running:
    """One that has little patience."""
    return start(limits=QUICK)


def _connect(running: Running) -> socket.socket:
    return socket.create_connection((HOST, running.port), timeout=30)


def _said(running: Running, *parts: bytes | float) -> bytes:
    """All that is answered to the parts, of which a number is a pause in seconds."""
    with closing(_connect(running)) as client:
        for part in parts:
            if isinstance(part, float):
                time.sleep(part)
            else:
                client.sendall(part)
        return _rest(client)


def _rest(client: socket.socket) -> bytes:
    found = b""
    try:
        while data := client.recv(65536):
            found += data
    except ConnectionError:
        pass
    return found


def _status(answer: bytes) -> int:
    assert answer.startswith(b"HTTP/1.1 "), answer[:80]
    return int(answer[9:12])


def test_two_requests_on_one_connection_and_both_at_once(running: Running) -> None:
    request = (GET + "\r\n").encode()
    last = (GET + "Connection: close\r\n\r\n").encode()
    assert _said(running, request, 0.1, last).count(b"HTTP/1.1 200") == 2
    assert _said(running, request + request + last).count(b"HTTP/1.1 200") == 3


def test_a_head_alone(running: Running) -> None:
    answer = _said(running, (GET.replace("GET", "HEAD") + "Connection: close\r\n\r\n").encode())
    assert _status(answer) == 200
    assert answer.endswith(b"\r\n\r\n")
    assert b"content-length: " in answer.lower()


@pytest.mark.parametrize("fields", ["Content-Length: 999999\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\nzz\r\n"])
def test_a_head_alone_of_what_is_refused(running: Running, fields: str, caplog: pytest.LogCaptureFixture) -> None:
    answer = _said(running, (GET.replace("GET", "HEAD") + fields).encode())
    assert _status(answer) in (400, 413)
    assert answer.endswith(b"\r\n\r\n")
    time.sleep(0.3)
    assert not caplog.records, "asyncio tells of exceptions that nobody caught"


def test_a_head_alone_of_a_stream(running: Running) -> None:
    request = GET.replace("GET", "HEAD").replace("/api/version", "/edgelm/v1/events")
    answer = _said(running, (request + "Connection: close\r\n\r\n").encode())
    assert _status(answer) == 200
    assert answer.endswith(b"\r\n\r\n")


def test_whoever_sends_too_much_is_told_so(running: Running) -> None:
    """Not only cut off: a client that still sends would never see why."""
    assert running.ask("POST", "/api/show", b" " * 3_000_000)[0] == 413


@pytest.mark.parametrize(
    ("parts", "status"),
    [
        ((b"nonsense\r\n\r\n",), 400),
        ((b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20,), 400),
        (((GET + "X: " + "y" * 40_000 + "\r\n\r\n").encode(),), 431),
        (((GET + "Content-Length: 999999\r\n\r\n").encode(),), 413),
        (((GET + "Content-Length: -1\r\n\r\n").encode(),), 400),
        (((GET + "Transfer-Encoding: chunked\r\n\r\n" + 2 * ("1000\r\n" + "x" * 4096 + "\r\n")).encode(),), 413),
        ((GET[:20].encode(), 1.0), 408),
        (((GET + "Content-Length: 10\r\n\r\n{").encode(), 1.0), 408),
        ((f"GET http://[ HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode(),), 400),
        (((GET.replace("/api/version", "/api/version?" + "a=1&" * 100) + "\r\n").encode(),), 400),
    ],
    ids=[
        "nonsense", "tls", "long head", "long body", "negative", "long chunks", "slow head", "slow body", "address",
        "query",
    ],
)  # fmt: skip
def test_what_is_refused(running: Running, parts: tuple[bytes | float, ...], status: int) -> None:
    answer = _said(running, *parts)
    assert _status(answer) == status
    assert b"connection: close" in answer.lower()
    assert running.get("/api/version")


def test_a_connection_that_says_nothing_is_closed(running: Running) -> None:
    assert _said(running) == b""
    with closing(_connect(running)) as client:
        client.sendall((GET + "\r\n").encode())
        assert _status(_rest(client)) == 200, "and so is one that says nothing more"


def test_a_body_that_is_waited_for(running: Running) -> None:
    body = b'{"model": "tiny"}'
    head = f"POST /api/show HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {len(body)}\r\nExpect: 100-continue\r\n"
    with closing(_connect(running)) as client:
        client.sendall((head + "Connection: close\r\n\r\n").encode())
        assert client.recv(100).startswith(b"HTTP/1.1 100")
        client.sendall(body)
        assert _status(_rest(client)) == 200


def test_connections_that_are_held_open_make_place(start: Start) -> None:
    running = start(limits=Limits(connections=4))
    held = [_connect(running) for _ in range(4)]
    try:
        assert running.get("/api/version")
        assert any(_is_closed(client) for client in held)
    finally:
        for client in held:
            client.close()


def _is_closed(client: socket.socket) -> bool:
    client.settimeout(0.2)
    try:
        return client.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def test_whoever_reads_nothing_is_cut_off(running: Running) -> None:
    """The log is as long as is wanted: nobody may make the server keep what they do not take."""
    request = (GET.replace("/api/version", "/edgelm/v1/openapi.json") + "\r\n").encode()
    with closing(socket.socket()) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.settimeout(30)
        client.connect((HOST, running.port))
        for _ in range(200):
            try:
                client.sendall(request)
            except ConnectionError:
                return
            time.sleep(0.02)
        pytest.fail("it was never cut off")


def test_an_error_that_nobody_expected_is_told_and_costs_one_request(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgelm.serve import ollama

    def fails(*args: object) -> None:
        raise ZeroDivisionError("a bug")

    running = start()
    monkeypatch.setattr(ollama, "_when", fails)
    status, found = running.ask("GET", "/api/tags")
    assert status == 500
    assert "a bug" not in str(found)
    assert [type(exc) for exc in running.errors] == [ZeroDivisionError]
    running.errors.clear()
    assert running.get("/api/version")


def test_what_breaks_in_the_middle_is_not_closed_as_if_it_were_whole(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgelm.serve import openai

    async def breaks(self: object) -> AsyncIterator[bytes]:
        yield b"data: {}\n\n"
        raise ZeroDivisionError("a bug")

    running = start()
    monkeypatch.setattr(openai._Continued, "events", breaks)
    body = b'{"prompt": "The", "stream": true}'
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {len(body)}\r\n\r\n"
    answer = _said(running, head.encode() + body)
    assert b"data: {}" in answer
    assert not answer.endswith(b"0\r\n\r\n")
    running.errors.clear()
