"""``edgelm serve`` as a process."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.command import ROOT, assert_one_line, run_cli

pytest.importorskip("h11")


@contextmanager
def _serving(model: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-m", "edgelm", "serve", "--port", "0", "--json", "--model", str(model), *options]
    process = subprocess.Popen(
        command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(os.environ)
    )
    try:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline())["url"]
    finally:
        process.kill()
        process.communicate()


def _post(url: str, path: str, body: object) -> dict[str, object]:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    found: dict[str, object] = json.loads(connection.getresponse().read())
    connection.close()
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_what_was_learned_survives_its_end(tiny_model: Path, home: Path, number: signal.Signals) -> None:
    with _serving(tiny_model, "--learn") as (process, url):
        told = {"messages": [{"role": "user", "content": "My sister lives in Bremen."}], "max_tokens": 3}
        assert _post(url, "/v1/chat/completions", told)["edgelm"]["entries"] == [1]  # type: ignore[index]
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert said == ""
    assert process.returncode == (-number if number is signal.SIGKILL else 0)
    log = run_cli(["profile", "log", "--json", "--model", str(tiny_model)], env={"EDGELM_HOME": str(home)})
    assert [entry["text"] for entry in log.json_lines if entry["kind"] == "chat"] == ["My sister lives in Bremen."]


def test_it_needs_an_address(tiny_model: Path, home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = run_cli(["serve", "--port", port, "--model", str(tiny_model)], env={"EDGELM_HOME": str(home)})
    assert "cannot listen there" in assert_one_line(result)
    result = run_cli(
        ["serve", "--host", "no.such.host.invalid", "--model", str(tiny_model)], env={"EDGELM_HOME": str(home)}
    )
    assert "cannot listen there" in assert_one_line(result)


def test_a_key_for_a_profile(cli: Cli, home: Path) -> None:
    first = cli("serve", "--new-key", "--profile", "ann", "--json").json
    second = cli("serve", "--new-key", "--profile", "ann").stdout.strip()
    assert first["profile"] == "ann"
    assert first["key"] != second
    assert first["key"] in (home / "serve.keys").read_text()
    assert second in (home / "serve.keys").read_text()
    assert_one_line(cli("serve", "--learn", "--no-learn"), 2)


def test_without_what_it_needs_it_says_how_to_get_it(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "edgelm.serve.app", None)
    assert "edgelm[serve]" in assert_one_line(cli("serve"))
