"""Fetches what lies at an http(s) address: within its time and size, wherever it leads."""

from __future__ import annotations

import io
import string
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, urljoin, urlsplit
from urllib.request import HTTPHandler, HTTPRedirectHandler, HTTPSHandler, OpenerDirector, Request, build_opener

from edgelm import __version__
from edgelm.errors import ModelFileError
from edgelm.model.archive import MAX_BYTES

SILENCE_SECONDS = 30
"""Silence of a network after which fetching is given up."""
LEAST_RATE, GRACE_SECONDS = 16 << 10, 60
"""Bytes a second that must come on the whole, once so many seconds are over; from the first address to the last byte,
redirects and what comes before a file included. 512 MiB at this rate take nine hours."""
MAX_HOPS = 5
"""Redirects that are followed."""
_MAX_AROUND = 1 << 20
"""Bytes that may come besides those of the file."""
Progress = Callable[[int], AbstractContextManager[Callable[[int], None]]]
"""Is given the bytes expected, 0 if that is not known, and gives what is to be called with every number that came."""


def fetch(url: str, progress: Progress, clock: Callable[[], float] = time.monotonic) -> Iterator[bytes]:
    """What lies at an address, in pieces.

    Raises
    ------
    ModelFileError
        It cannot be had, is too large or comes too slowly, or the address leads on to one that is neither http nor
        https, from https to http, or on and on.
    """
    try:
        with _opened(url, _Pace(clock)) as response:
            expected, done = int(response.headers.get("Content-Length") or 0), 0
            if expected > MAX_BYTES:
                raise ModelFileError(f"{expected:,} bytes, more than a model for this runtime has ({MAX_BYTES:,})")
            with progress(expected) as on_bytes:
                while chunk := response.read1(1 << 16):
                    done += len(chunk)
                    on_bytes(len(chunk))
                    yield chunk
        if done < expected:
            raise ModelFileError(f"the network gave {done:,} of {expected:,} bytes; try again")
    except (OSError, HTTPException, ValueError) as exc:
        raise ModelFileError(f"cannot be fetched ({exc}); check the address and the network") from None


class _Pace:
    """What has come, and whether it was too slow or is too much."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._start, self._received = clock, clock(), 0

    def add(self, n_bytes: int) -> None:
        self._received += n_bytes
        if self._clock() - self._start > GRACE_SECONDS + self._received / LEAST_RATE:
            raise ModelFileError(
                f"came slower than {LEAST_RATE >> 10} KiB a second; try again, or get the archive by other means"
            )
        if self._received > MAX_BYTES + _MAX_AROUND:
            raise ModelFileError(f"more than {MAX_BYTES:,} bytes, the most of a model for this runtime; get another")


class _PacedInput(io.RawIOBase):
    """What comes from a socket, measured as it comes: before headers are whole, too."""

    def __init__(self, source: io.RawIOBase, pace: _Pace) -> None:
        self._source, self._pace = source, pace

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        n_bytes = self._source.readinto(buffer)
        self._pace.add(n_bytes or 0)
        return n_bytes

    def close(self) -> None:
        self._source.close()
        super().close()


class _Connections(HTTPHandler, HTTPSHandler):
    """Connections whose answers keep pace."""

    def __init__(self, pace: _Pace) -> None:
        super().__init__()
        self._pace = pace

    def http_open(self, req: Request) -> HTTPResponse:
        return self.do_open(self._paced(HTTPConnection), req)

    def https_open(self, req: Request) -> HTTPResponse:
        return self.do_open(self._paced(HTTPSConnection), req)

    def _paced(self, kind: type[HTTPConnection]) -> Any:
        def answer(*args: Any, **kwargs: Any) -> HTTPResponse:
            response = HTTPResponse(*args, **kwargs)
            response.fp = io.BufferedReader(_PacedInput(response.fp.detach(), self._pace))
            return response

        def connect(*args: Any, **kwargs: Any) -> HTTPConnection:
            connection = kind(*args, **kwargs)
            connection.response_class = answer  # type: ignore[assignment]
            return connection

        return connect


class _NoRedirects(HTTPRedirectHandler):
    """They are errors: what would follow them reads all that comes with them first, and more schemes than two."""

    def redirect_request(self, *args: Any) -> None:
        return None


def _opened(url: str, pace: _Pace) -> HTTPResponse:
    opener: OpenerDirector = build_opener(_Connections(pace), _NoRedirects())
    for _ in range(1 + MAX_HOPS):
        try:
            request = Request(url, headers={"User-Agent": f"edgelm/{__version__}"})
            response: HTTPResponse = opener.open(request, timeout=SILENCE_SECONDS)
            return response
        except HTTPError as exc:
            exc.close()
            target = exc.headers.get("Location")
            if exc.code not in (301, 302, 303, 307, 308) or not target:
                raise
        url = _next(url, urljoin(url, quote(target, safe=string.punctuation, encoding="iso-8859-1")))
    raise ModelFileError(f"the address leads on more than {MAX_HOPS} times; give the last one, if you trust it")


def _next(url: str, target: str) -> str:
    """The address that a redirect leads to, if it may."""
    before, after = urlsplit(url).scheme, urlsplit(target).scheme
    if after != "https" and (after, before) != ("http", "http"):
        raise ModelFileError("the address leads to one that is not https; give that one if you trust it")
    return target
