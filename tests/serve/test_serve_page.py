"""What ``docs/serve.md`` tells people to write, written: its Python against a server; its tables against the code."""

from __future__ import annotations

import re

import pytest

from edgelm.serve.app import routes
from edgelm.serve.bodies import MAX_CHARS, MAX_MESSAGES, MAX_TOKENS, MAX_TURN
from edgelm.serve.server import Limits
from edgelm.serve.service import MOST_PROFILES, MOST_WAITING, THREADS
from tests.command import ROOT
from tests.serve.conftest import Start

PAGE = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=["openai", "ollama"])
def test_its_python_runs(start: Start, block: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = re.search(r"(?:from|import) (\w+)", block)
    assert module is not None
    pytest.importorskip(module[1])
    running = start()
    scope: dict[str, object] = {}
    exec(block.replace("http://127.0.0.1:8420", running.url).replace('"small"', '"tiny"'), scope)
    scope["client"]._client.close()  # type: ignore[attr-defined]
    assert capsys.readouterr().out.strip()


def test_every_route_is_described() -> None:
    for route in routes():
        if route.path.startswith(("/v1/", "/api/")):
            assert re.sub(r"/\{\w+\}", "", route.path) in PAGE, route.path
        elif route.path.startswith("/edgelm/"):
            last = re.sub(r"\{\w+\}", "ID", route.path).rpartition("/")[2]
            assert re.search(rf"\b{last}\b", PAGE), route.path


def test_its_limits_are_those_of_the_code() -> None:
    limits = Limits()
    table = " ".join(PAGE[PAGE.index("## What a client may cost") :].split())
    for row in (
        f"| {limits.connections} |",
        f"| {limits.header_bytes // 1000} kB, {limits.body_bytes >> 10} kB; {limits.all_bodies_bytes >> 20} MB |",
        f"| {limits.header_seconds:g}, {limits.body_seconds:g}; {limits.idle_seconds:g}; {limits.write_seconds:g} |",
        f"| {MOST_WAITING} (then 503 with `Retry-After`); {THREADS} |",
        f"| {MOST_PROFILES} |",
        f"| {MAX_TOKENS:,}, {MAX_TURN:,} and {MAX_CHARS:,}, {MAX_MESSAGES:,} |",
    ):
        assert row in table, row
