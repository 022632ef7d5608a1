"""``chat``: in a terminal with a prompt, otherwise each line of standard input is a turn."""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import closing
from dataclasses import replace

import click

from edgelm.asking import Friend
from edgelm.cli.events import noting
from edgelm.cli.options import Common, asks, catch_up, common, sampled
from edgelm.cli.terminal import plain, unfiltered
from edgelm.config import LearnConfig, SampleConfig
from edgelm.conversation import Conversation
from edgelm.errors import ConfigError, EdgelmError, InputError
from edgelm.learn.worker import Job
from edgelm.log.entry import CHAT
from edgelm.runtime import Engine
from edgelm.turn import Source, Turn

MAX_LINE = 20_000
IDLE_SECONDS = 20.0
"""After so long without a word, what was said is consolidated."""
READING_SECONDS = 1.0
"""How long the status line waits for what it tells."""
_CREDENTIALS = "iII"
"""The numbers of process, user and group, as SO_PEERCRED gives them."""
_NOBODY = (65534, 0xFFFFFFFF)
"""What the kernel says of a user whom this namespace has no number for, and of no user."""
_TOO_LONG = f"a turn of more than {MAX_LINE:,} characters; use `edgelm adapt` for long texts"
HELP = """\
/help            this list
/good            the last answer was good: it is learned too
/fix TEXT        what the last answer should have been; asked the same again, it says so
/ask             the friend of --ask is asked for the answer to the last turn; it is learned
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
@click.option("--commands", is_flag=True, help="Through a pipe too, a line that begins with / is a command, as /help.")
@click.option(
    "--peer",
    is_flag=True,
    help="Standard input is a Unix socket: the profile is that of the user at its other end, uid-N.",
)
@click.option("--system", default="", help="A text that stands before the conversation.")
@sampled
@asks
@common
def chat(
    no_learn: bool, no_bank: bool, commands: bool, peer: bool, system: str, sampling: SampleConfig,
    friend: Friend | None, common: Common,
) -> None:  # fmt: skip
    """Talk with a model that learns from what you write while it answers.

    Through a pipe each line is a turn. One that reads like a command, as "/forget my address", is answered, but neither
    obeyed nor learned unless --commands is given.

    With --ask URL a question that neither what you told, nor the bank, nor the model answers well is sent to the server
    at URL, with the two turns before it if it leans on them, and its answer is learned. Nothing else is sent, and
    nothing of a conversation that holds what looks like a secret. A key for the server is read from EDGELM_ASK_KEY.
    """
    in_terminal = sys.stdin.isatty() and sys.stdout.isatty() and not common.json
    options = replace(common.options, bank=not no_bank)
    if peer:
        if options.profile != "default":
            raise click.UsageError("--peer names the profile itself: leave --profile out")
        options = replace(options, profile=_profile_of_peer())
    with Engine(options, LearnConfig(), writable=not no_learn, idle_seconds=IDLE_SECONDS, fixed=no_learn) as engine:
        engine.on_event = noting(common, wanted=not in_terminal)
        talk = Conversation(engine, sampling, learn=not no_learn, system=system, patient=not in_terminal)
        talk.friend = friend
        if in_terminal:
            _in_terminal(talk, common)
        else:
            catch_up(engine, common)
            try:
                _through_pipe(talk, common, commands=commands)
            finally:
                talk.close()


def _profile_of_peer() -> str:
    """The profile of the user who opened the other end of the socket on standard input, by the kernel's word."""
    try:
        with socket.socket(fileno=os.dup(sys.stdin.fileno())) as end:
            if end.family != socket.AF_UNIX:
                raise OSError("a socket of another family")
            blob = end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize(_CREDENTIALS))
    except (OSError, AttributeError):
        raise InputError(
            "--peer needs a Unix socket of Linux as standard input, as ports/edgelm.socket gives"
        ) from None
    _, uid, _ = struct.unpack(_CREDENTIALS, blob)
    if uid in _NOBODY:
        raise InputError(
            "--peer cannot tell who is there: the user has no number in this namespace (PrivateUsers=yes?)"
        )
    return f"uid-{uid}"


