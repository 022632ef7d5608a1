"""``profile``: what was learned is listed, taken back, moved and deleted."""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edgelm.cli import profile as commands
from edgelm.cli.profile import profile as group
from edgelm.log import database
from edgelm.log.entry import CHAT
from edgelm.log.profile import Profile
from edgelm.model import hub
from edgelm.runtime import Engine
from tests.cli.conftest import Cli
from tests.command import assert_one_line, run_cli
from tests.model_folder import contents, write_tiny_model

LINES = ["My boat is called Heron.", "The wolverine sleeps.", "When does the ferry leave?"]
Say = Callable[..., None]


@pytest.fixture
def say(cli: Cli) -> Say:
    """``say("One", "Two", profile="mine")``: a chat."""

    def run(*lines: str, profile: str = "default", model: Path | None = None) -> None:
        more = {} if model is None else {"model": model}
        args = ["chat", "--json", "--max-tokens", "2", "--seed", "1", "--profile", profile]
        result = cli(*args, input="".join(f"{line}\n" for line in lines), **more)
        assert (result.code, result.stderr) == (0, "")

    return run


@pytest.fixture
def profile(cli: Cli) -> Callable[..., Any]:
    """``profile("log")``: the JSON objects that ``profile log`` prints."""

    def run(*args: object, model: Path | None = None) -> Any:
        more = {} if model is None else {"model": model}
        result = cli("profile", *args, "--json", **more)
        assert (result.code, result.stderr) == (0, "")
        return result.json_lines if args[0] == "log" else result.json

    return run


Ask = Callable[..., Any]


def _sha256(profile: Ask, name: str = "default") -> str:
    found = profile("show", "--profile", name)["weights_sha256"]
    assert re.fullmatch(r"[0-9a-f]{64}", found)
    return str(found)


@pytest.mark.parametrize("command", sorted(group.commands))
def test_help(cli: Cli, command: str) -> None:
    result = cli("profile", command, "--help", model=None)
    assert (result.code, result.stderr) == (0, "")
    assert all(option in result.stdout for option in ("--model", "--profile", "--json"))


def test_all_commands() -> None:
    names = {"list", "show", "log", "rollback", "forget", "rebase", "export", "import", "delete"}
    assert set(group.commands) == names


def test_list(cli: Cli, profile: Ask, say: Say, home: Path) -> None:
    assert profile("list") == {"profiles": []}
    assert cli("profile", "list").stdout.strip() == ""
    assert not home.exists()
    say("Hello")
    say("Hello", profile="me.too")
    rows = profile("list")["profiles"]
    assert [row["name"] for row in rows] == ["default", "me.too"]
    assert sum(row["bytes"] for row in rows) == sum(map(len, contents(home).values()))
    assert "me.too" in cli("profile", "list").stdout


@pytest.mark.jit_only
def test_show(cli: Cli, profile: Ask, say: Say, home: Path) -> None:
    nothing = profile("show")
    assert (nothing["entries"], nothing["last_entry"], nothing["bytes"]) == (0, None, 0)
    assert not home.exists()
    say(*LINES)
    files = contents(home)
    fields = profile("show")
    assert (fields["name"], fields["model"], fields["said"], fields["read"]) == ("default", "tiny", 3, 0)
    assert fields["entries"] == fields["last_entry"] == len(profile("log"))
    assert fields["characters"] == sum(map(len, LINES))
    assert fields["bytes"] == sum(map(len, files.values()))
    assert fields["path"] == str(home / "profiles" / "default.db")
    assert fields["weights_sha256"] != nothing["weights_sha256"]
    assert all(name in cli("profile", "show").stdout for name in fields)
    assert contents(home) == files


def test_log(cli: Cli, profile: Ask, say: Say) -> None:
    assert profile("log") == []
    say(*LINES)
    rows = profile("log")
    assert [row["id"] for row in rows] == list(range(1, len(rows) + 1))
    assert [row["text"] for row in rows if row["kind"] == "chat"] == LINES
    assert [row["kind"] for row in rows] == ["chat"] * 3 + ["consolidation", "checkpoint"]
    for row in rows:
        assert row.keys() >= {"id", "time", "kind", "text"}
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", row["time"])
    assert profile("log", "-n", 2) == rows[-2:]
    assert profile("log", "-n", 99) == rows
    plain = cli("profile", "log").stdout.splitlines()
    assert len(plain) == 5
    assert plain[1].endswith("The wolverine sleeps.")


