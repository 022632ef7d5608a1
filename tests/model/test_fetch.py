"""What lies at an address comes here within its time and size, and from where it may."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPSConnection
from itertools import pairwise, repeat

import pytest

from edgelm.errors import ModelFileError
from edgelm.model import fetch as fetching

Answer = Callable[[], Iterator[bytes]]


class _Network:
    """What answers at each address, and its time, which goes on with each piece that is received."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []
        self.now, self.seconds, self.n_bytes = 0.0, 0.0, 0

    def clock(self) -> float:
        return self.now

    def gives(self, url: str, *pieces: bytes, then: bytes = b"") -> None:
        """Answers with pieces, and then with another for ever."""
        self.answers[url] = lambda: (piece for part in (pieces, repeat(then) if then else ()) for piece in part)

    def leads(self, url: str, target: str, then: bytes = b"") -> None:
        """Answers with a redirect."""
        self.gives(url, f"HTTP/1.1 302 Found\r\nLocation: {target}\r\n\r\n".encode(), then=then)

    def fetch(self, url: str) -> bytes:
        @contextmanager
        def progress(total: int) -> Iterator[Callable[[int], None]]:
            yield lambda n_bytes: None

        return b"".join(fetching.fetch(url, progress, self.clock))


class _Received(io.RawIOBase):
    def __init__(self, network: _Network, pieces: Iterator[bytes]) -> None:
        self._network, self._pieces = network, pieces

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        piece = next(self._pieces, b"")
        assert len(piece) <= len(buffer)
        self._network.now += self._network.seconds
        self._network.n_bytes += len(piece)
        assert self._network.n_bytes < 8 << 20, "it was read for ever"
        buffer[: len(piece)] = piece
        return len(piece)


class _Socket:
    def __init__(self, network: _Network, scheme: str) -> None:
        self._network, self._scheme, self._sent = network, scheme, b""

    def sendall(self, blob: bytes) -> None:
        self._sent += blob

    def makefile(self, mode: str) -> io.BufferedReader:
        lines = self._sent.decode().split("\r\n")
        host = next(line.removeprefix("Host: ") for line in lines if line.startswith("Host: "))
        url = f"{self._scheme}://{host}{lines[0].split()[1]}"
        self._network.asked.append(url)
        return io.BufferedReader(_Received(self._network, self._network.answers[url]()))

    def close(self) -> None:
        pass


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> _Network:
    """A network of this test's own."""
    monkeypatch.setenv("no_proxy", "*")
    network = _Network()
    for kind, scheme in ((HTTPConnection, "http"), (HTTPSConnection, "https")):

        def connect(self: HTTPConnection, scheme: str = scheme) -> None:
            self.sock = _Socket(network, scheme)  # type: ignore[assignment]

        monkeypatch.setattr(kind, "connect", connect)
    return network


def _whole(blob: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(blob), blob)


