"""``chat`` in a terminal: prompt, commands, interruption; and text from elsewhere, which may do nothing to it."""

from __future__ import annotations

import ast
import io
import json
import os
import pty
import select
import subprocess
import sys
import traceback
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prompt_toolkit import history
from prompt_toolkit.application import create_app_session
from prompt_toolkit.history import DummyHistory
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from edgelm.cli.chat import _converse
from edgelm.cli.options import Common
from edgelm.cli.terminal import Filtered, filter_streams, plain, remark, unfiltered
from edgelm.config import SampleConfig
from edgelm.conversation import Conversation
from edgelm.engine.generate import Mix
from edgelm.runtime import Engine, EngineOptions
from edgelm.turn import Turn
from tests.cli.conftest import Cli
from tests.command import assert_one_line

Talk = Callable[[str], tuple[Conversation, str]]
ROOT = Path(__file__).resolve().parents[2]
EVIL = (
    "\x1b]0;owned\x07\x1b[31mred\x9b2J\x9d52;c;aGk=\x9c"
    "\u202egnp.exe\u2066\u200f\u061c\x7f\rGr\u00fc\u00dfe \u4f60\u597d"
)
"""The title of a window, a colour, the C1 forms of both and of the clipboard, marks of direction; then words."""


@pytest.fixture
def talk(tiny_model: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Talk]:
    """Types keys into a chat that learns; gives the chat and what it printed."""
    engines: list[Engine] = []

    def run(keys: str) -> tuple[Conversation, str]:
        options = EngineOptions(str(tiny_model), seed=1)
        for engine in engines:
            engine.close()
        engines.append(Engine(options, writable=True))
        chat = Conversation(engines[-1], SampleConfig(max_tokens=5), learn=True)
        with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
            pipe.send_text(keys)
            _converse(chat, Common(options, json=False, verbose=True))
        return chat, "".join(capsys.readouterr())

    yield run
    for engine in engines:
        engine.close()


def test_a_turn_says_what_it_taught(talk: Talk) -> None:
    chat, printed = talk("The ferry waits.\n/quit\n")
    assert len(chat.turns) == 1
    learned = chat.turns[0].learned
    assert learned is not None
    assert f"learned {learned.tokens} tokens" in printed


def test_commands(talk: Talk) -> None:
    chat, printed = talk(
        "/help\n/set temperature 0\n/set top_p 7\n/set colour red\n/nonsense\nHello\n/stats\n/save\n/reset\n\n/quit\n"
    )
    assert chat.sampling.temperature == 0
    for words in ("this list", "top_p must be", "/set knows", "There is no /nonsense", "The profile has", "A new conv"):
        assert words in printed
    assert f"This chat: {chat.turns[0].learned.tokens} tokens learned" in printed  # type: ignore[union-attr]
    assert "The profile: 1 entries" in printed


@pytest.mark.jit_only
def test_taking_back(talk: Talk) -> None:
    chat, printed = talk(
        "/undo\n/good\nOne\n/good\n/fix Two it is\n/why\nThree\n/undo\n/forget wolverine\n/forget ONE\n/forget\n/quit\n"
    )
    for words in (
        "nothing was said yet",
        "Learned that answer.",
        "Learned your answer.",
        "Forgot that turn: 1 entry of the log.",
        "Forgot 'wolverine': 0 entries of the log.",
        "Forgot 'ONE': 3 entries of the log.",
        "say which words to forget",
    ):
        assert words in printed
    assert "#" in printed or "Nothing that you said moved this answer" in printed
    assert [entry.text for entry in chat.engine.adaptation.entries if entry.text] == []


