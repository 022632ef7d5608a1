"""A larger model that is asked over OpenAI's API: within its time and size, at the one address that was given.

It needs nothing but the standard library, so that ``edgelm chat`` can use it. Nothing leads it elsewhere: neither a
redirect nor a proxy of the environment is followed.
"""

from __future__ import annotations

import contextlib
import io
import ipaddress
import json
import re
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any
from urllib.parse import SplitResult, urlsplit

from edgelm import __version__
from edgelm.errors import ConfigError, InputError

DEADLINE_SECONDS, REST_SECONDS = 30.0, 60.0
"""For a whole call, the look-up of the name by the system aside; and how long it is left alone after a failure."""
MAX_BYTES, MAX_CHARS, MAX_TOKENS = 1 << 16, 400, 200
"""Bytes of a response, characters of an answer that are used, and tokens that it is asked for, at most."""
MAX_NAME = 200
UNKNOWN = "UNKNOWN"
SYSTEM = (
    "Answer in at most two short sentences of plain text, without lists and Markdown. "
    f"If you do not know the answer, write the one word {UNKNOWN}."
)
_PATH = re.compile(r"[A-Za-z0-9._~/-]*")
_THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
_IGNORANT = re.compile(
    rf"\W*(?:{UNKNOWN}\W*|(?:sorry\W+)?i (?:do not|don['’]t|cannot|can['’]t) (?:know|say|answer|tell)\b.{{0,60}})?",
    re.IGNORECASE,
)
"""What says no more than that there is no answer: it would be learned as one."""
_SENTENCE_END = re.compile(r"[.!?…]['\"”’)]*(?= |\Z)|[。！？]")
_NEAR = [
    ipaddress.ip_network(text)
    for text in ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16")
] + [ipaddress.ip_network(text) for text in ("::1/128", "fc00::/7", "fe80::/10")]
"""Where plain http may go: this device, and the networks of a house."""


@dataclass(frozen=True)
class Bounds:
    """How long a friend is waited for.

    Attributes
    ----------
    deadline_seconds : float
        For a whole call.
    rest_seconds : float
        After a failure it is not asked for so long, unless the person wants it.
    """

    deadline_seconds: float = DEADLINE_SECONDS
    rest_seconds: float = REST_SECONDS


class _NoAnswerError(Exception):
    """Why there is no answer, in a few words."""