@pytest.mark.jit_only
def test_a_long_entry_is_shortened_for_people(cli: Cli, profile: Ask, say: Say) -> None:
    text = "The ferry waits. " * 20 + "End"
    say(text)
    assert profile("log")[0]["text"] == text
    assert "End" not in cli("profile", "log").stdout
    assert "End" in cli("profile", "log", "-v").stdout


@pytest.mark.jit_only
@pytest.mark.parametrize("how", [["2"], ["--match", "WOLVERINE "], ["2", "--match", "wolverine"]])
def test_forgetting_is_as_if_it_had_never_been_said(
    cli: Cli, profile: Ask, say: Say, home: Path, how: list[str]
) -> None:
    say(*LINES)
    say(LINES[0], LINES[2], profile="without")
    assert _sha256(profile) != _sha256(profile, "without")
    assert any(b"wolverine" in blob for blob in contents(home).values())
    fields = profile("forget", *how)
    assert (fields["removed"], fields["entries"]) == (1, [2])
    assert fields["weights_sha256"] == _sha256(profile) == _sha256(profile, "without")
    assert not any(b"wolverine" in blob for blob in contents(home).values())
    assert [row["id"] for row in profile("log")] == [1, 3, 4, 5]
    # They go on alike.
    for name in ("default", "without"):
        say("And the fog?", profile=name)
    assert _sha256(profile) == _sha256(profile, "without")
    assert "entry" not in cli("profile", "forget", "1", "3").stdout
    assert cli("profile", "forget", "--match", "fog").stdout == "1 entry removed\n"