def test_a_line_that_goes_on(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    turn = Conversation.turn
    monkeypatch.setattr(Conversation, "turn", lambda chat, text: said.append(text) or turn(chat, text))
    talk("The baker comes \\\nwith rolls\n/quit\n")
    assert said == ["The baker comes \nwith rolls"]


def test_end_of_input_leaves(talk: Talk) -> None:
    assert talk("\x04")[0].turns == []


def test_interruption_at_the_prompt_ends_the_command(talk: Talk) -> None:
    with pytest.raises(KeyboardInterrupt):
        talk("\x03")


def test_interruption_stops_an_answer_and_the_chat_goes_on(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    new_mix, calls = Engine.new_mix, []

    def interrupted(engine: Engine, before: Sequence[int] = (), *, as_reply: bool = False) -> Mix:
        mix = new_mix(engine, before, as_reply=as_reply)

        def wrapped(ids: Sequence[int], probabilities: np.ndarray) -> np.ndarray:
            calls.append(1)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return mix(ids, probabilities)

        return wrapped

    monkeypatch.setattr(Engine, "new_mix", interrupted)
    chat, printed = talk("One\nTwo\n/quit\n")
    assert "(stopped)" in printed
    assert [turn.learned is not None for turn in chat.turns] == [True, True]
    assert chat.turns[1].tokens > 0


def test_what_was_said_and_cannot_be_shown_is_not_brought_back(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    offered: list[list[str]] = []
    monkeypatch.setattr(history, "InMemoryHistory", lambda said: offered.append(said) or DummyHistory())
    chat, _ = talk("\x1b[200~turn \u202e around\x1b[201~\nOne\n/quit\n")
    assert [turn.text for turn in chat.turns] == ["turn \u202e around", "One"]
    assert offered == [[], [], ["One"]]


def assert_harmless(text: str) -> None:
    """No character of the text is one that a terminal obeys or cannot show."""
    bad = [c for c in text if c not in "\n\t\u200c\u200d" and unicodedata.category(c)[0] == "C"]
    assert not bad and not {"\u2028", "\u2029"} & set(text), repr(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Gr\u00fc\u00dfe, \u4f60\u597d \u05e9\u05dc\u05d5\u05dd e\u0301 \u00a0\u3000 \u20ac\n\t.", None),
        ("\U0001f469\u200d\U0001f680 \u0646\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \u2764\ufe0f", None),
        ("\x1b]0;t\x07", r"\u001b]0;t\u0007"),
        ("a\x00\x08\r\x7fb", r"a\u0000\u0008\u000d\u007fb"),
        ("\x9b31m\x85", r"\u009b31m\u0085"),
        ("\u202a\u202e\u2066\u2069\u200e\u200f\u061c", r"\u202a\u202e\u2066\u2069\u200e\u200f\u061c"),
        ("\u2028\u2029\u200b\ufeff", r"\u2028\u2029\u200b\ufeff"),
        ("\ud800 \ue000 \U000e0041", r"\ud800 \ue000 \udb40\udc41"),
    ],
)  # fmt: skip
def test_what_is_shown_as_it_is_and_what_is_escaped(text: str, shown: str | None) -> None:
    assert plain(text) == (text if shown is None else shown)


@given(st.text(st.characters(codec=None)))
def test_nothing_that_steers_is_left_and_pieces_are_the_whole(text: str) -> None:
    assert_harmless(plain(text))
    assert "".join(map(plain, text)) == plain(text)
    assert json.loads(plain(json.dumps({"text": text}, ensure_ascii=False))) == json.loads(json.dumps({"text": text}))


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_an_encoding_lacks_is_escaped_too(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    blob = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(blob, encoding=encoding))
    filter_streams()
    click.echo(json.dumps("\u00fc \u4f60 \U0001f469 \x9b", ensure_ascii=False))
    assert json.loads(blob.getvalue().decode(encoding)) == "\u00fc \u4f60 \U0001f469 \x9b"


@pytest.mark.parametrize(
    "way",
    [
        lambda: click.echo(EVIL),
        lambda: click.echo(EVIL, err=True),
        lambda: print(EVIL),
        lambda: print(EVIL, file=sys.stderr),
        lambda: sys.stdout.write(EVIL),
        lambda: sys.stderr.writelines([EVIL]),
        lambda: traceback.print_exception(ValueError(EVIL)),
        lambda: remark(EVIL),
        lambda: Common(EngineOptions(), json=False, verbose=True).emit({}, EVIL),
        lambda: Common(EngineOptions(), json=True, verbose=True).emit({"text": EVIL}, ""),
        lambda: Common(EngineOptions(), json=True, verbose=True).note(EVIL),
    ],
)
def test_whatever_prints_goes_through_the_filter(
    way: Callable[[], object], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, getattr(sys, name))
    filter_streams()
    filter_streams()
    assert not isinstance(unfiltered(sys.stdout), Filtered)
    way()
    printed = "".join(capsys.readouterr())
    assert_harmless(printed)
    assert "gnp.exe" in printed and "Gr\u00fc\u00dfe \u4f60\u597d" in printed


def test_log_names_and_errors_do_not_reach_the_terminal_as_they_are(cli: Cli, tmp_path: Path) -> None:
    assert cli("adapt", "-", "--holdout", "0", input=f"The ferry {EVIL} waits.\n").code == 0
    results = [cli("profile", "log", *args) for args in ([], ["-v"], ["--json"])]
    assert EVIL.partition("\r")[0] in "".join(row["text"] for row in results[-1].json_lines)
    path = tmp_path / EVIL.replace("/", "")
    path.write_text("The ferry waits in the fog.\n")
    results += [cli("evaluate", path), cli("evaluate", path, path, "--json")]
    assert results[-1].json["files"][0]["path"] == str(path)
    results += [cli("complete", "x", "--model", EVIL, model=None), cli("profile", "show", "--profile", EVIL), cli(EVIL)]
    for result in results:
        assert_harmless(result.stdout + result.stderr)
    for result in results[-3:]:
        assert_one_line(result, result.code)


def test_an_answer_is_filtered_piece_by_piece_and_kept_as_it_was(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def turn(chat: Conversation, text: str) -> Iterator[str]:
        chat.turns.append(Turn(1, text, EVIL))
        yield from EVIL

    monkeypatch.setattr(Conversation, "turn", turn)
    spoken = cli("chat", input="Hello\n")
    assert (spoken.code, spoken.stdout) == (0, plain(EVIL) + "\n")
    written = cli("chat", "--json", input="Hello\n")
    assert_harmless(written.stdout)
    assert written.json["reply"] == EVIL


_XTERM = {"TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"}


def _type(arguments: list[str], keys: list[tuple[bytes, bytes]]) -> bytes:
    """Runs the command in a terminal: waits for each text, then types the keys; all that it wrote."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "edgelm", *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | _XTERM
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        written, seen = b"", 0
        for awaited, typed in [*keys, (b"\0never", b"")]:
            while (found := written.find(awaited, seen)) < 0:
                if not select.select([ours], [], [], 120)[0]:
                    process.kill()
                    pytest.fail(f"{awaited!r} did not come: {written!r}")
                try:
                    written += os.read(ours, 1 << 16)
                except OSError:  # it has ended
                    os.close(ours)
                    return written
            seen = found + len(awaited)
            os.write(ours, typed)
    raise AssertionError


def test_own_colours_and_the_prompt_work_and_pasted_escapes_do_not(tiny_model: Path, home: Path) -> None:
    pasted = b"\x1b[200~/x\x1b]0;owned\x07\x1b[201~\r"
    written = _type(
        ["chat", "--no-learn", "--max-tokens", "2", "--model", str(tiny_model)],
        [(b"\x1b[?2004h", pasted), (b"\x1b[?2004h", b"Hello\r"), (b"\x1b[?2004h", b"/quit\r")],
    )
    assert rb"There is no /x\u001b]0;owned\u0007; /help" in written
    assert b"\x1b]0;" not in written and b"\x07" not in written
    assert b"\x1b[?2004h" in written and b"\x1b[2m[" in written and b"tokens/s]\x1b[0m" in written


def test_own_progress_bar_works(tiny_model: Path, home: Path, tmp_path: Path) -> None:
    path = tmp_path / "a\x1b]0;owned\x07.txt"
    path.write_text("The ferry waits in the fog.\n" * 400)
    written = _type(["evaluate", str(path), "--model", str(tiny_model)], [])
    assert b"scoring" in written and b"\x1b[2K" in written
    assert b"\x1b]0;" not in written and rb"a\u001b]0;owned\u0007.txt" in written


AROUND = {
    "edgelm/cli/terminal.py": {"unfiltered", "setattr"},
    "edgelm/cli/options.py": {"unfiltered"},
    "edgelm/cli/chat.py": {"unfiltered"},
}
"""Where something may be written around the filter: by the filter, to the progress bar, to the prompt."""


_HARMLESS = ("isatty", "flush", "fileno", "write")
_DEVICES = ("/dev/tty", "/dev/stdout", "/dev/stderr")
_CALLS = ("os.write(", "os.fdopen(1", "os.fdopen(2", "open(1", "open(2", "setattr(sys,")


def _ways_around(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        text = ast.unparse(node) if isinstance(node, ast.Attribute | ast.Call) else ""
        if isinstance(node, ast.Attribute):
            of_stream = text.startswith(("sys.stdout.", "sys.stderr."))
            if node.attr in ("__stdout__", "__stderr__", "unfiltered") or (of_stream and node.attr not in _HARMLESS):
                yield node.attr
        elif isinstance(node, ast.Call):
            if text.startswith(_CALLS):
                yield text.partition("(")[0]
            elif text.startswith(("Console(", "create_output(")) and "unfiltered(" not in text:
                yield text
        elif isinstance(node, ast.Name) and node.id == "unfiltered":
            yield node.id
        elif isinstance(node, ast.Constant) and node.value in _DEVICES:
            yield str(node.value)
        elif isinstance(node, ast.Assign) and {"sys.stdout", "sys.stderr"} & set(map(ast.unparse, node.targets)):
            yield "assignment"


def test_nothing_in_the_source_goes_around_the_filter() -> None:
    found = {}
    for path in (ROOT / "edgelm").rglob("*.py"):
        if ways := set(_ways_around(ast.parse(path.read_bytes()))):
            found[path.relative_to(ROOT).as_posix()] = ways
    assert found == AROUND
    for source in (
        "sys.stdout.buffer.write(b'x')", "print(x, file=sys.__stderr__)", "os.write(1, x)", "open('/dev/tty')",
        "Console(stderr=True)", "sys.stdout = x", "unfiltered(sys.stdout).write(x)", "stream.unfiltered.write(x)",
        "os.fdopen(1)", "open(2)",
    ):  # fmt: skip
        assert list(_ways_around(ast.parse(source))), source