class Friend:
    """A larger model at an address; calling it asks it, and never raises what the network does.

    Parameters
    ----------
    url : str
        Of OpenAI's API, as ``http://192.168.1.5:11434/v1``; without a path ``/v1`` is added.
    model : str, optional
        Default: the first that the server lists.
    key : str
    on_remark : callable
        Is told in a line that it is asked, before anything is sent; and that it did not answer, and why.
    bounds : Bounds, optional
    clock : callable
        Returns seconds.

    Attributes
    ----------
    host : str
        Its name, for whoever wants to know who was asked.

    Raises
    ------
    InputError
        The address is none, holds a password, or is that of plain http beyond this device and its networks.
    """

    def __init__(
        self, url: str, model: str | None = None, key: str = "", on_remark: Callable[[str], None] = lambda _: None,
        bounds: Bounds | None = None, clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._url = _checked(url)
        self._model, self._key, self._on_remark = model, key, on_remark
        self._bounds, self._clock = bounds or Bounds(), clock
        self._rests_until: float | None = None
        self.host = self._url.netloc
        if model is not None and not (0 < len(model) <= MAX_NAME and model.isprintable()):
            raise ConfigError(f"--ask-model must be a name of at most {MAX_NAME} printable characters")
        if self._url.scheme == "http":
            # It may be switched on later; whoever has the name then is looked at before each call.
            with contextlib.suppress(OSError):
                self._near_addresses()

    def __call__(self, before: Sequence[tuple[str, str]], text: str, insists: bool = False) -> str:
        """The answer to a turn after earlier ones, in one line of at most ``MAX_CHARS`` characters; empty if none
        came.

        ``insists``: it is asked although it failed a moment ago.
        """
        if not insists and self._rests_until is not None and self._clock() < self._rests_until:
            return ""
        messages = [{"role": "system", "content": SYSTEM}]
        for said, reply in [*before, (text, "")]:
            messages.append({"role": "user", "content": said})
            messages += [{"role": "assistant", "content": reply}] if reply else []
        deadline = _Deadline(self._clock, self._bounds.deadline_seconds)
        self._on_remark(f"asking the friend at {self.host} ...")
        try:
            self._model = self._model or _first_model(self._call("GET", "/models", None, deadline))
            asked = {"model": self._model, "messages": messages, "max_tokens": MAX_TOKENS, "stream": False}
            answer = one_line(_content(self._call("POST", "/chat/completions", asked, deadline)))
        except (OSError, HTTPException, ValueError, RecursionError, _NoAnswerError, InputError) as exc:
            self._rests_until = self._clock() + self._bounds.rest_seconds
            self._on_remark(f"the friend at {self.host} did not answer: {_reason(exc)}")
            return ""
        self._rests_until = None
        if _IGNORANT.fullmatch(answer):
            self._on_remark(f"the friend at {self.host} does not know")
            return ""
        return answer

    def _call(self, method: str, path: str, body: dict[str, Any] | None, deadline: _Deadline) -> Any:
        """What the server says, read as JSON."""
        headers = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": f"edgelm/{__version__}"}
        headers |= {"Host": self._url.netloc, "Connection": "close"}
        headers |= {"Content-Type": "application/json"} if body is not None else {}
        headers |= {"Authorization": f"Bearer {self._key}"} if self._key else {}
        connection = HTTPConnection(self._url.hostname or "", self._url.port)
        connection.sock = self._connected(deadline)
        connection.response_class = deadline.response  # type: ignore[assignment]
        try:
            blob = None if body is None else json.dumps(body).encode()
            connection.request(method, self._url.path + path, blob, headers)
            response = connection.getresponse()
            if response.status != 200:
                raise _NoAnswerError(f"status {response.status} {response.reason}"[:80])
            return json.loads(_whole(response))
        finally:
            connection.close()

    def _connected(self, deadline: _Deadline) -> socket.socket:
        """A socket to the server: where nothing is encrypted, to an address that was found to be near."""
        host, is_plain = self._url.hostname or "", self._url.scheme == "http"
        problem: OSError = OSError("no address")
        for address in self._near_addresses() if is_plain else self._addresses():
            try:
                sock = socket.create_connection((address, self._port), deadline.left())
                return sock if is_plain else ssl.create_default_context().wrap_socket(sock, server_hostname=host)
            except OSError as exc:
                problem = exc
        raise problem

    @property
    def _port(self) -> int:
        return self._url.port or (80 if self._url.scheme == "http" else 443)

    def _addresses(self) -> list[str]:
        found = socket.getaddrinfo(self._url.hostname or "", self._port, type=socket.SOCK_STREAM)
        return [str(info[4][0]) for info in found]

    def _near_addresses(self) -> list[str]:
        """Those of a server that is asked without encryption, all of which must be near."""
        found = self._addresses()
        if far := [address for address in found if not is_near(address)]:
            raise InputError(
                f"{self.host} ({far[0]}) is beyond this device and its network, where plain http is read by all "
                "between; use https"
            )
        return found


class _Deadline:
    """When a call must be over; what is read of it keeps to that, whatever the server does."""

    def __init__(self, clock: Callable[[], float], seconds: float) -> None:
        self._clock, self._end, self._seconds = clock, clock() + seconds, seconds

    def left(self) -> float:
        """Seconds that are left.

        Raises
        ------
        _NoAnswerError
            There are none.
        """
        left = self._end - self._clock()
        if left <= 0:
            raise _NoAnswerError(f"not within {self._seconds:g} s")
        return left

    def response(self, sock: socket.socket, *args: Any, **kwargs: Any) -> HTTPResponse:
        """A response of which no byte is waited for beyond the end."""
        made = HTTPResponse(sock, *args, **kwargs)
        made.fp = io.BufferedReader(_Timed(made.fp.detach(), sock, self))
        return made


class _Timed(io.RawIOBase):
    """What comes from a socket, as long as there is time."""

    def __init__(self, source: io.RawIOBase, sock: socket.socket, deadline: _Deadline) -> None:
        self._source, self._sock, self._deadline = source, sock, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(self._deadline.left())
        return self._source.readinto(buffer)

    def close(self) -> None:
        self._source.close()
        super().close()


def _checked(url: str) -> SplitResult:
    """The address, in parts."""
    try:
        parts = urlsplit(url.rstrip("/"))
        port = parts.port
    except ValueError:
        raise InputError(f"{url[:80]!r} is no address; give one like http://192.168.1.5:11434/v1") from None
    if parts.username is not None or parts.password is not None:
        raise InputError("the address of --ask holds a name or password; put the key into EDGELM_ASK_KEY instead")
    plain = url.isascii() and url.isprintable() and " " not in url
    if not plain or parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise InputError(f"{url[:80]!r} is no address of http or https; give one like http://192.168.1.5:11434/v1")
    if parts.query or parts.fragment or not _PATH.fullmatch(parts.path):
        raise InputError(f"{url[:80]!r} has more than a host and a path; give one like https://example.org/v1")
    return parts._replace(path=parts.path or "/v1")


def is_near(address: str) -> bool:
    """Whether an address is of this device, or of a network that does not lead through the world."""
    found = ipaddress.ip_address(address.partition("%")[0])
    found = getattr(found, "ipv4_mapped", None) or found
    return any(found.version == network.version and found in network for network in _NEAR)


def _whole(response: HTTPResponse) -> bytes:
    """All of a response, which must not be long."""
    blob = response.read(MAX_BYTES + 1)
    if len(blob) > MAX_BYTES:
        raise _NoAnswerError(f"it sent more than {MAX_BYTES:,} bytes")
    return blob


def _first_model(listed: Any) -> str:
    try:
        name = listed["data"][0]["id"]
    except (KeyError, IndexError, TypeError):
        raise _NoAnswerError("it lists no models; name one with --ask-model") from None
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME:
        raise _NoAnswerError("the name of its first model is none; name one with --ask-model")
    return name


def _content(answered: Any) -> str:
    try:
        content = answered["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        raise _NoAnswerError("what it sent is no answer of OpenAI's API") from None
    if not isinstance(content, str):
        raise _NoAnswerError("its answer is no text")
    return content


def one_line(text: str) -> str:
    """An answer as one line of printable characters, cut after its last sentence within ``MAX_CHARS`` characters."""
    text = _THOUGHT.sub(" ", text)
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    if len(line) <= MAX_CHARS:
        return line
    ends = [match.end() for match in _SENTENCE_END.finditer(line, 0, MAX_CHARS)]
    return line[: ends[-1]] if ends else line[:MAX_CHARS].rpartition(" ")[0] or line[:MAX_CHARS]


def _reason(exc: BaseException) -> str:
    if isinstance(exc, _NoAnswerError | InputError):
        return str(exc)
    if isinstance(exc, TimeoutError):
        return "not in time"
    if isinstance(exc, OSError):
        return (exc.strerror or type(exc).__name__)[:120]
    return (
        "it closed the connection early or sent no HTTP"
        if isinstance(exc, HTTPException)
        else "what it sent is no JSON"
    )
