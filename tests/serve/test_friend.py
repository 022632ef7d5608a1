"""The client of a larger model: what it sends, and that no server can hold it up, lead it away or fill it."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from edgelm.config import ask_key
from edgelm.errors import ConfigError, InputError
from edgelm.serve.friend import MAX_BYTES, MAX_CHARS, MAX_TOKENS, SYSTEM, Bounds, Friend, is_near, one_line
from tests.serve.local_friend import LocalFriend, answer, local_friend

SHORT = Bounds(deadline_seconds=0.3, rest_seconds=60)


@pytest.fixture
def server() -> Iterator[LocalFriend]:
    with local_friend() as friend:
        yield friend


def test_what_is_sent(server: LocalFriend) -> None:
    remarks: list[str] = []
    friend = Friend(server.url + "/", None, "k-1", remarks.append)
    before = [("Is there a lake?", "Yes, a deep one."), ("Good.", "")]
    assert friend(before, "What is a heron?") == "A heron is a bird."
    said = [("user", "Is there a lake?"), ("assistant", "Yes, a deep one."), ("user", "Good.")]
    assert server.bodies == [
        {
            "model": "large-one",
            "messages": [
                {"role": role, "content": text}
                for role, text in [("system", SYSTEM), *said, ("user", "What is a heron?")]
            ],
            "max_tokens": MAX_TOKENS,
            "stream": False,
        }
    ]
    assert [(method, path) for method, path, _ in server.requests] == [
        ("GET", "/v1/models"), ("POST", "/v1/chat/completions"),
    ]  # fmt: skip
    assert all(headers["Authorization"] == "Bearer k-1" for *_, headers in server.requests)
    assert remarks == [f"asking the friend at {friend.host} ..."]
    assert friend([], "And now?") and len(server.requests) == 3, "the list of models is asked for once"


def test_a_model_by_name_and_no_key(server: LocalFriend) -> None:
    assert Friend(server.url.removesuffix("/v1"), "another")([], "What is a heron?")
    (request,) = server.requests
    assert request[:2] == ("POST", "/v1/chat/completions") and "Authorization" not in request[2]
    assert server.bodies[0]["model"] == "another"


def _failure(server: LocalFriend, bounds: Bounds = SHORT) -> str:
    """Why it did not answer: the one remark besides that it is asked."""
    remarks: list[str] = []
    friend = Friend(server.url, "m", on_remark=remarks.append, bounds=bounds)
    assert friend([], "What is a heron?") == ""
    _, remark = remarks
    assert remark.startswith(f"the friend at {friend.host} did not answer: ") and "\n" not in remark
    return remark.rpartition(": ")[2]


@pytest.mark.parametrize(
    "says",
    [
        b"", b"no JSON", b"[" * 60_000, b"\xff\xfe", b"1" * 5000, b"[]", b"{}", b'{"choices": []}', b'{"choices": {}}',
        b'{"choices": [{"message": null}]}', answer(None), answer(["parts"]), answer(7),
        json.dumps({"error": "no"}).encode(),
    ],
)  # fmt: skip
def test_what_is_no_answer(server: LocalFriend, says: bytes) -> None:
    server.says = says
    assert _failure(server)


@pytest.mark.parametrize("status", [201, 301, 302, 307, 400, 401, 404, 500, 503])
def test_a_status_that_is_no_answer(server: LocalFriend, status: int) -> None:
    server.status = status
    assert f"status {status}" in _failure(server)


def test_a_redirect_leads_nowhere(server: LocalFriend) -> None:
    with local_friend() as other:

        def lead(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(307)
            handler.send_header("Location", other.url + "/chat/completions")
            handler.send_header("Content-Length", "0")
            handler.end_headers()

        server.act = lead
        assert "status 307" in _failure(server)
        assert other.requests == []


def test_an_answer_that_begins_as_none_is_one(server: LocalFriend) -> None:
    for said in ("Unknown to most, herons sing.", "I do not know that bird well; " + "it lives by the water. " * 4):
        server.says = answer(said)
        assert Friend(server.url)([], "What is a heron?") == said.strip()


def test_a_proxy_of_the_environment_is_not_used(server: LocalFriend, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert Friend(server.url)([], "What is a heron?") == "A heron is a bird."


def _huge_with_length(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(1 << 40))
    handler.end_headers()
    _forever(handler, b"x" * 4096)


def _huge(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    _forever(handler, b"x" * 4096)


def _endless_headers(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.flush_headers()
    _forever(handler, b"X-More: 1\r\n")


def _forever(handler: BaseHTTPRequestHandler, blob: bytes) -> None:
    while True:
        handler.wfile.write(blob)


@pytest.mark.parametrize("act", [_huge, _huge_with_length])
def test_a_huge_answer_is_not_read(server: LocalFriend, act: Callable[[BaseHTTPRequestHandler], None]) -> None:
    server.act = act
    assert f"more than {MAX_BYTES:,} bytes" in _failure(server, Bounds(60, 60))


def test_headers_without_end(server: LocalFriend) -> None:
    server.act = _endless_headers
    assert _failure(server, Bounds(60, 60)) == "it closed the connection early or sent no HTTP"


def _drip(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "60000")
    handler.end_headers()
    while True:
        handler.wfile.write(b" ")
        handler.connection.settimeout(0.02)
        try:
            handler.connection.recv(1)
            return
        except TimeoutError:
            continue


def _wait(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.recv(1)


@pytest.mark.parametrize("act", [_wait, _drip])
def test_a_slow_server_is_left_at_the_deadline(
    server: LocalFriend, act: Callable[[BaseHTTPRequestHandler], None]
) -> None:
    server.act = act
    assert _failure(server) in ("not in time", "not within 0.3 s")


def _close(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)


def _half(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(answer("A heron is a bird.")[:20])


@pytest.mark.parametrize("act", [_close, _half])
def test_a_connection_that_ends_early(server: LocalFriend, act: Callable[[BaseHTTPRequestHandler], None]) -> None:
    server.act = act
    assert _failure(server)


def test_nobody_listens() -> None:
    with local_friend() as friend:
        pass
    assert "refused" in _failure(friend)


def test_after_a_failure_it_is_left_alone_for_a_while(server: LocalFriend) -> None:
    now, remarks = [0.0], list[str]()
    friend = Friend(server.url, "m", on_remark=remarks.append, bounds=Bounds(30, 60), clock=lambda: now[0])
    server.status = 500
    assert friend([], "One?") == "" and len(remarks) == 2
    server.status = 200
    now[0] = 59.0
    assert friend([], "Two?") == "" and len(remarks) == 2, "neither asked nor told about"
    assert friend([], "Three?", True), "the person wants it"
    assert friend([], "Four?"), "it answered, so it is asked again"
    assert len(server.bodies) == 3


@pytest.mark.parametrize(
    "said", ["UNKNOWN", " unknown. ", "", "<think>I wonder", "\n", "I do not know that.", "Sorry, I can’t say."]
)
def test_what_it_does_not_know(server: LocalFriend, said: str) -> None:
    remarks: list[str] = []
    server.says = answer(said)
    friend = Friend(server.url, "m", on_remark=remarks.append)
    assert friend([], "What is a heron?") == ""
    assert remarks[1:] == [f"the friend at {friend.host} does not know"]
    assert friend([], "Again?") == "" and len(server.bodies) == 2, "that is no failure"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("  A heron\n\nis a bird.\t", "A heron is a bird."),
        ("<think>Well,\n</think>A heron.", "A heron."),
        ("a\x1b]0;t\x07\u202eb\u2028c", "a ]0;t b c"),
        ("One. " + "word " * 200, "One."),
        ("One! Two (three.) " + "x" * 500, "One! Two (three.)"),
        ("\u4f60\u597d\u3002" + "\u4f60" * 500, "\u4f60\u597d\u3002"),
        ("word " * 200, ("word " * 80).strip()),
        ("x" * 500, "x" * MAX_CHARS),
    ],
)
def test_an_answer_is_one_short_line(text: str, line: str) -> None:
    assert one_line(text) == line


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ftp://127.0.0.1/v1", "no address"), ("127.0.0.1:8080", "no address"), ("http:///v1", "no address"),
        ("http://127.0.0.1:99999", "no address"), ("http://127.0.0.1:0/v1", "no address"),
        ("http://[::1", "no address"),
        ("http://a b/v1", "no address"), ("http://127.0.0.1\n/v1", "no address"), ("", "no address"),
        ("http://me:word@127.0.0.1/v1", "EDGELM_ASK_KEY"), ("http://127.0.0.1/v1?key=1", "more than a host"),
        ("http://127.0.0.1/v1#x", "more than a host"), ("http://127.0.0.1/a%0db", "more than a host"),
        ("http://8.8.8.8/v1", "use https"), ("http://[2001:4860:4860::8888]/v1", "use https"),
        ("http://[::ffff:8.8.8.8]:80", "use https"), ("http://100.64.0.1", "use https"),
        ("http://0.0.0.0", "use https"),
    ],
)  # fmt: skip
def test_addresses_that_are_refused(url: str, why: str) -> None:
    with pytest.raises(InputError, match=why) as caught:
        Friend(url)
    assert "word" not in str(caught.value).replace("password", "")


def test_where_plain_http_may_go() -> None:
    near = ["127.0.0.1", "127.9.9.9", "10.1.2.3", "172.31.0.1", "192.168.0.9", "169.254.1.1", "::1", "fd00::1"]
    far = ["172.32.0.1", "192.169.0.1", "11.0.0.1", "8.8.8.8", "::", "2001:db8::1", "::ffff:1.1.1.1"]
    assert all(map(is_near, [*near, "fe80::1%eth0", "::ffff:10.0.0.1"])) and not any(map(is_near, far))


def test_a_name_that_moves_away_is_not_followed(server: LocalFriend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has the name is looked at before each call, and nothing is looked up again between that and it."""
    remarks: list[str] = []
    address, lookups = ["127.0.0.1"], list[str]()

    def found(host: str, port: int, **_: Any) -> list[Any]:
        lookups.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address[0], port))]

    connect = socket.create_connection
    port = int(server.url.rpartition(":")[2].partition("/")[0])
    friend_at = f"http://pc.example:{port}/v1"
    with monkeypatch.context() as patch:
        patch.setattr("edgelm.serve.friend.socket.getaddrinfo", found)
        reached: list[str] = []

        def connecting(where: tuple[str, int], timeout: float) -> socket.socket:
            reached.append(where[0])
            patch.undo()
            return connect(where, timeout)

        patch.setattr("edgelm.serve.friend.socket.create_connection", connecting)
        friend = Friend(friend_at, "m", on_remark=remarks.append)
        assert friend([], "What is a heron?") and reached == ["127.0.0.1"] and lookups == ["pc.example"] * 2
        patch.setattr("edgelm.serve.friend.socket.getaddrinfo", found)
        address[0] = "8.8.8.8"
        assert friend([], "What is a heron?") == ""
    assert "use https" in remarks[-1] and len(server.bodies) == 1


def test_a_name_that_is_not_there_yet_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr("edgelm.serve.friend.socket.getaddrinfo", unknown)
    remarks: list[str] = []
    assert Friend("http://pc.example/v1", "m", on_remark=remarks.append)([], "What is a heron?") == ""
    assert remarks[-1].endswith("Name or service not known")


def test_https_is_verified(server: LocalFriend) -> None:
    """A server that speaks no TLS is not talked to."""
    remarks: list[str] = []
    friend = Friend(server.url.replace("http:", "https:"), "m", "k", remarks.append, SHORT)
    assert friend([], "What is a heron?") == ""
    assert server.bodies == [] and len(remarks) == 2


def test_names_and_keys(server: LocalFriend, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("", "x" * 300, "a\nb"):
        with pytest.raises(ConfigError, match="--ask-model"):
            Friend(server.url, name)
    monkeypatch.setenv("EDGELM_ASK_KEY", " sk-1 ")
    assert ask_key() == "sk-1"
    for bad in ("a b", "a\r\nHost: b", "\u00fc"):
        monkeypatch.setenv("EDGELM_ASK_KEY", bad)
        with pytest.raises(ConfigError, match="EDGELM_ASK_KEY") as caught:
            ask_key()
        assert bad not in str(caught.value)