def test_it_comes_as_it_is(network: _Network) -> None:
    network.gives("https://a/model.tar?x=1", _whole(b"words")[:20], _whole(b"words")[20:])
    assert network.fetch("https://a/model.tar?x=1") == b"words"
    network.gives("http://a/", b"HTTP/1.0 200 OK\r\n\r\n", b"to the ", b"end")
    assert network.fetch("http://a/") == b"to the end"
    network.gives("http://b/", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
    assert network.fetch("http://b/") == b"abc"
    network.gives("http://c/", _whole(b"words")[:-1])
    with pytest.raises(ModelFileError, match="gave 4 of 5 bytes"):
        network.fetch("http://c/")


@pytest.mark.parametrize("way", ["http://a/ http://b/", "http://a/ https://b/x", "https://a/ https://b/ https://a/x"])
def test_where_it_may_lead(network: _Network, way: str) -> None:
    urls = way.split()
    for url, target in pairwise(urls):
        network.leads(url, target)
    network.gives(urls[-1], _whole(b"words"))
    assert network.fetch(urls[0]) == b"words"
    assert network.asked == urls


def test_an_address_may_lead_on_by_a_path(network: _Network) -> None:
    network.leads("https://a/b/c", "../d e")
    network.gives("https://a/d%20e", _whole(b"words"))
    assert network.fetch("https://a/b/c") == b"words"


@pytest.mark.parametrize(
    "way",
    [
        "https://a/ http://b/ https://a/x",
        "http://a/ https://b/ http://c/",
        "https://a/ file:///etc/passwd",
        "http://a/ ftp://b/model.tar",
        "http://a/ data:,words",
        "https://a/ HTTP://b/",
    ],
)
def test_where_it_may_not_lead(network: _Network, way: str) -> None:
    *urls, last = way.split()
    for url, target in zip(urls, [*urls[1:], last], strict=True):
        network.leads(url, target)
    for url in ("https://a/x", "http://c/"):
        network.gives(url, _whole(b"words"))
    with pytest.raises(ModelFileError, match="leads to one that is not https"):
        network.fetch(urls[0])
    assert "http://b/" not in network.asked and "http://c/" not in network.asked


def test_it_may_lead_on_a_few_times(network: _Network) -> None:
    for number in range(5):
        network.leads(f"https://a/{number}", f"/{number + 1}")
    network.gives("https://a/5", _whole(b"words"))
    assert network.fetch("https://a/0") == b"words"
    network.leads("https://a/5", "/6")
    network.gives("https://a/6", _whole(b"words"))
    with pytest.raises(ModelFileError, match="more than 5 times"):
        network.fetch("https://a/0")
    network.leads("https://a/", "https://a/")
    network.asked.clear()
    with pytest.raises(ModelFileError, match="more than 5 times"):
        network.fetch("https://a/")
    assert len(network.asked) == 6


def test_what_comes_with_a_redirect_is_not_read(network: _Network) -> None:
    network.leads("https://a/", "/b", then=b"x" * 1000)
    network.gives("https://a/b", _whole(b"words"))
    assert network.fetch("https://a/") == b"words"


@pytest.mark.parametrize(
    ("start", "then"),
    [
        (b"", b"H"),
        (b"HTTP/1.1 200 OK\r\nA: ", b"a"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    ],
)
def test_what_trickles_is_given_up(network: _Network, start: bytes, then: bytes) -> None:
    network.seconds = 1
    network.gives("http://a/", *([start] if start else []), then=then)
    with pytest.raises(ModelFileError, match="came slower than 16 KiB a second"):
        network.fetch("http://a/")
    assert network.now <= 62


def test_a_slow_network_has_its_time(network: _Network) -> None:
    network.seconds = 0.4
    blob = bytes(8000)
    network.gives("http://a/", b"HTTP/1.1 200 OK\r\n\r\n", *[blob] * 900)
    assert len(network.fetch("http://a/")) == 900 * 8000
    assert network.now > 300


def test_the_time_is_that_of_all_addresses_together(network: _Network) -> None:
    network.seconds = 15
    for number in range(5):
        network.leads(f"https://a/{number}", f"/{number + 1}")
    with pytest.raises(ModelFileError, match="came slower"):
        network.fetch("https://a/0")


def test_what_is_too_large(network: _Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "MAX_BYTES", 100_000)
    network.gives("http://a/", b"HTTP/1.1 200 OK\r\nContent-Length: 100001\r\n\r\n", then=b"x" * 1000)
    with pytest.raises(ModelFileError, match="100,001 bytes, more than"):
        network.fetch("http://a/")
    for start in (b"HTTP/1.1 200 OK\r\n\r\n", b""):
        network.n_bytes = 0
        network.gives("http://a/", *([start] if start else []), then=b"HTTP/1.1 100 Continue\r\n\r\n" * 100)
        with pytest.raises(ModelFileError, match="more than 100,000 bytes"):
            network.fetch("http://a/")
    network.gives("http://a/", b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n")
    with pytest.raises(ModelFileError, match="cannot be fetched"):
        network.fetch("http://a/")


def test_an_address_without_a_model(network: _Network) -> None:
    network.gives("http://a/", b"HTTP/1.1 404 Not Found\r\n\r\n", then=b"x" * 1000)
    with pytest.raises(ModelFileError, match="HTTP Error 404"):
        network.fetch("http://a/")
