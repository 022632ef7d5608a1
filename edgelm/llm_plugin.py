"""edgelm as a model of Simon Willison's ``llm`` (https://llm.datasette.io), in the process of ``llm`` itself.

``llm`` imports this module at every start, so it imports the engine only when the model is asked.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import llm
from pydantic import Field

from edgelm.config import SampleConfig
from edgelm.errors import EdgelmError

if TYPE_CHECKING:
    from edgelm.conversation import Conversation
    from edgelm.runtime import Engine

Exchanges = list[tuple[str, str]]


class Options(llm.Options):
    """What ``llm -o NAME VALUE`` sets."""

    temperature: float | None = Field(default=None, ge=0, le=10, description="0 takes the likeliest; default 0.5")
    max_tokens: int | None = Field(default=None, ge=1, le=100_000, description="tokens of an answer; default 120")
    seed: int | None = Field(default=None, ge=0, description="the same seed, the same answer")
    learn: bool | None = Field(default=None, description="learn what you write; default false")
    profile: str | None = Field(default=None, description="whose learning to use and to add to; default: default")
    model_path: str | None = Field(default=None, description="another model: its name or folder")


@dataclass
class _Opened:
    """An engine, and the conversation that was answered last, which the next turn may go on."""

    engine: Engine
    writable: bool
    last: Conversation | None = None


class _Engines:
    """The engines of this process, by model and profile: each is opened once, and closed when the process ends."""

    def __init__(self) -> None:
        self._opened: dict[tuple[str | None, str], _Opened] = {}
        self._lock = threading.Lock()

    def get(self, model_path: str | None, profile: str, *, learn: bool) -> _Opened:
        """That of a model and a profile; one that only read is opened anew if it shall learn."""
        with self._lock:
            key = (model_path, profile)
            opened = self._opened.get(key)
            if opened is not None and (opened.writable or not learn):
                return opened
            if opened is not None:
                del self._opened[key]
                opened.engine.close()
            if not self._opened:
                atexit.register(self.close)
            self._opened[key] = opened = _Opened(_open(model_path, profile, learn=learn), learn)
            return opened

    def close(self) -> None:
        """Keeps what was learned, and lets other processes use the profiles."""
        with self._lock:
            opened = list(self._opened.values())
            self._opened.clear()
            atexit.unregister(self.close)
        with ExitStack() as stack:
            for one in opened:
                stack.callback(one.engine.close)
                if one.writable:
                    stack.callback(one.engine.finish)


_ENGINES = _Engines()
close: Callable[[], None] = _ENGINES.close
"""Closes all engines, before the process ends; the next prompt opens them again."""


def _open(model_path: str | None, profile: str, *, learn: bool) -> Engine:
    from edgelm import ports
    from edgelm.runtime import Engine, EngineOptions

    options = EngineOptions(model_path, profile, ports.detect().threads)
    engine = Engine(options, writable=learn, fixed=not learn)
    try:
        engine.adaptation.catch_up()
    except BaseException:
        engine.close()
        raise
    return engine


class Edgelm(llm.Model):
    """The model ``edgelm``."""

    model_id = "edgelm"
    can_stream = True
    Options = Options

    def execute(
        self, prompt: Any, stream: bool, response: Any, conversation: Any
    ) -> Iterator[str]:  # fmt: skip
        """Yields the answer to the last message of a prompt, as it comes.

        Raises
        ------
        llm.ModelError
            Model, profile or prompt cannot be used.
        """
        options: Options = prompt.options
        system, history, text = conversation_of(prompt)
        learn = bool(options.learn)
        try:
            opened = _ENGINES.get(options.model_path, options.profile or "default", learn=learn)
            talk = _talk(opened, system, history, _sampling(options), learn=learn)
            if options.seed is not None:
                import numpy as np

                talk.rng = np.random.default_rng(options.seed)
            pieces = talk.turn(text)
            try:
                yield from pieces
            finally:
                pieces.close()
            opened.last = talk
        except (EdgelmError, OSError) as exc:
            raise llm.ModelError(str(exc)) from exc
        turn = talk.turns[-1]
        response.set_usage(input=turn.prompt_tokens, output=turn.tokens)
        response.response_json = {
            "source": str(turn.source), "entries": turn.entry_ids, "secrets_skipped": turn.secrets_skipped,
        }  # fmt: skip


def _sampling(options: Options) -> SampleConfig:
    given = {"temperature": options.temperature, "max_tokens": options.max_tokens}
    return SampleConfig(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]


def _talk(opened: _Opened, system: str, history: Exchanges, sampling: SampleConfig, *, learn: bool) -> Conversation:
    """The conversation that the turn goes on: the last one, if these were its turns, or one that reads them."""
    from edgelm.conversation import Conversation

    last, opened.last = opened.last, None
    if last is not None and history and (last.system, last.exchanges) == (system, history):
        last.sampling, last.learn = sampling, learn
        return last
    talk = Conversation(opened.engine, sampling, learn=learn, system=system)
    if history:
        talk.resume(history)
    return talk


def conversation_of(prompt: Any) -> tuple[str, Exchanges, str]:
    """The system's text, the turns before the last with their answers, and the last turn of the person.

    Raises
    ------
    llm.ModelError
        The prompt does not end with some text of the person.
    """
    system: list[str] = []
    turns: Exchanges = []
    for message in prompt.messages:
        text = "".join(getattr(part, "text", None) or "" for part in message.parts).strip()
        if message.role == "system":
            system.append(text)
        elif message.role == "user":
            turns.append((text, ""))
        elif message.role == "assistant" and text:
            asked = turns.pop()[0] if turns and not turns[-1][1] else ""
            turns.append((asked, text))
    if not turns or turns[-1][1] or not turns[-1][0]:
        raise llm.ModelError("edgelm answers some text of yours; the prompt ends with none")
    return "\n".join(system), turns[:-1], turns[-1][0]


@llm.hookimpl
def register_models(register: Callable[..., None]) -> None:
    """Called by ``llm`` when it starts."""
    register(Edgelm())
