"""Bad input ends in one clear line and exit code 1, and leaves every file as it was."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgelm.text import files
from tests.cli.conftest import Cli
from tests.command import ROOT, Result, assert_one_line, run_cli
from tests.model_folder import contents, write_tiny_model

BAD_TEXTS = {
    "missing.txt": None,
    "empty.txt": b"",
    "binary.txt": b"\x7fELF\0\0",
    "latin1.txt": b"Gr\xfc\xdfe",
    "cut.json": b'[{"role": "us',
    "deep.json": b"[" * 100_000,
}


@pytest.fixture
def learned(cli: Cli, home: Path) -> Path:
    """The data folder of somebody who has learned something."""
    assert cli("chat", "--json", "--max-tokens", "1", input="The ferry waits.\n").code == 0
    return home


@pytest.mark.parametrize("name", BAD_TEXTS)
@pytest.mark.parametrize("command", [["evaluate"], ["adapt"], ["evaluate", "--learn"]], ids=" ".join)
def test_bad_texts(cli: Cli, tmp_path: Path, command: list[str], name: str) -> None:
    good, bad = tmp_path / "texts" / "good.txt", tmp_path / "texts" / name
    good.parent.mkdir()
    good.write_text("A good text.\n", encoding="utf-8")
    if BAD_TEXTS[name] is not None:
        bad.write_bytes(BAD_TEXTS[name])
    before = contents(tmp_path)
    assert name in assert_one_line(cli(*command, good, bad))
    assert contents(tmp_path) == before


@pytest.mark.parametrize("command", ["evaluate", "adapt"])
def test_bad_standard_input(cli: Cli, home: Path, command: str) -> None:
    for said in (b"", b" \n", b"a\0b", b"\xff"):
        assert "standard input" in assert_one_line(cli(command, "-", input=said))
    assert not home.exists()


def test_a_line_of_100_mb(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "line.txt"
    with path.open("wb") as file:
        file.truncate(100_000_000)
    assert "larger than 64 MiB" in assert_one_line(cli("adapt", path))
    assert path.stat().st_size == 100_000_000


def test_a_long_line_that_is_allowed(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "line.txt"
    path.write_text("no end " * 20_000, encoding="utf-8")
    assert cli("evaluate", path, "--json").json["bytes"] == 140_000
    monkeypatch.setattr(files, "MAX_BYTES", 100_000)
    assert "cut it into smaller files" in assert_one_line(cli("evaluate", path))


@pytest.mark.parametrize("file", ["weights.safetensors", "tokenizer.json", "learning.safetensors", "config.json"])
@pytest.mark.parametrize("command", [["info"], ["chat"], ["complete", "a"], ["export", "DIR"]], ids=" ".join)
def test_a_truncated_model(cli: Cli, tiny_model: Path, home: Path, command: list[str], file: str) -> None:
    folder = home.with_name("model")
    shutil.copytree(tiny_model, folder)
    (folder / file).write_bytes((folder / file).read_bytes()[:-20])
    before = contents(folder.parent)
    args = [str(home.with_name("exported")) if word == "DIR" else word for word in command]
    assert file in assert_one_line(cli(*args, model=folder, input="Hello\n"))
    assert contents(folder.parent) == before


@pytest.mark.parametrize("name", ["", "nosuch", "~nobody-of-that-name", "x" * 5000, "\udcff"])
def test_no_such_model(cli: Cli, name: str) -> None:
    assert_one_line(cli("info", "--model", name, model=None))


@pytest.mark.parametrize(
    "command", [["chat"], ["chat", "--no-learn"], ["complete", "a"], ["evaluate", "-"]], ids=" ".join
)
def test_a_profile_of_another_model(cli: Cli, learned: Path, tmp_path: Path, command: list[str]) -> None:
    other = write_tiny_model(tmp_path / "other", seed=9)
    before = contents(learned)
    line = assert_one_line(cli(*command, model=other, input="Hello\n"))
    assert "was learned on another model ('tiny')" in line
    assert contents(learned) == before


@pytest.mark.parametrize("command", [["chat"], ["chat", "--no-learn"], ["adapt", "-"], ["evaluate", "-"]], ids=" ".join)
def test_a_truncated_profile(cli: Cli, learned: Path, command: list[str]) -> None:
    path = learned / "profiles" / "default.db"
    path.write_bytes(path.read_bytes()[:-1024])
    before = contents(learned)
    assert "move the file away" in assert_one_line(cli(*command, input="Hello\n"))
    assert contents(learned) == before


@pytest.mark.parametrize("command", ["chat", "info", "adapt -"])
@pytest.mark.parametrize("name", ["../up", "a/b", "", "x" * 65])
def test_a_bad_profile_name(cli: Cli, home: Path, command: str, name: str) -> None:
    result = cli(*command.split(), "--profile", name, input="Hello\n")
    if command != "info":
        assert "profile name" in assert_one_line(result)
    assert not home.exists()


@pytest.mark.parametrize("place", ["home", "home/profiles"])
def test_a_file_in_place_of_the_data_folder(cli: Cli, home: Path, place: str) -> None:
    file = home.parent / place
    file.parent.mkdir(exist_ok=True)
    file.write_text("a file", encoding="utf-8")
    for command in ("chat", "adapt -"):
        assert "cannot be written" in assert_one_line(cli(*command.split(), input="Hello\n"))
    # Who does not learn needs no folder.
    assert cli("chat", "--no-learn", "--max-tokens", "1", input="Hello\n").code == 0
    assert cli("info").code == 0
    assert file.read_text(encoding="utf-8") == "a file"


@pytest.mark.jit_only
def test_a_full_disk(cli: Cli, learned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        result = cli("adapt", "-", "--holdout", "0", input="The baker comes. " * 100)
        assert "the disk is full: make room and try again" in assert_one_line(result)
    # The words are in the log; the weights that could not be written are computed again.
    assert not list(learned.rglob("*.safetensors"))
    assert "The baker comes." in cli("profile", "log").stdout
    assert cli("chat", "--max-tokens", "1", input="Hello\n").code == 0


HOLD = """
import sys
from edgelm.runtime import Engine, EngineOptions
with Engine(EngineOptions(model=sys.argv[1]), writable=True):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_on_the_same_profile(cli: Cli, learned: Path, tiny_model: Path) -> None:
    before, pipe = contents(learned), subprocess.PIPE
    command = [sys.executable, "-c", HOLD, str(tiny_model)]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=ROOT) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        for args in ("chat", "adapt -"):
            assert "in use by another edgelm" in assert_one_line(cli(*args.split(), input="Hello\n"))
        assert cli("chat", "--no-learn", "--max-tokens", "1", input="Hello\n").code == 0
        assert cli("chat", "--profile", "mine", "--max-tokens", "1", input="Hello\n").code == 0
        holder.communicate()
    assert contents(learned).items() >= before.items()


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["chat", "--nosuch"], "--nosuch"),
        (["nosuch"], "nosuch"),
        (["evaluate"], "Missing argument"),
        (["choose", "a"], "Missing option"),
        (["complete", "a", "--temperature", "warm"], "warm"),
        (["info", "--threads", "0"], "--threads"),
        (["adapt", "-", "--holdout", "1"], "--holdout"),
        (["export", "x", "--quantize", "int3"], "int3"),
    ],
)
def test_wrong_usage(cli: Cli, args: list[str], says: str) -> None:
    line = assert_one_line(cli(*args, model=None), 2)
    assert says in line
    assert "--help`" in line


