"""Ctrl+C: exit code 130, one clear line, and nothing learned is lost."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from edgelm.log.entry import CHAT, CHECKPOINT, Entry
from edgelm.log.profile import Profile
from edgelm.model import hub
from edgelm.text.files import PIECE
from tests.cli.conftest import Cli
from tests.command import ROOT, Result, assert_one_line
from tests.model_folder import TEXT

PATIENCE_SECONDS = 120
Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(home: Path, tiny_model: Path) -> Iterator[Start]:
    """Starts a command that a test will interrupt; it cannot outlive the test."""
    started: list[tuple[subprocess.Popen[bytes], threading.Timer]] = []

    def run(*args: object) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "edgelm", *map(str, args)]
        # A test run in the background of a shell ignores the signal, and children inherit that.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        process = subprocess.Popen([*command, "--model", str(tiny_model)], cwd=ROOT, **pipes)
        signal.signal(signal.SIGINT, before)
        watchdog = threading.Timer(PATIENCE_SECONDS, process.kill)
        watchdog.start()
        started.append((process, watchdog))
        return process

    yield run
    for process, watchdog in started:
        watchdog.cancel()
        process.kill()
        process.communicate()


def _interrupt(process: subprocess.Popen[bytes]) -> Result:
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate()
    return Result(process.returncode, "", stderr.decode())


def _log(home: Path, tiny_model: Path) -> list[Entry]:
    """The log of the default profile, which loads and which nobody holds any more."""
    with closing(Profile(home / "profiles", "default", hub.load(str(tiny_model)), writable=True)) as profile:
        return profile.entries


@pytest.mark.jit_only
@pytest.mark.parametrize("lines", [1, 2000], ids=["waiting", "busy"])
def test_chat(start: Start, home: Path, tiny_model: Path, lines: int) -> None:
    process = start("chat", "--json", "--max-tokens", "20")
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"The ferry waits in the fog.\n" * lines)
    process.stdin.flush()
    turn = json.loads(process.stdout.readline())
    assert turn["learned_tokens"] > 0
    assert "what was learned is kept" in assert_one_line(_interrupt(process), 130)
    entries = _log(home, tiny_model)
    assert {entry.text for entry in entries if entry.kind == CHAT} == {"The ferry waits in the fog."}
    # The session was ended, not cut off: its weights are those of the log.
    assert entries[-1].kind == CHECKPOINT


@pytest.mark.jit_only
def test_adapt_goes_on_where_it_was_interrupted(start: Start, cli: Cli, home: Path, tiny_model: Path) -> None:
    text, other = home.with_name("a.txt"), home.with_name("b.txt")
    text.write_text(TEXT * 40, encoding="utf-8")
    other.write_text("The harbour sleeps.\n", encoding="utf-8")
    args = ["adapt", text, other, "--holdout", "0", "--json"]
    process, wal = start(*args), home / "profiles" / "default.db-wal"
    while not (wal.exists() and wal.stat().st_size > PIECE) and process.poll() is None:
        time.sleep(0.01)
    assert "what was learned is kept" in assert_one_line(_interrupt(process), 130)
    first = [entry for entry in _log(home, tiny_model) if entry.kind == "text"]
    assert first
    second = cli(*args).json
    entries = _log(home, tiny_model)
    # Each piece once, in order, as if nobody had interrupted it.
    learned = "".join(entry.text for entry in entries)
    assert learned.startswith(TEXT * 39)
    assert learned.endswith("The harbour sleeps.\n")
    assert learned.count("The ferry leaves the island") == 40
    assert second["tokens"] > 0
    assert len({entry.conversation for entry in entries if entry.text}) == 1
    # The whole of it was learned: the next time begins anew.
    cli(*args[:1], other, *args[3:])
    assert len(_log(home, tiny_model)) > len(entries)


def test_a_turn_that_is_interrupted(cli: Cli, home: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    args = ["chat", "--json", "--max-tokens", "1", "--no-bank"]
    for i, place in enumerate(("edgelm.learn.learner.Learner._update", "edgelm.engine.sharing.DialogueSession.run")):
        with monkeypatch.context() as patch:
            patch.setattr(place, interrupted)
            assert_one_line(cli(*args, input=f"Hello {i}\n"), 130)
        # What was said is durable before it is learned, and learned before it is answered.
        assert [entry.text for entry in _log(home, tiny_model) if entry.kind == CHAT][-1] == f"Hello {i}"
    assert cli(*args, input="Hello again\n").code == 0
