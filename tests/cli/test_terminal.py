"""``chat`` in a terminal: prompt, commands, interruption."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from edgelm.chat import Chat
from edgelm.cli.chat import _converse
from edgelm.cli.options import Common
from edgelm.config import SampleConfig
from edgelm.runtime import Runtime, RuntimeOptions

Talk = Callable[[str], tuple[Chat, str]]


@pytest.fixture
def talk(tiny_model: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Talk]:
    """Types keys into a chat that learns; gives the chat and what it printed."""
    runtimes: list[Runtime] = []

    def run(keys: str) -> tuple[Chat, str]:
        options = RuntimeOptions(str(tiny_model), seed=1)
        for runtime in runtimes:
            runtime.close()
        runtimes.append(Runtime(options, writable=True))
        chat = Chat(runtimes[-1], SampleConfig(max_tokens=5), learn=True)
        with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
            pipe.send_text(keys)
            _converse(chat, Common(options, json=False, verbose=True))
        return chat, "".join(capsys.readouterr())

    yield run
    for runtime in runtimes:
        runtime.close()


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
    assert [entry.text for entry in chat.runtime.adaptation.entries if entry.text] == []


def test_a_line_that_goes_on(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    turn = Chat.turn
    monkeypatch.setattr(Chat, "turn", lambda chat, text: said.append(text) or turn(chat, text))
    talk("The baker comes \\\nwith rolls\n/quit\n")
    assert said == ["The baker comes \nwith rolls"]


def test_end_of_input_leaves(talk: Talk) -> None:
    assert talk("\x04")[0].turns == []


def test_interruption_at_the_prompt_ends_the_command(talk: Talk) -> None:
    with pytest.raises(KeyboardInterrupt):
        talk("\x03")


def test_interruption_stops_an_answer_and_the_chat_goes_on(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    mix, calls = Runtime.mix_reply, []

    def interrupted(runtime: Runtime, *args: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return mix(runtime, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Runtime, "mix_reply", interrupted)
    chat, printed = talk("One\nTwo\n/quit\n")
    assert "(stopped)" in printed
    assert [turn.learned is not None for turn in chat.turns] == [True, True]
    assert chat.turns[1].tokens > 0
