"""Ctrl+C: exit code 130, one clear line, and nothing learned is lost."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgelm.learn.profile import Profile
from edgelm.model import hub, tensorfile
from tests.cli.conftest import Cli
from tests.command import ROOT, Result, assert_one_line
from tests.model_folder import TEXT

PATIENCE_SECONDS = 120
SAVE_OFTEN = """
import edgelm.runtime
edgelm.runtime.SAVE_SECONDS = 0.05
from edgelm.cli.main import main
main()
"""

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(home: Path, tiny_model: Path) -> Iterator[Start]:
    """Starts a command that a test will interrupt; it cannot outlive the test."""
    started: list[tuple[subprocess.Popen[bytes], threading.Timer]] = []

    def run(*args: object, script: str = "") -> subprocess.Popen[bytes]:
        command = [sys.executable, *(["-c", script] if script else ["-m", "edgelm"]), *map(str, args)]
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


def _profile(home: Path, tiny_model: Path) -> Profile:
    """The default profile, which loads and which nobody holds any more."""
    profile = Profile(home / "profiles", "default", hub.load(str(tiny_model)), writable=True)
    profile.close()
    return profile


@pytest.mark.jit_only
@pytest.mark.parametrize("lines", [1, 2000], ids=["waiting", "busy"])
def test_chat(start: Start, home: Path, tiny_model: Path, lines: int) -> None:
    process = start("chat", "--json", "--max-tokens", "20")
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"The ferry waits in the fog.\n" * lines)
    process.stdin.flush()
    turn = json.loads(process.stdout.readline())
    assert "what was learned is kept" in assert_one_line(_interrupt(process), 130)
    assert _profile(home, tiny_model).tokens >= turn["learned_tokens"] > 0


@pytest.mark.jit_only
def test_adapt_goes_on_where_it_was_interrupted(start: Start, cli: Cli, home: Path, tiny_model: Path) -> None:
    text, other = home.with_name("a.txt"), home.with_name("b.txt")
    text.write_text(TEXT * 40, encoding="utf-8")
    other.write_text("The harbour sleeps.\n", encoding="utf-8")
    args = ["adapt", text, other, "--holdout", "0", "--json"]
    process, file = start(*args, script=SAVE_OFTEN), home / "profiles" / "default.safetensors"
    while not file.exists() and process.poll() is None:
        time.sleep(0.01)
    assert "what was learned is kept" in assert_one_line(_interrupt(process), 130)
    first = _profile(home, tiny_model)
    assert first.tokens > 0
    assert first.progress.endswith(f":{first.tokens}")
    second = cli(*args).json
    tokens = cli("evaluate", text, other, "--json").json["tokens"]
    # One more: the id between the two documents, which stands for no line end of a file.
    assert first.tokens + second["tokens"] - tokens in (0, 1)
    assert second["tokens"] > 0
    _, metadata = tensorfile.read(file)
    assert (metadata["tokens"], metadata["progress"]) == (str(first.tokens + second["tokens"]), "")


def test_a_turn_that_is_interrupted_within_learning(
    cli: Cli, home: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    args = ["chat", "--json", "--max-tokens", "1"]
    assert cli(*args, input="Hello\n").code == 0
    file = home / "profiles" / "default.safetensors"
    before = file.read_bytes()
    for place in ("Learner._update", "OrtSession.run"):
        module = {"Learner": "edgelm.learn.learner", "OrtSession": "edgelm.engine.session"}[place.split(".")[0]]
        with monkeypatch.context() as patch:
            patch.setattr(f"{module}.{place}", interrupted)
            assert_one_line(cli(*args, input="Hello again\n"), 130)
        _profile(home, tiny_model)
        # The turn is durable before it is answered, and not before it is learned.
        assert (file.read_bytes() == before) == (place == "Learner._update")