def _in_terminal(talk: Conversation, common: Common) -> None:
    from prompt_toolkit.application import create_app_session
    from prompt_toolkit.output import create_output

    problem = talk.engine.profile.problem if talk.engine.profile is not None else ""
    if problem:
        common.note(problem, always=True)
    # The prompt moves the cursor; what it shows of the person's words it escapes itself.
    with create_app_session(output=create_output(unfiltered(sys.stdout))):
        _converse(talk, common)


def _through_pipe(talk: Conversation, common: Common, *, commands: bool) -> None:
    for line in _lines():
        if not commands or not line.startswith("/"):
            _answer(talk, line, common)
            continue
        try:
            said = _command(talk, line)
        except EdgelmError as exc:
            # Whoever sits at the other end of a socket reads stdout alone.
            common.emit({"command": line.split()[0], "error": str(exc)}, str(exc))
            continue
        if said is None:
            break
        common.emit({"command": line.split()[0], "said": said}, said)


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


def _answer(talk: Conversation, text: str, common: Common) -> None:
    if len(text) > MAX_LINE:
        raise InputError(_TOO_LONG)
    learns, word = talk.learn, text.split()[0].lower()
    if word in _COMMANDS:
        common.note(f"{word} was text here: answered, not learned; --commands makes such lines commands", always=True)
        talk.learn = False
    try:
        with closing(talk.turn(text)) as pieces:
            for piece in pieces:
                if not common.json:
                    click.echo(piece, nl=False)
    finally:
        talk.learn = learns
    turn = talk.turns[-1]
    common.emit(turn.to_json(), "")
    if not common.json:
        if turn.learning is not None:
            # The person reads meanwhile; what takes longer is shown below the prompt.
            wait([turn.learning], timeout=READING_SECONDS)
        common.note(status_line(turn))


def status_line(turn: Turn) -> str:
    """Speed, and what the turn taught."""
    skipped = " | looks like a secret: not learned" if turn.secrets_skipped else ""
    speed = f"{turn.tokens / turn.seconds:.0f} tokens/s" if turn.seconds and turn.tokens else "no answer"
    speed = "the friend's answer" if turn.source is Source.FRIEND else speed
    if turn.learning is not None and not turn.learning.done():
        return f"[{speed} | still learning{skipped}]"
    if turn.learned is None:
        return f"[{speed}{skipped}]"
    bits = turn.learned.loss_before * turn.learned.tokens / 0.6931
    gained = turn.learned.bits_gained
    return f"[{speed} | learned {turn.learned.tokens} tokens: {bits:.0f} bits before, {bits - gained:.0f} now{skipped}]"


def _converse(talk: Conversation, common: Common) -> None:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import InMemoryHistory

    engine = talk.engine

    def below() -> str:
        if engine.worker.is_resting:
            return "the device is hot: learning waits, what you said is kept"
        return "learning ..." if engine.worker.is_busy else ""

    session: PromptSession[str] = PromptSession(bottom_toolbar=lambda: below() or None)
    click.echo(
        f"{engine.model.name}, {engine.model.n_parameters / 1e6:.1f} M parameters. "
        "/help lists the commands, Ctrl+D leaves."
    )
    ready = engine.worker.call(lambda _: _make_ready(talk))
    ready.add_done_callback(lambda _: session.app.invalidate())
    while True:
        # What was said before can be brought back with the arrow keys; what was forgotten cannot.
        told = (entry.text for entry in engine.adaptation.entries if entry.kind == CHAT)
        said = [text for text in told if text == plain(text)]
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
                said_back = _command(talk, text.strip())
                if said_back is None:
                    break
                click.echo(said_back)
            else:
                _answer(talk, text, common)
        except KeyboardInterrupt:
            click.echo("\n(stopped)")
        except EdgelmError as exc:
            click.echo(str(exc), err=True)
    if engine.adaptation.has_unconsolidated:
        common.note("keeping what you said (Ctrl+C: next time) ...")
    talk.close()


