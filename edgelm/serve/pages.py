"""The page: a few files that are served as they are."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from edgelm.serve.http import Response
from edgelm.serve.routes import Call, Route

_TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
"""Nothing from elsewhere is loaded, and no other page may show this one."""
HEADERS = (("content-security-policy", _POLICY), ("cache-control", "no-cache"), ("x-frame-options", "DENY"))
NAMES = (
    "index.html", "style.css", "icon.svg", "page.js", "actions.js", "api.js", "awake.js", "chat.js", "curve.js",
    "device.js", "dom.js", "log.js", "stream.js", "turn.js", "words.js",
)  # fmt: skip
"""All files of the page, and nothing else that may lie in its folder."""


@cache
def _file(name: str) -> bytes:
    return files("edgelm.serve").joinpath("page", name).read_bytes()


async def page(call: Call) -> Response:
    """A file of the page."""
    name = call.request.path.rpartition("/")[2] or "index.html"
    return Response(200, _file(name), f"{_TYPES[name.rpartition('.')[2]]}; charset=utf-8", HEADERS)


ROUTES = [
    Route("GET", "/", page, "The page."),
    *(Route("GET", f"/page/{name}", page, "A file of the page.") for name in NAMES),
]
