"""A request and a response of HTTP."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

SERVER = "edgelm"
SAFE = (
    ("server", SERVER),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
)
"""Headers of every response."""


@dataclass(frozen=True)
class Request:
    """What a client asks.

    Attributes
    ----------
    method, path : str
        The path without its query, percent-decoded.
    query : dict of str to str
    headers : dict of str to str
        Names in lower case; of several with one name the values are joined by commas.
    body : bytes
    peer : str
        The address of the other end; empty where it has none.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    peer: str


@dataclass(frozen=True)
class Response:
    """What is answered.

    Attributes
    ----------
    status : int
    body : bytes or async iterator of bytes
        An iterator is sent piece by piece, each as soon as it is there, and closed when the client has gone.
    content_type : str
    headers : tuple of (str, str)
        Beside those of every response.
    """

    status: int
    body: bytes | AsyncIterator[bytes]
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


Handler = Callable[[Request], Awaitable[Response]]


def as_json(value: Any, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    """A response that holds ``value`` as JSON."""
    return Response(status, json.dumps(value, ensure_ascii=False).encode(), headers=headers)


def event(value: Any, name: str = "") -> bytes:
    """A server-sent event, with ``value`` as JSON, or as it is where it is a string."""
    data = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"{f'event: {name}' + chr(10) if name else ''}data: {data}\n\n".encode()


class RequestError(Exception):
    """A request that is not answered.

    Parameters
    ----------
    status : int
        Of HTTP.
    message : str
        What was expected, what was found, and what to do.
    code : str
        A word for programs, as ``model_not_found``.
    param : str, optional
        The field of the request that is meant.
    """

    def __init__(self, status: int, message: str, code: str = "", param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param
