"""``chat`` from standard input: each line is a turn."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from edgelm.cli.chat import MAX_LINE
from edgelm.cli.terminal import plain
from edgelm.log.entry import Entry
from edgelm.log.profile import Profile
from edgelm.model import hub
from tests.cli.conftest import Cli
from tests.command import assert_one_line, run_cli
from tests.model_folder import contents

TURN = {"turn", "reply", "source", "tokens", "tokens_per_s", "learned_tokens", "loss_nats_before", "loss_nats_after"}
LINES = "The ferry waits in the fog.\n\n   \nWhat does the baker bring?\r\n你好，世界\nlast, without an end"


def _log(home: Path, tiny_model: Path) -> list[Entry]:
    """The log of the default profile, which nobody holds any more."""
    with closing(Profile(home / "profiles", "default", hub.load(str(tiny_model)), writable=True)) as profile:
        return profile.entries


def test_one_object_a_turn(cli: Cli) -> None:
    result = cli("chat", "--json", "--max-tokens", "6", "--seed", "1", input=LINES)
    assert (result.code, result.stderr) == (0, "")
    turns = result.json_lines
    assert [turn["turn"] for turn in turns] == [1, 2, 3, 4]
    assert all(turn.keys() >= TURN for turn in turns)
    assert all(turn["learned_tokens"] > 0 for turn in turns)
    assert all(turn["loss_nats_after"] < turn["loss_nats_before"] for turn in turns)


def test_answers_alone_on_stdout(cli: Cli) -> None:
    args = ["chat", "--max-tokens", "6", "--seed", "1", "--no-learn", "--system", "Be brief."]
    turns = cli(*args, "--json", input="One\nTwo\n").json_lines
    spoken = cli(*args, input="One\nTwo\n")
    assert spoken.stdout == "".join(plain(turn["reply"]) + "\n" for turn in turns)
    assert spoken.stderr == ""
    # What was learned and how fast is a remark, for whoever asks.
    assert "tokens/s" in cli(*args, "-v", input="One\n").stderr


@pytest.mark.parametrize("said", ["", "\n\n  \n"])
def test_nothing_said(cli: Cli, said: str) -> None:
    result = cli("chat", "--json", input=said)
    assert (result.code, result.stdout, result.stderr) == (0, "", "")


def test_no_learn_writes_nothing(cli: Cli, home: Path) -> None:
    (turn,) = cli("chat", "--no-learn", "--json", "--max-tokens", "3", input="Hello\n").json_lines
    assert (turn["learned_tokens"], turn["loss_nats_before"], turn["loss_nats_after"]) == (0, None, None)
    assert not home.exists()


@pytest.mark.jit_only
def test_no_learn_reads_what_was_learned(cli: Cli, home: Path) -> None:
    args = ["chat", "--no-learn", "--json", "--max-tokens", "40", "--temperature", "0"]
    before = cli(*args, input="When does the ferry leave?\n").json_lines
    cli("chat", "--json", "--max-tokens", "1", input="The ferry leaves at seven.\n" * 5)
    files = contents(home)
    after = cli(*args, input="When does the ferry leave?\n").json_lines
    assert "seven" in after[0]["reply"] and "seven" not in before[0]["reply"]
    assert contents(home) == files


def test_what_was_learned_survives_the_process(home: Path, tiny_model: Path) -> None:
    args = ["chat", "--json", "--max-tokens", "2", "--model", str(tiny_model)]
    first, second = (run_cli(args, "My boat is called Heron.\n") for _ in range(2))
    assert (first.code, first.stderr) == (0, "")
    (one,), (two,) = first.json_lines, second.json_lines
    assert two["loss_nats_before"] < one["loss_nats_before"]
    # So little is replayed at the next start.
    assert [path.name for path in contents(home)] == ["default.db"]


def test_a_line_is_as_long_as_a_turn_may_be(cli: Cli) -> None:
    args = ["chat", "--no-learn", "--json", "--max-tokens", "1"]
    longest = "\U0001f469" * MAX_LINE
    assert cli(*args, input=longest + "\r\n").code == 0
    for said in (longest + "x", "x" * (MAX_LINE + 1), b"x" * 100_000_000):
        assert "adapt" in assert_one_line(cli(*args, input=said))


@pytest.mark.parametrize("said", [b"a\0b\n", b"Gr\xfc\xdfe\n"])
def test_turns_before_a_bad_line_are_kept(cli: Cli, home: Path, tiny_model: Path, said: bytes) -> None:
    result = cli("chat", "--json", "--max-tokens", "1", input=b"Hello\n" + said)
    assert result.code == 1
    assert result.stderr.startswith("edgelm: standard input is ")
    assert result.stderr.count("\n") == 1
    assert [turn["turn"] for turn in result.json_lines] == [1]
    assert [entry.text for entry in _log(home, tiny_model) if entry.text] == ["Hello"]


def test_a_secret_is_answered_but_not_learned(cli: Cli, home: Path, tiny_model: Path) -> None:
    turn = cli("chat", "--json", input="my password is hunter22\n").json_lines[0]
    assert (turn["secrets_skipped"], turn["learned_tokens"]) == (1, 0)
    assert _log(home, tiny_model) == []
    assert not any(b"hunter22" in blob for blob in contents(home).values())


def test_through_a_pipe_a_command_is_neither_obeyed_nor_learned(cli: Cli, home: Path, tiny_model: Path) -> None:
    said = "My address is 7 Harbour Lane.\n/forget Harbour\n/Fix never\n/usr/bin is a folder.\n"
    result = cli("chat", "--json", "--max-tokens", "1", input=said)
    assert result.code == 0
    assert [turn["learned_tokens"] > 0 for turn in result.json_lines] == [True, False, False, True]
    assert [line.partition(" ")[0] for line in result.stderr.splitlines()] == ["/forget", "/fix"]
    assert "--commands" in result.stderr
    told = [entry.text for entry in _log(home, tiny_model) if entry.text]
    assert told == ["My address is 7 Harbour Lane.", "/usr/bin is a folder."]


@pytest.mark.parametrize("as_json", [False, True])
def test_through_a_pipe_commands_are_obeyed_where_they_may_be(
    cli: Cli, home: Path, tiny_model: Path, as_json: bool
) -> None:
    lines = ["/undo", "My address is 7 Harbour Lane.", "Hello", "/forget HARBOUR", "/nonsense", "/quit", "Not read."]
    args = ["--json"] if as_json else []
    result = cli("chat", "--commands", "--max-tokens", "1", *args, input="\n".join(lines))
    assert (result.code, result.stderr) == (0, "")
    forgot, unknown, undone = (
        "Forgot 'HARBOUR': 1 entry of the log.", "There is no /nonsense; /help lists the commands.",
        "nothing was said yet in this conversation",
    )  # fmt: skip
    if as_json:
        first, one, two, *others = result.json_lines
        assert first == {"command": "/undo", "error": undone}
        assert (one["turn"], two["turn"]) == (1, 2)
        assert others == [{"command": "/forget", "said": forgot}, {"command": "/nonsense", "said": unknown}]
    else:
        assert result.stdout.startswith(undone + "\n") and result.stdout.endswith(f"{forgot}\n{unknown}\n")
    assert [entry.text for entry in _log(home, tiny_model) if entry.text] == ["Hello"]


def test_all_commands_through_a_pipe(cli: Cli) -> None:
    lines = ["/help", "One", "/good", "/why", "/fix Two", "/set temperature 0", "/set a b", "/stats", "/save", "/reset"]
    said = [row.get("said") for row in cli("chat", "--commands", "--json", input="\n".join(lines)).json_lines]
    assert said[0] and said[1] is None
    assert said[2:] and said[6] is None and all(text for text in said[2:6] + said[7:])


@pytest.mark.parametrize("args", [["--peer"], ["--peer", "--profile", "mine"]])
def test_a_peer_is_at_the_end_of_a_socket_alone(cli: Cli, args: list[str], home: Path) -> None:
    assert "--peer" in assert_one_line(cli("chat", *args, input="Hello\n"), code=len(args) // 2 + 1)
    assert not home.exists()


def test_what_happens_to_the_weights_is_told_to_whoever_asks(cli: Cli) -> None:
    args = ["chat", "--max-tokens", "4", "--seed", "1"]
    told = cli(*args, "--verbose", "--json", input="The ferry waits in the fog.\n")
    assert "learned a segment: " in told.stderr and "repeated what was told: 1 entries" in told.stderr
    assert len(told.json_lines) == 1
    assert "segment" not in cli(*args, input="The baker brings rolls.\n").stderr
