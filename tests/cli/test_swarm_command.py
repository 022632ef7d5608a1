"""``edgelm swarm`` where Flower is missing, and what is said of wrong words and of strangers."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgelm.cli.swarm import STRATEGIES
from edgelm.swarm import aggregate
from edgelm.swarm.device import Ledger, noted, write_ledger
from tests.cli.conftest import Cli
from tests.command import ROOT, Result, assert_one_line

_WITHOUT = """
import sys
sys.modules["flwr"] = None
sys.argv = ["edgelm", *sys.argv[1:]]
from edgelm.cli.main import main
main()
"""


@pytest.mark.parametrize("command", ["serve --port 0", "join 127.0.0.1:9", "status 127.0.0.1:9"])
def test_without_flower_it_is_said_how_to_install_it(command: str, home: Path, tiny_model: Path) -> None:
    words = [sys.executable, "-c", _WITHOUT, "swarm", *command.split(), "--model", str(tiny_model)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120)
    line = assert_one_line(Result(done.returncode, done.stdout, done.stderr))
    assert line == "edgelm: the swarm needs flwr: pip install 'edgelm[swarm]'"


def test_help_and_own_status_need_no_flower(home: Path) -> None:
    for words in (["swarm", "--help"], ["swarm", "join", "--help"], ["swarm", "status"]):
        script = _WITHOUT + "\nassert 'numba' not in sys.modules"
        done = subprocess.run(
            [sys.executable, "-c", script, *words], cwd=ROOT, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr


def test_own_status_is_the_ledger(cli: Cli, home: Path) -> None:
    assert cli("swarm", "status", "--json").json["rounds"] == 0
    write_ledger(home / "swarm" / "default.json", noted(Ledger(), rounds=3, bytes_sent=900, address="here:1"))
    found = cli("swarm", "status", "--json").json
    assert (found["profile"], found["rounds"], found["bytes_sent"], found["address"]) == ("default", 3, 900, "here:1")
    (home / "swarm" / "default.json").write_text("no", encoding="utf-8")
    assert "damaged" in assert_one_line(cli("swarm", "status"))


def test_strategies_are_those_that_there_are() -> None:
    assert STRATEGIES == aggregate.STRATEGIES


@pytest.mark.parametrize(
    "command",
    [
        "serve --certificate a.pem",
        "serve --least-devices 3 --devices-per-round 2",
        "serve --strategy lottery",
        "join",
        "join here:1 --every 0",
    ],
)
def test_wrong_usage(cli: Cli, command: str) -> None:
    assert_one_line(cli("swarm", *command.split()), 2)


@pytest.fixture
def stranger() -> Iterator[str]:
    """The address of something that answers, but is no server of a swarm."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            body = b'{"round": "\\u001b[2J"}'
            taken, _ = listening.accept()
            with taken:
                taken.recv(4096)
                taken.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        thread.join(10)


def test_a_stranger_has_no_status(cli: Cli, stranger: str) -> None:
    pytest.importorskip("flwr", reason="the swarm needs Flower: pip install 'edgelm[swarm]'")
    assert "none of `edgelm swarm serve`" in assert_one_line(cli("swarm", "status", stranger))


def test_no_address_is_said(cli: Cli, tmp_path: Path) -> None:
    pytest.importorskip("flwr", reason="the swarm needs Flower: pip install 'edgelm[swarm]'")
    assert "no address" in assert_one_line(cli("swarm", "join", "nowhere"))
    (tmp_path / "root.pem").write_text("no certificate", encoding="utf-8")
    found = cli("swarm", "status", "127.0.0.1:9", "--root", tmp_path / "root.pem")
    assert "no certificate that can be used" in assert_one_line(found)