def test_forgetting_says_where_the_words_still_are(
    cli: Cli, profile: Ask, say: Say, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(*LINES[:2])
    monkeypatch.setattr(database, "WAIT_SECONDS", 0.01)
    file = home / "profiles" / "default.db"
    journal = f"{file}-wal"

    def holders() -> list[Path]:
        return [path for path, blob in contents(home).items() if b"wolverine" in blob]

    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM log").fetchone()
        assert profile("forget", 2)["still_in"] == journal
        assert cli("profile", "forget", "1").stdout.endswith(f"the words stay in {journal}\n")
        assert holders()
        reader.execute("COMMIT")
        assert "still_in" not in profile("forget", "--match", "wolverine")
        assert not holders()
    assert profile("log")[0]["kind"] != CHAT


def test_forgetting_what_is_not_there(cli: Cli, profile: Ask, say: Say, home: Path) -> None:
    say(LINES[0])
    before, sha256 = contents(home), _sha256(profile)
    assert profile("forget", "--match", "wolverine") == {"removed": 0, "entries": [], "weights_sha256": sha256}
    assert "no entry 9; see `edgelm profile log`" in assert_one_line(cli("profile", "forget", "1", "9"))
    assert contents(home) == before
    for args in ([], ["--match", " "], ["0"], ["one"]):
        assert "--help`" in assert_one_line(cli("profile", "forget", *args), 2)
    assert contents(home) == before


@pytest.mark.jit_only
def test_rollback(cli: Cli, profile: Ask, say: Say, home: Path) -> None:
    nothing = _sha256(profile)
    say(*LINES[:2])
    sha256, last = _sha256(profile), profile("show")["last_entry"]
    files = {path.suffix for path in contents(home)}
    say(LINES[2])
    assert _sha256(profile) != sha256
    fields = profile("rollback", last)
    assert fields["removed"] == len(fields["entries"]) == 3
    assert fields["weights_sha256"] == _sha256(profile) == sha256
    assert {path.suffix for path in contents(home)} == files
    assert profile("rollback", last)["removed"] == 0
    assert profile("rollback", 0)["weights_sha256"] == _sha256(profile) == nothing
    assert profile("log") == []
    assert cli("profile", "rollback", "0").stdout == "0 entries removed\n"


def test_rollback_to_what_is_not_there(cli: Cli, say: Say, home: Path) -> None:
    say(LINES[0])
    before = contents(home)
    assert "no entry 99; see `edgelm profile log`" in assert_one_line(cli("profile", "rollback", "99"))
    for args in ([], ["-1"], ["x"]):
        assert_one_line(cli("profile", "rollback", *args), 2)
    assert contents(home) == before


@pytest.mark.jit_only
def test_a_long_text_is_replayed_once(cli: Cli, profile: Ask, say: Say, home: Path) -> None:
    say("The ferry waits in the fog. " * 40, LINES[1])
    assert list(home.rglob("*.safetensors"))
    profile("forget", 2)
    # The weights after it are kept, since the log ends where weights may be kept.
    (kept,) = home.rglob("*.safetensors")
    assert kept.name == "default.weights-4.safetensors"
    assert "wolverine" not in str(profile("log"))


@pytest.mark.jit_only
def test_rebase(cli: Cli, profile: Ask, say: Say, tmp_path: Path, home: Path) -> None:
    other = write_tiny_model(tmp_path / "other", seed=9, name="other", block_size=24)
    say(*LINES)
    say(*LINES, profile="expected", model=other)
    before = contents(home)
    line = assert_one_line(cli("chat", model=other, input="Hello\n"))
    assert "learned on another model ('tiny')" in line
    assert "edgelm profile rebase" in line
    assert len(profile("log", model=other)) == 5
    assert contents(home) == before
    fields = profile("rebase", model=other)
    assert (fields["from"], fields["to"], fields["entries"]) == ("tiny", "other", 5)
    expected = profile("show", "--profile", "expected", model=other)["weights_sha256"]
    assert fields["weights_sha256"] == profile("show", model=other)["weights_sha256"] == expected
    say("Hello", model=other)
    assert_one_line(cli("profile", "show"))
    assert "entries moved from other to tiny" in cli("profile", "rebase").stdout


@pytest.mark.jit_only
def test_export_and_import(cli: Cli, profile: Ask, say: Say, home: Path, tmp_path: Path) -> None:
    file = tmp_path / "change.safetensors"
    say(*LINES)
    before = contents(home)
    fields = profile("export", file)
    assert (fields["path"], fields["bytes"]) == (str(file), file.stat().st_size)
    assert {"sentences", "completed", "completed_by_base"} <= fields.keys()
    assert "epsilon" not in fields
    assert not any(word.encode() in file.read_bytes() for line in LINES for word in line.split() if len(word) > 3)
    assert contents(home) == before
    taken = profile("import", file, "--profile", "yours")
    assert taken["entries"] == 1
    assert taken["weights_sha256"] == _sha256(profile, "yours") != _sha256(profile)
    assert [row["kind"] for row in profile("log", "--profile", "yours")] == ["import"]
    say("Hello", profile="yours")
    assert "nothing before it can" not in cli("profile", "forget", "2", "--profile", "yours").stderr
    assert "without keeping its words" in assert_one_line(cli("profile", "rebase", "--profile", "yours"))
    assert profile("rollback", "1", "--profile", "yours")["weights_sha256"] == taken["weights_sha256"]


def test_imports_that_are_refused(cli: Cli, say: Say, profile: Ask, home: Path, tmp_path: Path) -> None:
    file = tmp_path / "change.safetensors"
    say(LINES[0])
    cli("profile", "export", file)
    before = contents(home)
    assert "is not empty; import into a new one" in assert_one_line(cli("profile", "import", file))
    assert contents(home) == before
    assert "no such file" in assert_one_line(cli("profile", "import", tmp_path / "none", "--profile", "new"))
    other = write_tiny_model(tmp_path / "other", seed=9)
    line = assert_one_line(cli("profile", "import", file, "--profile", "new", model=other))
    assert "was learned on another model ('tiny')" in line
    file.write_bytes(file.read_bytes()[:-1])
    assert "damaged" in assert_one_line(cli("profile", "import", file, "--profile", "newer"))
    assert profile("show", "--profile", "newer")["entries"] == 0


def test_a_failed_import_takes_nothing_that_somebody_else_made(
    cli: Cli, profile: Ask, home: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(*args: Any, **kwargs: Any) -> Engine:
        # Another process is quicker: it makes the profile after this one was asked for it.
        with closing(Profile(home / "profiles", "new", hub.load(str(tiny_model)), writable=True)) as other:
            other.append(CHAT, "I was here.", time=0)
        return Engine(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(commands, "Engine", late)
        line = assert_one_line(cli("profile", "import", tmp_path / "none", "--profile", "new"))
    assert "is not empty; import into a new one" in line
    assert [row["text"] for row in profile("log", "--profile", "new")] == ["I was here."]


def test_a_failed_import_leaves_nothing(cli: Cli, home: Path, tmp_path: Path) -> None:
    assert "no such file" in assert_one_line(cli("profile", "import", tmp_path / "none", "--profile", "new"))
    assert list((home / "profiles").iterdir()) == []


def test_a_copy_with_a_trigger_is_not_imported(cli: Cli, say: Say, profile: Ask, home: Path, tmp_path: Path) -> None:
    say(LINES[0])
    copy = tmp_path / "copy.db"
    shutil.copy(home / "profiles" / "default.db", copy)
    with closing(sqlite3.connect(copy)) as connection:
        connection.execute(
            "CREATE TRIGGER keeps AFTER DELETE ON log BEGIN "
            "UPDATE meta SET value = old.text WHERE key = 'base_name'; END"
        )
    assert "the trigger 'keeps'" in assert_one_line(cli("profile", "import", copy, "--profile", "new"))
    assert not (home / "profiles" / "new.db").exists()
    shutil.copy(home / "profiles" / "default.db", copy)
    copy.chmod(0o666)
    assert profile("import", copy, "--profile", "new")["entries"] > 0
    assert copy.stat().st_mode & 0o777 == 0o666  # it is only read


def test_what_others_can_write_is_said(cli: Cli, say: Say, home: Path) -> None:
    say(LINES[0])
    file = home / "profiles" / "default.db"
    file.chmod(0o666)
    assert "other users can write default.db" in cli("profile", "log").stderr
    assert "other users could write default.db" in cli("profile", "rollback", "0").stderr
    assert file.stat().st_mode & 0o777 == 0o600
    assert cli("profile", "log").stderr == ""


def test_delete(cli: Cli, say: Say, profile: Ask, home: Path) -> None:
    assert "there is no profile 'default'; see `edgelm profile list`" in assert_one_line(
        cli("profile", "delete", "--yes")
    )
    assert not home.exists()
    for name in ("default", "mine"):
        say(LINES[0], profile=name)
    before = contents(home)
    asked = cli("profile", "delete", input="n\n")
    assert asked.code == 130
    assert "Delete profile 'default' and everything it learned?" in asked.stderr
    assert contents(home) == before
    assert profile("delete") == {"deleted": "default"}
    assert cli("profile", "delete", "--profile", "mine", input="y\n").stdout.endswith("profile 'mine' is deleted\n")
    assert contents(home) == {}
    assert profile("list") == {"profiles": []}


def test_a_damaged_profile_can_be_deleted_alone(cli: Cli, say: Say, home: Path) -> None:
    say(LINES[0])
    file = home / "profiles" / "default.db"
    file.write_bytes(file.read_bytes()[:1500])
    before = contents(home)
    for args in (["show"], ["log"], ["rollback", "0"], ["forget", "1"], ["rebase"], ["export", home / "x"]):
        assert "default.db" in assert_one_line(cli("profile", *args))
    assert contents(home) == before
    assert cli("profile", "delete", "--yes").code == 0
    assert contents(home) == {}


@pytest.mark.jit_only
def test_damaged_weights_are_said_and_replaced(cli: Cli, say: Say, profile: Ask, home: Path) -> None:
    say("The ferry waits in the fog. " * 40)
    sha256 = _sha256(profile)
    (file,) = home.rglob("*.safetensors")
    blob = bytearray(file.read_bytes())
    blob[len(blob) // 2] ^= 1
    file.write_bytes(blob)
    for args in (["profile", "show"], ["chat", "--no-learn", "--max-tokens", "1"]):
        result = cli(*args, input="Hello\n")
        assert result.code == 0
        assert f"{file.name} cannot be used" in result.stderr
        assert result.stderr.count("\n") == 1
    assert sha256 in cli("profile", "show").stdout


@pytest.mark.parametrize(
    "args", [["show"], ["log"], ["rollback", "0"], ["forget", "1"], ["rebase"], ["delete"]], ids=" ".join
)
def test_a_bad_name(cli: Cli, home: Path, args: list[str]) -> None:
    assert "profile name '../up' must be" in assert_one_line(cli("profile", *args, "--profile", "../up"))
    assert not home.exists()


@pytest.mark.jit_only
def test_the_real_command(home: Path, tiny_model: Path) -> None:
    model = ["--model", str(tiny_model), "--json"]
    assert run_cli(["chat", "--max-tokens", "1", *model], "Hello\n").code == 0
    assert run_cli(["profile", "log", *model]).json_lines[0]["text"] == "Hello"
    assert run_cli(["profile", "rollback", "0", *model]).json["removed"] == 3
    assert run_cli(["profile"]).code in (0, 2)