def _make_ready(talk: Conversation) -> None:
    adaptation = talk.engine.adaptation
    adaptation.catch_up(aside=True)
    if talk.learn:
        adaptation.prepare()


def _command(talk: Conversation, text: str) -> str | None:
    """Runs a slash command; what it has to say, or None to end the chat."""
    name, _, rest = text.partition(" ")
    if name in _COMMANDS:
        return _COMMANDS[name](talk, rest)
    return f"There is no {name}; /help lists the commands."


def _after(job: Job, text: str) -> str:
    job.result()
    return text


def _removed(talk: Conversation, ids: list[int], what: str) -> str:
    text = f"Forgot {what}: {len(ids)} {'entry' if len(ids) == 1 else 'entries'} of the log."
    still = talk.engine.profile.still_in() if talk.engine.profile else ""
    return f"{text} The words stay in {still} while another program reads it." if still else text


def _why(talk: Conversation) -> str:
    from edgelm.measure.influence import influences_on_reply

    lines = talk.sources()
    for item in [item for item in influences_on_reply(talk) if abs(item.bits) >= 0.05][:5]:
        said = " ".join(item.entry.text.split())[:60]
        parts = f"words {item.bits_fast:+.1f}, weights {item.bits_slow:+.1f}"
        lines.append(f"{item.bits:+7.1f} bits  ({parts})  #{item.entry.id} {said}")
    return "\n".join(lines) or "Nothing that you said moved this answer; it is the model's own."


def _reset(talk: Conversation) -> str:
    talk.reset()
    return "A new conversation; what was learned stays."


def _save(talk: Conversation) -> str:
    engine = talk.engine
    engine.worker.call(lambda _: engine.adaptation.write_checkpoint()).result()
    return f"The profile has {engine.profile.n_bytes if engine.profile else 0:,} bytes."


def _stats(talk: Conversation) -> str:
    learned = [turn.learned for turn in talk.turns if turn.learned]
    gained, here = sum(item.bits_gained for item in learned), sum(item.tokens for item in learned)
    entries = [entry for entry in talk.engine.adaptation.entries if entry.text]
    total = sum(len(talk.engine.tokenizer.encode(entry.text)) for entry in entries)
    return (
        f"This chat: {here} tokens learned, {gained:.0f} bits gained. "
        f"The profile: {len(entries)} entries, {total:,} tokens."
    )


def _set(talk: Conversation, words: str) -> str:
    name, _, value = words.partition(" ")
    kinds = {"temperature": float, "top_p": float, "repetition_penalty": float, "max_tokens": int}
    if name not in kinds:
        raise ConfigError(f"/set knows {', '.join(kinds)}")
    try:
        talk.sampling = replace(talk.sampling, **{name: kinds[name](value)})
    except ValueError as exc:
        raise ConfigError(str(exc)) from None
    return f"{name} is {value}."


_COMMANDS: dict[str, Callable[[Conversation, str], str | None]] = {
    "/help": lambda talk, rest: HELP,
    "/good": lambda talk, rest: _after(talk.approve(), "Learned that answer."),
    "/fix": lambda talk, rest: _after(talk.correct(rest), "Learned your answer."),
    "/ask": lambda talk, rest: talk.ask(),
    "/undo": lambda talk, rest: _removed(talk, talk.undo(), "that turn"),
    "/forget": lambda talk, rest: _removed(talk, talk.forget(rest), repr(rest.strip())),
    "/why": lambda talk, rest: _why(talk),
    "/stats": lambda talk, rest: _stats(talk),
    "/reset": lambda talk, rest: _reset(talk),
    "/set": _set,
    "/save": lambda talk, rest: _save(talk),
    "/quit": lambda talk, rest: None,
}
