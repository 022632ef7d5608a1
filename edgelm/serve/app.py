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
from edgelm.serve.openapi import describe
from edgelm.serve.routes import Call, Route, Router
from edgelm.serve.served import ServeOptions
from edgelm.serve.server import Limits, Server
from edgelm.serve.service import Service


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
    """

    host: str
    port: int
    keys: Path
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    needs_key: bool = False
    limits: Limits = field(default_factory=Limits)


def routes() -> list[Route]:
    """All that can be asked."""
    described = [*openai.ROUTES, *ollama.ROUTES, *turns.ROUTES, *own.ROUTES]

    async def openapi(call: Call) -> Response:
        return as_json(describe(described))

    return [*pages.ROUTES, *described, Route("GET", "/edgelm/v1/openapi.json", openapi, "This description.")]


async def serve(
    options: ServeOptions, listening: Listening, clock: Callable[[], float], on_ready: Callable[[str], None],
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
        Called with the address once requests are answered.
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
    try:
        await service.open(options.engine.profile)
        try:
            port = await server.listen(listening.host, listening.port)
        except OSError as exc:
            raise DeviceError(
                f"{listening.host}, port {listening.port}: cannot listen there: {exc.strerror or exc}"
            ) from None
        host = f"[{listening.host}]" if ":" in listening.host else listening.host
        on_ready(f"http://{host}:{port}")
        await asyncio.Event().wait()
    finally:
        await server.close()
        await service.close()
