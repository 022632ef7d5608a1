"""All of it put together, until it is told to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from edgelm.errors import DeviceError
from edgelm.serve import ollama, openai, own, pages, turns
from edgelm.serve.access import Access, Keys
from edgelm.serve.http import Response, as_json
from edgelm.serve.intents import Intents
from edgelm.serve.openapi import describe
from edgelm.serve.recognise import Recogniser
from edgelm.serve.routes import Call, Route, Router
from edgelm.serve.served import ServeOptions
from edgelm.serve.server import Limits, Server
from edgelm.serve.service import Service
from edgelm.serve.wyoming import WyomingServer
from edgelm.serve.wyoming_events import WyomingLimits


@dataclass(frozen=True)
class WyomingListening:
    """Where the Wyoming protocol is spoken.

    Attributes
    ----------
    host : str
    port : int
        0: a free one.
    intents : Intents, optional
        What is recognised.
    limits : WyomingLimits
    """

    host: str
    port: int
    intents: Intents | None = None
    limits: WyomingLimits = field(default_factory=WyomingLimits)


@dataclass(frozen=True)
class Listening:
    """Where edgelm listens, and to whom.

    Attributes
    ----------
    host : str
    port : int
        0: a free one.
    keys : Path
        The file of keys.
    hosts, origins : tuple of str
        As of ``Access``.
    needs_key : bool
        Whether those on this device need a key too.
    limits : Limits
    wyoming : WyomingListening, optional
        Where the Wyoming protocol is spoken too.
    """

    host: str
    port: int
    keys: Path
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    needs_key: bool = False
    limits: Limits = field(default_factory=Limits)
    wyoming: WyomingListening | None = None


def routes() -> list[Route]:
    """All that can be asked."""
    described = [*openai.ROUTES, *ollama.ROUTES, *turns.ROUTES, *own.ROUTES]

    async def openapi(call: Call) -> Response:
        return as_json(describe(described))

    return [*pages.ROUTES, *described, Route("GET", "/edgelm/v1/openapi.json", openapi, "This description.")]


async def serve(
    options: ServeOptions, listening: Listening, clock: Callable[[], float], on_ready: Callable[[str, str], None],
    on_error: Callable[[BaseException], None],
) -> None:  # fmt: skip
    """Listens until it is cancelled; then it keeps what was learned.

    Parameters
    ----------
    options : ServeOptions
    listening : Listening
    clock : callable
        Returns seconds since 1970.
    on_ready : callable
        Called with the address once requests are answered, and with that of Wyoming, which may be empty.
    on_error : callable
        Called with exceptions that nobody expected.

    Raises
    ------
    DeviceError
        The address cannot be had.
    EdgelmError
        Model, profile or keys cannot be used.
    """
    keys = Keys(listening.keys, options.engine.profile)
    access = Access(keys, options.engine.profile, listening.hosts, listening.origins, listening.needs_key)
    service = Service(options, clock)
    server = Server(Router(routes(), access, service), listening.limits, on_error)
    wyoming: WyomingServer | None = None
    try:
        served = await service.open(options.engine.profile)
        port, wyoming_url = await _listen(server, listening.host, listening.port), ""
        if (told := listening.wyoming) is not None:
            recogniser = Recogniser(told.intents, served.engine.meaning) if told.intents is not None else None
            wyoming = WyomingServer(service, options.engine.profile, recogniser, told.limits, on_error)
            wyoming_url = _url("tcp", told.host, await _listen(wyoming, told.host, told.port))
        on_ready(_url("http", listening.host, port), wyoming_url)
        await asyncio.Event().wait()
    finally:
        if wyoming is not None:
            await wyoming.close()
        await server.close()
        await service.close()


async def _listen(server: Server | WyomingServer, host: str, port: int) -> int:
    try:
        return await server.listen(host, port)
    except (OSError, UnicodeError) as exc:
        reason = getattr(exc, "strerror", None) or exc
        raise DeviceError(f"{host}, port {port}: cannot listen there: {reason}") from None


def _url(scheme: str, host: str, port: int) -> str:
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
