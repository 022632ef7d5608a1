"""``chat``: in a terminal with a prompt, otherwise each line of standard input is a turn."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import click

from edgelm.cli.options import Common, common
from edgelm.config import LearnConfig, SampleConfig
from edgelm.errors import ConfigError, EdgelmError, InputError
from edgelm.runtime import Chat, Runtime, Turn

MAX_LINE = 20_000
_TOO_LONG = f"a turn of more than {MAX_LINE:,} characters; use `edgelm adapt` for long texts"
HELP = """\
/help            this list
/reset           begin a new conversation; what was learned stays
/stats           what was learned so far
/set NAME VALUE  temperature, top_p, repetition_penalty or max_tokens
/save            write the profile now (every turn does)
/quit            leave (also Ctrl+D)
A line that ends in \\ goes on in the next. Ctrl+C stops an answer."""


@click.command()
@click.option("--no-learn", is_flag=True, help="Answer only; the profile is read, not changed.")
@click.option("--system", default="", help="A text that stands before the conversation.")
@click.option("--temperature", type=float, default=0.5, show_default=True, help="0: always the likeliest.")
@click.option("--max-tokens", type=int, default=120, show_default=True, help="Tokens of an answer at most.")
@common
def chat(no_learn: bool, system: str, temperature: float, max_tokens: int, common: Common) -> None:
    """Talk with a model that learns from what you write while it answers."""
    sampling = SampleConfig(temperature=temperature, max_tokens=max_tokens)
    with Runtime(common.runtime, LearnConfig(), writable=not no_learn) as runtime:
        talk = Chat(runtime, sampling, learn=not no_learn, system=system)
        if sys.stdin.isatty() and sys.stdout.isatty() and not common.json:
            _converse(talk, common)
        else:
            for line in _lines():
                _answer(talk, line, common)


def _lines() -> Iterator[str]:
    # Never more of a line than a turn can hold, were it gigabytes long.
    longest = 4 * MAX_LINE + len("\r\n")
    while raw := sys.stdin.buffer.readline(longest):
        if len(raw) == longest and not raw.endswith(b"\n"):
            raise InputError(_TOO_LONG)
        try:
            line = raw.decode("utf-8").strip()
        except UnicodeDecodeError:
            raise InputError("standard input is not UTF-8 text; convert it first") from None
        if "\0" in line:
            raise InputError("standard input is binary, not text")
        if line:
            yield line


def _answer(talk: Chat, text: str, common: Common) -> None:
    if len(text) > MAX_LINE:
        raise InputError(_TOO_LONG)
    with closing(talk.turn(text)) as pieces:
        for piece in pieces:
            if not common.json:
                click.echo(piece, nl=False)
    turn = talk.turns[-1]
    if common.json:
        click.echo(json.dumps(turn.to_json(), ensure_ascii=False))
    else:
        click.echo()
        common.note(status_line(turn))


def status_line(turn: Turn) -> str:
    """Speed, and what the turn taught."""
    skipped = " | looks like a secret: not learned" if turn.secrets_skipped else ""
    speed = f"{turn.tokens / turn.seconds:.0f} tokens/s" if turn.seconds and turn.tokens else "no answer"
    if turn.learned is None:
        return f"[{speed}{skipped}]"
    bits = turn.learned.loss_before * turn.learned.tokens / 0.6931
    gained = turn.learned.bits_gained
    return f"[{speed} | learned {turn.learned.tokens} tokens: {bits:.0f} bits before, {bits - gained:.0f} now{skipped}]"


def _converse(talk: Chat, common: Common) -> None:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import InMemoryHistory

    session: PromptSession[str] = PromptSession(history=InMemoryHistory())
    model = talk.runtime.model
    click.echo(f"{model.name}, {model.n_parameters / 1e6:.1f} M parameters. /help lists the commands, Ctrl+D leaves.")
    if talk.learn:
        common.note("loading the learning kernels (compiled the first time, which takes a while) ...")
        talk.runtime.prepare_to_learn()
    while True:
        try:
            text = session.prompt("> ")
            while text.endswith("\\"):
                text = text[:-1] + "\n" + session.prompt("  ")
        except EOFError:
            return
        if not text.strip():
            continue
        try:
            if text.startswith("/"):
                if not _command(talk, text.strip()):
                    return
            else:
                _answer(talk, text, common)
        except KeyboardInterrupt:
            click.echo("\n(stopped)")
        except EdgelmError as exc:
            click.echo(str(exc), err=True)


def _command(talk: Chat, text: str) -> bool:
    """Runs a slash command; False ends the chat."""
    name, _, rest = text.partition(" ")
    if name == "/quit":
        return False
    if name == "/help":
        click.echo(HELP)
    elif name == "/reset":
        talk.reset()
        click.echo("A new conversation; what was learned stays.")
    elif name == "/save":
        click.echo(f"{talk.runtime.save():,} bytes written.")
    elif name == "/stats":
        _stats(talk)
    elif name == "/set":
        _set(talk, rest)
    else:
        click.echo(f"There is no {name}; /help lists the commands.")
    return True


def _stats(talk: Chat) -> None:
    learned = [turn.learned for turn in talk.turns if turn.learned]
    gained = sum(item.bits_gained for item in learned)
    total = talk.runtime.profile.tokens if talk.runtime.profile else 0
    here = sum(item.tokens for item in learned)
    click.echo(f"This chat: {here} tokens learned, {gained:.0f} bits gained. The profile: {total:,} tokens.")


def _set(talk: Chat, words: str) -> None:
    name, _, value = words.partition(" ")
    kinds = {"temperature": float, "top_p": float, "repetition_penalty": float, "max_tokens": int}
    try:
        if name not in kinds:
            raise ConfigError(f"/set knows {', '.join(kinds)}")
        talk.sampling = replace(talk.sampling, **{name: kinds[name](value)})
        click.echo(f"{name} is {value}.")
    except (ValueError, ConfigError) as exc:
        click.echo(str(exc))