@pytest.mark.parametrize(
    "args",
    [
        ["complete", "a", "--temperature", "nan"],
        ["complete", "a\udcffb"],
        ["chat", "--max-tokens", "0"],
        ["chat", "--system", "\udcff"],
        ["choose", "a", "-c", "b", "-c", " "],
        ["choose", "a", "-c", "\udcff"],
        ["fill", "a [...] \udcff"],
        ["fill", "\udcff [...] a"],
        ["evaluate", "-", "--blocks", "0"],
        ["evaluate", "-", "--blocks", "5"],
    ],
)
def test_values_that_cannot_work(cli: Cli, args: list[str]) -> None:
    assert_one_line(cli(*args, input="Hello\n"))


def test_memory_that_runs_out(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("edgelm.model.hub.load", greedy)
    assert "not enough memory" in assert_one_line(cli("info"))


def _closed(home: Path, tiny_model: Path, *args: str) -> Result:
    """Runs ``edgelm ARGS`` whose last word is a redirection of the shell."""
    *words, redirection = args
    line = f'exec "$0" -m edgelm {" ".join(words)} --model "$1" {redirection}'
    command = ["/bin/sh", "-c", line, sys.executable, str(tiny_model)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    return Result(done.returncode, done.stdout, done.stderr)


def test_closed_streams(home: Path, tiny_model: Path) -> None:
    assert _closed(home, tiny_model, "chat", "--no-learn", "<&-") == Result(0, "", "")
    assert "standard input: empty" in assert_one_line(_closed(home, tiny_model, "evaluate", "-", "<&-"))
    assert _closed(home, tiny_model, "info", ">&-") == Result(0, "", "")
    assert "No space left" in assert_one_line(_closed(home, tiny_model, "info", ">/dev/full"))


def test_a_reader_that_has_gone(home: Path, tiny_model: Path) -> None:
    assert _closed(home, tiny_model, "complete", "a", "| true") == Result(0, "", "")


def test_the_real_command_says_one_line_too(home: Path, tmp_path: Path) -> None:
    assert "no model" in assert_one_line(run_cli(["info", "--model", str(tmp_path)]))
    assert run_cli(["chat", "--nosuch"]).code == 2
