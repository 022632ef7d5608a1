"""``chat``: in a terminal with a prompt, otherwise each line of standard input is a turn."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import closing
from dataclasses import replace

import click

from edgelm.chat import Chat, Turn
from edgelm.cli.options import Common, catch_up, common
from edgelm.config import LearnConfig, SampleConfig
from edgelm.errors import ConfigError, EdgelmError, InputError
from edgelm.learn.entry import CHAT
from edgelm.learn.worker import Job
from edgelm.runtime import Runtime

MAX_LINE = 20_000
IDLE_SECONDS = 20.0
"""After so long without a word, what was said is consolidated."""
READING_SECONDS = 1.0
"""How long the status line waits for what it tells."""
_TOO_LONG = f"a turn of more than {MAX_LINE:,} characters; use `edgelm adapt` for long texts"
HELP = """\
/help            this list
/good            the last answer was good: it is learned too
/fix TEXT        what the last answer should have been; asked the same again, it says so
/undo            take the last turn back, and what was learned from it
/forget WORDS    forget everything you said that holds these words
/why             which of your words moved the last answer most
/stats           what was learned so far
/reset           begin a new conversation; what was learned stays
/set NAME VALUE  temperature, top_p, repetition_penalty or max_tokens
/save            keep the weights now (your words are kept at once)
/quit            leave (also Ctrl+D)
A line that ends in \\ goes on in the next. Ctrl+C stops an answer."""


@click.command()
@click.option("--no-learn", is_flag=True, help="Answer only; the profile is read, not changed.")
@click.option("--no-bank", is_flag=True, help="Answer without the bank of exchanges that comes with edgelm.")
@click.option("--system", default="", help="A text that stands before the conversation.")
@click.option("--temperature", type=float, default=0.5, show_default=True, help="0: always the likeliest.")
@click.option("--max-tokens", type=int, default=120, show_default=True, help="Tokens of an answer at most.")
@common
def chat(no_learn: bool, no_bank: bool, system: str, temperature: float, max_tokens: int, common: Common) -> None:
    """Talk with a model that learns from what you write while it answers."""
    sampling = SampleConfig(temperature=temperature, max_tokens=max_tokens)
    in_terminal = sys.stdin.isatty() and sys.stdout.isatty() and not common.json
    options = replace(common.runtime, bank=not no_bank)
    with Runtime(options, LearnConfig(), writable=not no_learn, idle_seconds=IDLE_SECONDS, fixed=no_learn) as runtime:
        talk = Chat(runtime, sampling, learn=not no_learn, system=system, patient=not in_terminal)
        if in_terminal:
            if runtime.profile is not None and runtime.profile.problem:
                common.note(runtime.profile.problem, always=True)
            _converse(talk, common)
        else:
            catch_up(runtime, common)
            try:
                for line in _lines():
                    _answer(talk, line, common)
            finally:
                talk.close()


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
        if turn.learning is not None:
            # The person reads meanwhile; what takes longer is shown below the prompt.
            wait([turn.learning], timeout=READING_SECONDS)
        common.note(status_line(turn))


def status_line(turn: Turn) -> str:
    """Speed, and what the turn taught."""
    skipped = " | looks like a secret: not learned" if turn.secrets_skipped else ""
    speed = f"{turn.tokens / turn.seconds:.0f} tokens/s" if turn.seconds and turn.tokens else "no answer"
    if turn.learning is not None and not turn.learning.done():
        return f"[{speed} | still learning{skipped}]"
    if turn.learned is None:
        return f"[{speed}{skipped}]"
    bits = turn.learned.loss_before * turn.learned.tokens / 0.6931
    gained = turn.learned.bits_gained
    return f"[{speed} | learned {turn.learned.tokens} tokens: {bits:.0f} bits before, {bits - gained:.0f} now{skipped}]"


def _converse(talk: Chat, common: Common) -> None:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import InMemoryHistory

    runtime = talk.runtime

    def below() -> str:
        if runtime.worker.is_resting:
            return "the device is hot: learning waits, what you said is kept"
        return "learning ..." if runtime.worker.is_busy else ""

    session: PromptSession[str] = PromptSession(bottom_toolbar=lambda: below() or None)
    click.echo(
        f"{runtime.model.name}, {runtime.model.n_parameters / 1e6:.1f} M parameters. "
        "/help lists the commands, Ctrl+D leaves."
    )
    ready = runtime.worker.call(lambda _: _make_ready(talk))
    ready.add_done_callback(lambda _: session.app.invalidate())
    while True:
        # What was said before can be brought back with the arrow keys; what was forgotten cannot.
        said = [entry.text for entry in runtime.adaptation.entries if entry.kind == CHAT]
        session.history = session.default_buffer.history = InMemoryHistory(said)
        try:
            text = session.prompt("> ")
            while text.endswith("\\"):
                text = text[:-1] + "\n" + session.prompt("  ")
        except EOFError:
            break
        if not text.strip():
            continue
        try:
            if text.startswith("/"):
                if not _command(talk, text.strip()):
                    break
            else:
                _answer(talk, text, common)
        except KeyboardInterrupt:
            click.echo("\n(stopped)")
        except EdgelmError as exc:
            click.echo(str(exc), err=True)
    if runtime.adaptation.is_restless:
        common.note("keeping what you said (Ctrl+C: next time) ...")
    talk.close()


def _make_ready(talk: Chat) -> None:
    adaptation = talk.runtime.adaptation
    adaptation.catch_up(aside=True)
    if talk.learn:
        adaptation.prepare()


def _command(talk: Chat, text: str) -> bool:
    """Runs a slash command; False ends the chat."""
    name, _, rest = text.partition(" ")
    commands: dict[str, Callable[[], None]] = {
        "/help": lambda: click.echo(HELP),
        "/good": lambda: _say(talk.approve(), "Learned that answer."),
        "/fix": lambda: _say(talk.correct(rest), "Learned your answer."),
        "/undo": lambda: _removed(talk.undo(), "that turn"),
        "/forget": lambda: _removed(talk.forget(rest), repr(rest.strip())),
        "/why": lambda: _why(talk),
        "/stats": lambda: _stats(talk),
        "/set": lambda: _set(talk, rest),
        "/reset": lambda: _reset(talk),
        "/save": lambda: _save(talk),
    }
    if name == "/quit":
        return False
    if name in commands:
        commands[name]()
    else:
        click.echo(f"There is no {name}; /help lists the commands.")
    return True


def _say(job: Job, text: str) -> None:
    job.result()
    click.echo(text)


def _removed(ids: list[int], what: str) -> None:
    click.echo(f"Forgot {what}: {len(ids)} {'entry' if len(ids) == 1 else 'entries'} of the log.")


def _why(talk: Chat) -> None:
    for line in talk.sources():
        click.echo(line)
    rows = [item for item in talk.why() if abs(item.bits) >= 0.05][:5]
    if not rows and not talk.sources():
        click.echo("Nothing that you said moved this answer; it is the model's own.")
    for item in rows:
        said = " ".join(item.entry.text.split())[:60]
        parts = f"words {item.bits_fast:+.1f}, weights {item.bits_slow:+.1f}"
        click.echo(f"{item.bits:+7.1f} bits  ({parts})  #{item.entry.id} {said}")


def _reset(talk: Chat) -> None:
    talk.reset()
    click.echo("A new conversation; what was learned stays.")


def _save(talk: Chat) -> None:
    runtime = talk.runtime
    runtime.worker.call(lambda _: runtime.adaptation.settle()).result()
    click.echo(f"The profile has {runtime.profile.n_bytes if runtime.profile else 0:,} bytes.")


def _stats(talk: Chat) -> None:
    learned = [turn.learned for turn in talk.turns if turn.learned]
    gained, here = sum(item.bits_gained for item in learned), sum(item.tokens for item in learned)
    entries = [entry for entry in talk.runtime.adaptation.entries if entry.text]
    total = sum(len(talk.runtime.tokenizer.encode(entry.text)) for entry in entries)
    click.echo(
        f"This chat: {here} tokens learned, {gained:.0f} bits gained. "
        f"The profile: {len(entries)} entries, {total:,} tokens."
    )


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
