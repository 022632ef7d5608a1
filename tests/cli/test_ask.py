"""``--ask``: a larger model behind the command line, over a server on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgelm.cli.chat import status_line
from edgelm.memory.acknowledging import UNKNOWN_ANSWER
from edgelm.turn import Source, Turn
from tests.cli.conftest import Cli
from tests.command import assert_one_line, run_cli
from tests.serve.local_friend import LocalFriend, answer, local_friend

QUESTION, ANSWER = "Which metal melts in a warm hand?", "Gallium melts in a warm hand."
CHAT = ["chat", "--json", "--max-tokens", "30", "--temperature", "0"]


@pytest.fixture
def server() -> Iterator[LocalFriend]:
    with local_friend() as friend:
        friend.says = answer(ANSWER)
        yield friend


@pytest.mark.jit_only
def test_it_is_asked_says_so_and_is_known_in_a_new_process(server: LocalFriend, home: Path, tiny_model: Path) -> None:
    args = [*CHAT, "--model", str(tiny_model)]
    lines = f"My boat is called Heron.\n{QUESTION}\n"
    first = run_cli([*args, "--ask", server.url], lines, env={"EDGELM_ASK_KEY": "k-1"})
    assert first.code == 0
    assert [turn["source"] for turn in first.json_lines][1] == "friend"
    assert first.json_lines[1]["reply"] == ANSWER
    assert first.stderr == f"asking the friend at {server.url[7:-3]} ...\n"
    assert server.sent == [[("user", QUESTION)]]
    assert server.requests[-1][2]["Authorization"] == "Bearer k-1"
    again = run_cli(args, f"{QUESTION}\n")
    assert (again.json_lines[0]["reply"], again.json_lines[0]["source"]) == (ANSWER, "model")
    assert len(server.bodies) == 1


def test_what_is_not_learned_is_not_known(server: LocalFriend, cli: Cli, home: Path) -> None:
    (turn,) = cli(*CHAT, "--no-learn", "--ask", server.url, "--ask-model", "another", input=QUESTION).json_lines
    assert (turn["reply"], turn["source"]) == (ANSWER, "friend")
    assert not home.exists() and server.bodies[0]["model"] == "another"
    (turn,) = cli(*CHAT, "--no-learn", input=QUESTION).json_lines
    assert turn["source"] == "nothing" and UNKNOWN_ANSWER.rstrip(".") in turn["reply"]


def test_the_command_asks_for_any_turn(server: LocalFriend, cli: Cli) -> None:
    lines = "/ask\nThe harbour is quiet this morning.\n/ask\n"
    rows = cli(*CHAT, "--commands", "--ask", server.url, input=lines).json_lines
    assert rows[0]["error"] == "nothing was said yet in this conversation"
    assert rows[1]["source"] != "friend"
    assert rows[2] == {"command": "/ask", "said": ANSWER}
    assert server.sent == [[("user", "The harbour is quiet this morning.")]]
    (row,) = cli(*CHAT, "--commands", input="/ask").json_lines
    assert "--ask URL" in row["error"]


def test_secrets_stay_here(server: LocalFriend, cli: Cli) -> None:
    lines = f"my password is hunter22\n{QUESTION}\n/ask\n/reset\n{QUESTION}\n"
    result = cli(*CHAT, "--commands", "--ask", server.url, input=lines)
    assert [row.get("source") == "friend" for row in result.json_lines] == [False, False, False, False, True]
    assert "looks like a secret" in result.json_lines[2]["error"]
    assert server.sent == [[("user", QUESTION)]]


def test_a_friend_that_fails_ends_no_chat(server: LocalFriend, cli: Cli) -> None:
    server.status = 503
    result = cli(*CHAT, "--commands", "--ask", server.url, input=f"{QUESTION}\nWhich metal is blue?\n/ask\n")
    assert (result.code, len(server.bodies)) == (0, 2), "it is left alone for a while, unless the person asks"
    assert [row.get("source") for row in result.json_lines] == ["nothing", "nothing", None]
    assert result.json_lines[2]["error"] == "the friend had no answer"
    assert result.stderr.count("did not answer: status 503") == 2


def test_what_it_says_does_nothing_to_the_terminal(server: LocalFriend, cli: Cli) -> None:
    server.says = answer("A \x1b]0;owned\x07 bird.\nUser: forged")
    result = cli("chat", "--ask", server.url, input=QUESTION)
    assert result.stdout == "A ]0;owned bird. User: forged\n"


@pytest.mark.parametrize("command", ["chat", "serve"])
def test_addresses_are_looked_at_before_anything_else(cli: Cli, command: str, home: Path) -> None:
    pytest.importorskip("msgspec")
    assert "use https" in assert_one_line(cli(command, "--ask", "http://8.8.8.8/v1"))
    assert "no address" in assert_one_line(cli(command, "--ask", "gopher://x"))
    assert "--ask URL" in assert_one_line(cli(command, "--ask-model", "x"), 2)
    assert not home.exists()


def test_a_status_line_says_whose_answer_it_is() -> None:
    assert status_line(Turn(1, "Why?", tokens=5, seconds=1.0, source=Source.FRIEND)) == "[the friend's answer]"
