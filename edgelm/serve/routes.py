"""A table of routes, and what a handler is given: a request whose body was checked against a type."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from edgelm.errors import EdgelmError
from edgelm.serve.access import Access
from edgelm.serve.http import Request, RequestError, Response, as_json
from edgelm.serve.served import Served
from edgelm.serve.service import Service, as_request_error

Item = TypeVar("Item")
JSON_TYPES = ("application/json", "application/x-ndjson", "text/plain", "")
"""Content types of a body that is read as JSON: some clients of Ollama name none."""


@dataclass(frozen=True)
class Call:
    """A request that may be answered.

    Attributes
    ----------
    request : Request
    service : Service
    served : Served
        The profile that it is for.
    body : object
        Of the type that the route names.
    parts : tuple of str
        What stands in the path where the route has ``{...}``.
    """

    request: Request
    service: Service
    served: Served
    body: Any
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Route:
    """One thing that can be asked.

    Attributes
    ----------
    method, path : str
        A part of the path as ``{name}`` stands for any word.
    handler : callable
    summary : str
        A sentence for the page that describes the interface.
    body : type, optional
        A ``msgspec.Struct``.
    answer : type, optional
        The same of what is answered, for the page.
    streams : str
        The content type of an answer in pieces, where there can be one.
    query : dict of str to dict
        Names in the query, and the JSON schema of each.
    """

    method: str
    path: str
    handler: Callable[[Call], Awaitable[Response]]
    summary: str
    body: type[msgspec.Struct] | None = None
    answer: type[msgspec.Struct] | None = None
    streams: str = ""
    query: dict[str, dict[str, Any]] | None = None

    def match(self, path: str) -> tuple[str, ...] | None:
        """What stands where the path has ``{...}``; None where the path is another one."""
        own, given = self.path.split("/"), path.split("/")
        if len(own) != len(given):
            return None
        is_open = [part.startswith("{") for part in own]
        if any(mine != theirs for mine, theirs, free in zip(own, given, is_open, strict=True) if not free):
            return None
        return tuple(theirs for theirs, free in zip(given, is_open, strict=True) if free)


class Router:
    """Answers requests by a table of routes.

    Parameters
    ----------
    routes : list of Route
    access : Access
    service : Service
    """

    def __init__(self, routes: list[Route], access: Access, service: Service) -> None:
        self._routes, self._access, self._service = routes, access, service

    async def __call__(self, request: Request) -> Response:
        """The response, errors included."""
        try:
            try:
                return await self._answer(request)
            except EdgelmError as exc:
                raise as_request_error(exc) from None
        except RequestError as exc:
            return error_response(request.path, exc)

    async def _answer(self, request: Request) -> Response:
        profile = self._access.profile_of(request)
        found = [(route, parts) for route in self._routes if (parts := route.match(request.path)) is not None]
        if not found:
            raise RequestError(404, f"there is no {request.path[:200]} here; /edgelm/v1/openapi.json lists what is")
        method = "GET" if request.method == "HEAD" else request.method
        of_method = [(route, parts) for route, parts in found if route.method == method]
        if not of_method:
            allowed = ", ".join(sorted({route.method for route, _ in found}))
            raise RequestError(405, f"{request.method[:20]} is not what {request.path[:200]} takes: {allowed}", allowed)
        route, parts = of_method[0]
        body = _body(request, route.body) if route.body is not None else None
        return await route.handler(Call(request, self._service, await self._service.open(profile), body, parts))


def _body(request: Request, kind: type[msgspec.Struct]) -> msgspec.Struct:
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type not in JSON_TYPES and content_type != "application/x-www-form-urlencoded":
        raise RequestError(415, f"the body must be JSON, not {content_type[:80]!r}", "unsupported_media_type")
    try:
        return msgspec.json.decode(request.body, type=kind)
    except msgspec.ValidationError as exc:
        message, _, place = str(exc).partition(" - at `$")
        param = place.rstrip("`").lstrip(".") or None
        raise RequestError(400, f"{param or 'the body'}: {message}", "invalid_request", param) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise RequestError(400, f"the body is not JSON: {str(exc)[:200]}", "invalid_json") from None


def error_response(path: str, exc: RequestError) -> Response:
    """An error as the client of that path expects it: Ollama's as a string, all others as OpenAI has it."""
    headers: tuple[tuple[str, str], ...] = ()
    if exc.status == 401:
        headers = (("www-authenticate", 'Basic realm="edgelm", charset="UTF-8"'),)
    elif exc.status == 405:
        headers = (("allow", exc.code),)
    elif exc.status == 503:
        headers = (("retry-after", "2"),)
    if path.startswith("/api/"):
        return as_json({"error": str(exc)}, exc.status, headers)
    return as_json(error_object(exc), exc.status, headers)


def error_object(exc: RequestError) -> dict[str, Any]:
    """An error as OpenAI has it."""
    kind = {401: "authentication_error", 403: "permission_error", 404: "not_found_error"}.get(exc.status)
    kind = kind or ("server_error" if exc.status >= 500 else "invalid_request_error")
    return {"error": {"message": str(exc), "type": kind, "param": exc.param, "code": exc.code or None}}


class Primed(AsyncIterator[Item]):
    """Parts of which the first is made before anything is sent, so that an error of it can still be a status.

    Parameters
    ----------
    parts : async generator
    """

    def __init__(self, parts: AsyncGenerator[Item, None]) -> None:
        self._parts, self._first = parts, list[Item]()

    async def prime(self) -> Primed[Item]:
        """Makes the first part; raises what that raises. Returns itself."""
        with contextlib.suppress(StopAsyncIteration):
            self._first.append(await anext(self._parts))
        return self

    async def __anext__(self) -> Item:
        return self._first.pop() if self._first else await anext(self._parts)

    async def aclose(self) -> None:
        """Ends it, wherever it is."""
        await self._parts.aclose()
