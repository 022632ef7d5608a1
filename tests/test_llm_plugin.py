"""edgelm as a model of ``llm``: with the real package, in this process and through its command line."""

from __future__ import annotations

import configparser
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from tests.command import ROOT

llm = pytest.importorskip("llm")
pytest.importorskip("llm.plugins")

QUESTION, ANSWER = "What is my boat called?", "Your boat is called Heron."
COMMAND = """
import sys
import llm.cli
from llm.plugins import load_plugins, pm
load_plugins()
if not pm.has_plugin("edgelm"):
    import edgelm.llm_plugin
    pm.register(edgelm.llm_plugin, "edgelm")
assert "edgelm.runtime" not in sys.modules, "it is light until it is asked"
llm.cli.cli()
"""
"""``python -m llm``, with the plugin of this source tree where what is installed does not name it."""
Llm = Callable[..., str]


@pytest.fixture
def user_path(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of ``llm``'s own log, and ``EDGELM_HOME``."""
    folder = tmp_path / "llm"
    monkeypatch.setenv("LLM_USER_PATH", str(folder))
    return folder


@pytest.fixture
def model(user_path: Path) -> Iterator[Any]:
    """The model as ``llm`` gives it; engines that it opened are closed."""
    from llm.plugins import load_plugins, pm

    load_plugins()
    plugin = pytest.importorskip("edgelm.llm_plugin")
    added = not pm.has_plugin("edgelm")
    if added:
        pm.register(plugin, "edgelm")
    yield llm.get_model("edgelm")
    plugin.close()
    if added:
        pm.unregister(plugin)


@pytest.fixture
def command(user_path: Path, tiny_model: Path) -> Llm:
    """``command("-m", "edgelm", "Hello")``: what it prints, in a process of its own."""

    def run(*args: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-c", COMMAND, *args], cwd=ROOT, env=os.environ, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stderr

    return run


def test_the_entry_point_is_this_module() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    assert config["options.entry_points"]["llm"].split() == ["edgelm", "=", "edgelm.llm_plugin"]
    for point in entry_points(group="llm", name="edgelm"):
        assert point.value == "edgelm.llm_plugin"


def test_it_answers_in_pieces_and_says_what_it_read(model: Any, tiny_model: Path, home: Path) -> None:
    given = {"model_path": str(tiny_model), "seed": 3, "temperature": 1.0, "max_tokens": 12}
    response = model.prompt("Qwx zzkt blorp.", system="Be brief.", **given)
    pieces = list(response)
    assert "".join(pieces) == response.text() == model.prompt("Qwx zzkt blorp.", system="Be brief.", **given).text()
    assert response.usage().input > 0
    assert response.response_json["entries"] == [] and response.response_json["source"]
    assert not home.exists(), "nothing is learned"


def test_a_conversation_goes_on(model: Any, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgelm.conversation import Conversation

    resumed: list[Any] = []
    resume = Conversation.resume
    monkeypatch.setattr(Conversation, "resume", lambda talk, said: resumed.append(list(said)) or resume(talk, said))
    talk, given = model.conversation(), {"model_path": str(tiny_model), "max_tokens": 30}
    first = talk.prompt("My boat is called Heron.", system="Be brief.", **given).text()
    assert talk.prompt(QUESTION, **given).text() == ANSWER
    assert resumed == [], "the conversation was kept"
    other = model.conversation()
    other.prompt("Hello", **given).text()
    second = talk.prompt("Thank you", **given).text()
    assert resumed == [[("My boat is called Heron.", first), (QUESTION, ANSWER)]]
    assert [r.text() for r in talk.responses] == [first, ANSWER, second]


def test_what_is_learned_is_known_and_secrets_are_not(model: Any, tiny_model: Path, home: Path) -> None:
    plugin = sys.modules["edgelm.llm_plugin"]
    given = {"model_path": str(tiny_model), "max_tokens": 30}
    model.prompt("Hello", **given).text()
    response = model.prompt("My boat is called Heron.", learn=True, profile="mine", **given)
    response.text()
    assert response.response_json["entries"] == [1]
    secret = model.prompt("my password is hunter22", learn=True, profile="mine", **given)
    secret.text()
    assert (secret.response_json["entries"], secret.response_json["secrets_skipped"]) == ([], 1)
    assert model.prompt(QUESTION, profile="mine", **given).text() == ANSWER
    assert model.prompt(QUESTION, **given).text() != ANSWER, "another profile"
    plugin.close()
    assert model.prompt(QUESTION, profile="mine", **given).text() == ANSWER, "it was kept"
    model.prompt("My cat is called Plum.", profile="mine", learn=True, **given).text()
    assert "Plum" in model.prompt("What is my cat called?", profile="mine", **given).text()
    assert b"hunter22" not in (home / "profiles" / "mine.db").read_bytes()


@pytest.mark.parametrize(
    ("given", "why"),
    [({"profile": "../x"}, "profile name"), ({"model_path": "no-such-model"}, "no-such-model")],
)
def test_errors_are_those_of_llm(model: Any, tiny_model: Path, given: dict[str, str], why: str) -> None:
    with pytest.raises(llm.ModelError, match=why):
        model.prompt("Hello", **({"model_path": str(tiny_model)} | given)).text()


def test_a_prompt_without_words_and_a_profile_in_use(model: Any, tiny_model: Path, home: Path) -> None:
    from edgelm.runtime import Engine, EngineOptions

    with pytest.raises(llm.ModelError, match="some text"):
        model.prompt(" ", model_path=str(tiny_model)).text()
    with Engine(EngineOptions(str(tiny_model)), writable=True), pytest.raises(llm.ModelError):
        model.prompt("Hello", model_path=str(tiny_model), learn=True).text()
    assert model.prompt("Hello", model_path=str(tiny_model), learn=True, max_tokens=2).text() is not None


def test_options_out_of_bounds_are_refused(model: Any) -> None:
    for given in ({"temperature": -1}, {"max_tokens": 0}, {"seed": -1}, {"colour": "red"}):
        with pytest.raises(ValueError, match=next(iter(given))):
            model.prompt("Hello", **given)


def test_the_command_line(command: Llm, tiny_model: Path) -> None:
    options = ["-o", "model_path", str(tiny_model), "-o", "max_tokens", "30"]
    assert "Edgelm: edgelm" in command("models")
    assert "learn what you write" in command("models", "--options", "-m", "edgelm")
    command("-m", "edgelm", *options, "-o", "learn", "true", "My boat is called Heron.")
    assert command("-m", "edgelm", *options, QUESTION).strip() == ANSWER, "a new process, another conversation"
    assert command("-c", *options, "Hello").strip()
    rows = json.loads(command("logs", "--json", "-n", "2"))
    assert {row["conversation_id"] for row in rows} == {rows[0]["conversation_id"]}
    assert rows[0]["response_json"]["source"] == "told"
    assert command("-m", "edgelm", *options, "-o", "profile", "a b", "Hello", code=1).startswith("Error: profile name")


def test_edgelm_itself_does_not_need_it() -> None:
    script = "import sys, edgelm.cli.chat, edgelm.cli.serve; assert not {'llm', 'pydantic'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=120)
