"""Every command: its help, and the fields of ``--json`` that docs and scripts count on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgelm import __version__
from edgelm.cli.main import LazyGroup
from edgelm.cli.terminal import plain
from tests.cli.conftest import Cli
from tests.command import assert_one_line
from tests.model_folder import TEXT, contents

COMMANDS = LazyGroup().list_commands(None)  # type: ignore[arg-type]
GROUPS = {"models", "pack", "profile", "swarm"}
"""Commands that only hold other commands; those have the options."""
SCORE = {"bytes", "tokens", "bits_per_byte", "awake_fraction", "seconds", "bytes_per_s"}
ADAPTED = {
    "tokens", "seconds", "tokens_per_s", "bits_per_byte_before", "bits_per_byte_after", "general_before",
    "general_after", "profile_bytes",
    "secrets_skipped",
}  # fmt: skip


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in GROUPS])
def test_help(cli: Cli, command: str) -> None:
    result = cli(command, "--help", model=None)
    assert (result.code, result.stderr) == (0, "")
    assert result.stdout.startswith("Usage: ")
    for option in ("--model", "--profile", "--threads", "--seed", "--json", "--verbose"):
        assert option in result.stdout


@pytest.mark.parametrize("args", [[], ["--help"], ["-h"]])
def test_help_of_all(cli: Cli, args: list[str]) -> None:
    result = cli(*args, model=None)
    assert (result.code, result.stderr) == (0, "")
    assert all(command in result.stdout for command in COMMANDS)


def test_version(cli: Cli) -> None:
    assert cli("--version", model=None).stdout == f"edgelm, version {__version__}\n"


def test_info(cli: Cli, tiny_model: Path, home: Path) -> None:
    fields = cli("info", "--json").json
    assert {"version", "model", "parameters", "port"} <= fields.keys()
    assert (fields["version"], fields["model"]) == (__version__, "tiny")
    assert fields["model_bytes"] == sum(map(len, contents(tiny_model).values()))
    assert fields["profile"] == str(home / "profiles" / "default.db")
    assert fields["profile_bytes"] == 0
    assert not home.exists()
    text = cli("info").stdout
    assert all(name in text for name in fields)


def test_complete(cli: Cli) -> None:
    fields = cli("complete", "The ferry", "-n", "12", "--seed", "3", "--json").json
    assert isinstance(fields["text"], str)
    assert cli("complete", "The ferry", "-n", "12", "--seed", "3").stdout == plain(fields["text"]) + "\n"
    assert cli("complete", "The ferry", "-n", "12", "--temperature", "0", "--json", "--threads", "2").code == 0


def test_choose(cli: Cli) -> None:
    args = ["choose", "The ferry leaves", "-c", "at seven", "-c", "never", "-c", "at 7"]
    for more in ([], ["--as-reply"]):
        ranking = cli(*args, *more, "--json").json["ranking"]
        assert {row["text"] for row in ranking} == {"at seven", "never", "at 7"}
        values = [row["log_probability"] for row in ranking]
        assert values == sorted(values, reverse=True)
        assert max(values) < 0
    plain = cli(*args).stdout.splitlines()
    assert len(plain) == 3


def test_evaluate(cli: Cli, text: Path, home: Path) -> None:
    fields = cli("evaluate", text, "--json").json
    assert fields.keys() >= SCORE
    assert fields["bytes"] == text.stat().st_size
    assert 0 < fields["awake_fraction"] <= 1
    assert 5 < fields["bits_per_byte"] < 20
    again = cli("evaluate", "-", "--json", input=TEXT).json
    assert again["bits_per_byte"] == fields["bits_per_byte"]
    assert f"{fields['bits_per_byte']:.4f}" in cli("evaluate", text).stdout
    assert not home.exists()


def test_evaluate_several_files(cli: Cli, text: Path) -> None:
    other = text.with_name("other.md")
    other.write_text("A note.\n", encoding="utf-8")
    fields = cli("evaluate", text, other, "--json").json
    assert [row["path"] for row in fields["files"]] == [str(text), str(other)]
    assert fields["bytes"] == sum(row["bytes"] for row in fields["files"])
    assert fields["tokens"] == sum(row["tokens"] for row in fields["files"])
    bits = sum(row["bits_per_byte"] * row["bytes"] for row in fields["files"])
    assert fields["bits_per_byte"] == pytest.approx(bits / fields["bytes"], abs=1e-4)
    assert cli("evaluate", text.parent, "--json").json["bytes"] == fields["bytes"]


def test_evaluate_with_fewer_blocks(cli: Cli, text: Path) -> None:
    fractions = [cli("evaluate", text, "--blocks", n, "--json").json["awake_fraction"] for n in (1, 2, 4)]
    assert fractions[0] < fractions[1] < fractions[2]
    assert fractions[1] == cli("evaluate", text, "--json").json["awake_fraction"]


def test_evaluate_while_learning_keeps_nothing(cli: Cli, text: Path, home: Path) -> None:
    plain, learned = cli("evaluate", text, "--json").json, cli("evaluate", text, "--learn", "--json").json
    assert learned.keys() == plain.keys()
    assert learned["tokens"] == plain["tokens"]
    assert learned["bits_per_byte"] < plain["bits_per_byte"]
    assert not home.exists()


@pytest.mark.jit_only
def test_adapt(cli: Cli, text: Path, home: Path) -> None:
    fields = cli("adapt", text, "--json").json
    assert fields.keys() == ADAPTED
    assert fields["tokens"] > 0
    assert fields["bits_per_byte_after"] < fields["bits_per_byte_before"]
    assert fields["profile_bytes"] >= sum(map(len, contents(home).values())) > 0
    then = cli("adapt", "-", "--json", "--profile", "default", input=TEXT).json
    assert then["bits_per_byte_before"] < fields["bits_per_byte_before"]
    assert cli("info", "--json").json["profile_bytes"] == sum(map(len, contents(home).values()))


@pytest.mark.jit_only
def test_adapt_without_holdout_learns_all(cli: Cli, text: Path) -> None:
    chat = text.with_name("chat.json")
    chat.write_text(json.dumps([{"role": "user", "content": "Where is the baker?"}]), encoding="utf-8")
    tokens = cli("evaluate", text, chat, "--json").json["tokens"]
    fields = cli("adapt", text, chat, "--holdout", "0", "--json").json
    assert fields["bits_per_byte_before"] is None
    # One more: the id between the two documents, in the place of a line end.
    assert tokens <= fields["tokens"] <= tokens + 1
    assert "learned" in cli("adapt", chat, "--profile", "other").stdout


@pytest.mark.jit_only
def test_adapt_can_keep_none_of_the_words(cli: Cli, text: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # So little is gained here that rounding to integers would hide it.
    monkeypatch.setenv("EDGELM_GRAPH", "float32")

    def weights() -> list[bytes]:
        return [path.read_bytes() for path in sorted(home.rglob("*.safetensors"))]

    score = cli("evaluate", text, "--json").json["bits_per_byte"]
    cli("adapt", text, "--no-log")
    first = weights()
    assert not any(b"ferry" in blob for blob in contents(home).values())
    assert cli("evaluate", text, "--json").json["bits_per_byte"] < score
    cli("chat", "--max-tokens", "1", input="Hello\n")
    cli("adapt", text, "--no-log")
    assert len(first) == 1
    assert weights()[0] == first[0] != weights()[1]
    log = cli("profile", "log", "--json").json_lines
    assert [row["text"] for row in log if row["text"]] == ["Hello"]
    assert [row["kind"] for row in log].count("unlogged") == 2
    assert "tokens whose words were not kept" in log[0]["note"]
    assert "words of entry 5 were not kept" in assert_one_line(cli("profile", "forget", "--match", "hello"))


@pytest.mark.jit_only
def test_profiles_are_apart(cli: Cli, text: Path, home: Path) -> None:
    cli("adapt", text, "--profile", "one", "--json")
    scores = {name: cli("evaluate", text, "--profile", name, "--json").json["bits_per_byte"] for name in ("one", "two")}
    assert scores["one"] < scores["two"]
    assert [path.name for path in home.rglob("*.db")] == ["one.db"]


def test_suggest(cli: Cli) -> None:
    rows = cli("suggest", "The ferry leaves the", "-k", "3", "--json").json["suggestions"]
    assert len(rows) == 3
    assert all(row.keys() == {"word", "probability"} and 0 < row["probability"] < 1 for row in rows)
    assert cli("suggest", "The ferry leaves the", "-k", "3").stdout.count("\n") == 3


def test_suggest_completes_a_word_that_is_begun(cli: Cli) -> None:
    words = [row["word"] for row in cli("suggest", "--begun", "The ferry leaves the isl", "--json").json["suggestions"]]
    assert words
    assert all(word.startswith("isl") for word in words)
    first = [row["word"] for row in cli("suggest", "--begun", "Th", "--json").json["suggestions"]]
    assert first
    assert all(word.startswith("Th") for word in first)
    # Where no word is begun it is what it is without the option.
    for text in ("The ferry leaves the ", "The ferry leaves,"):
        assert cli("suggest", "--begun", text, "--json").json == cli("suggest", text, "--json").json


def test_fill(cli: Cli) -> None:
    text = "The ferry [...] the island at seven."
    fields = cli("fill", text, "-k", "3", "--json").json
    rows = fields["fills"]
    assert len({row["text"] for row in rows}) == 3
    assert all(row.keys() == {"text", "log_probability"} and row["log_probability"] < 0 for row in rows)
    values = [row["log_probability"] for row in rows]
    assert values == sorted(values, reverse=True)
    assert fields["text"] == text.replace("[...]", rows[0]["text"])
    lines = cli("fill", text, "-k", "3").stdout.splitlines()
    assert [line.split(maxsplit=1)[1] for line in lines] == [plain(row["text"]) for row in rows]
    single = cli("fill", text, "-k", "32", "--words", "1", "--json").json["fills"]
    assert not any(" " in row["text"] for row in single)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "none"),
        ("The ferry leaves.", "none"),
        ("The [...] leaves [...].", "2 of them"),
        (" [...]\n", "around the blank"),
    ],
)
def test_fill_needs_one_blank(cli: Cli, text: str, says: str) -> None:
    line = assert_one_line(cli("fill", text))
    assert "[...]" in line
    assert says in line


def test_fill_finds_no_word(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgelm.engine.fill.STEPS", 0)
    assert "no word was found" in assert_one_line(cli("fill", "The [...] leaves."))


@pytest.mark.jit_only
def test_fill_knows_what_was_learned(cli: Cli, text: Path) -> None:
    args = ["fill", "The ferry leaves the island at [...] in the morning", "-k", "1", "--words", "1", "--json"]
    assert cli(*args).json["fills"][0]["text"] != "seven"
    cli("adapt", text, "--holdout", "0", "--json")
    assert cli(*args).json["fills"][0]["text"] == "seven"
