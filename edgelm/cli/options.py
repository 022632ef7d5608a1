"""Options that every command takes, and how results are printed."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import click

from edgelm import ports
from edgelm.asking import Friend
from edgelm.cli.terminal import remark, unfiltered
from edgelm.config import SampleConfig, ask_key
from edgelm.runtime import Engine, EngineOptions


@dataclass(frozen=True)
class Common:
    """The common options; ``options`` goes to the library."""

    options: EngineOptions
    json: bool
    verbose: bool

    def emit(self, fields: dict[str, Any], text: str) -> None:
        """Prints one JSON object, or the text for people."""
        click.echo(json.dumps(fields, ensure_ascii=False) if self.json else text)

    def note(self, text: str, *, always: bool = False) -> None:
        """A remark on stderr; without ``always`` in a terminal or with -v alone."""
        if always or self.verbose or (sys.stderr.isatty() and not self.json):
            remark(text)

    def insist(self, text: str) -> None:
        """A remark that is made in any case."""
        self.note(text, always=True)


def common(function: Callable[..., None]) -> Callable[..., None]:
    """Adds the common options to a command; it receives them as ``common``."""

    @click.option("--model", metavar="NAME|PATH", help="Model to use (default: the bundled one).")
    @click.option("--profile", default="default", show_default=True, help="Whose learning to use.")
    @click.option(
        "--threads", type=click.IntRange(1, 256), help="Threads that read a long text (default: those of the port)."
    )
    @click.option(
        "--engine", type=click.Choice(["kernels", "onnx"]), help="What answers (default: what is faster here)."
    )
    @click.option("--seed", type=click.IntRange(0), default=0, help="Seed of the sampling; 0 draws one.")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else on stdout.")
    @click.option("-v", "--verbose", is_flag=True, help="Say more on stderr.")
    @functools.wraps(function)
    def wrapper(
        *, model: str | None, profile: str, threads: int | None, engine: str | None, seed: int, as_json: bool,
        verbose: bool, **kwargs: Any,
    ) -> None:  # fmt: skip
        options = EngineOptions(model, profile, threads or ports.detect().threads, seed, engine=engine)
        function(common=Common(options, as_json, verbose), **kwargs)

    return wrapper


def asks(function: Callable[..., None]) -> Callable[..., None]:
    """Adds the options of a friend to a command; it receives what asks it, or None, as ``friend``."""

    @click.option("--ask", metavar="URL", help="OpenAI's API of a larger model: asked where this one is unsure.")
    @click.option("--ask-model", metavar="NAME", help="Which of its models (default: the first that it lists).")
    @functools.wraps(function)
    def wrapper(*, ask: str | None, ask_model: str | None, **kwargs: Any) -> None:
        if ask is None and ask_model is not None:
            raise click.UsageError("--ask-model needs --ask URL")
        function(friend=None if ask is None else _friend(ask, ask_model), **kwargs)

    return wrapper


def _friend(url: str, model: str | None) -> Friend:
    from edgelm.serve.friend import Friend as Client

    return Client(url, model, ask_key(), remark)


def sampled(function: Callable[..., None]) -> Callable[..., None]:
    """Adds how an answer is drawn to a command; it receives it as ``sampling``."""

    @click.option("--temperature", type=float, default=0.5, show_default=True, help="0: always the likeliest.")
    @click.option("--max-tokens", type=int, default=120, show_default=True, help="Tokens of an answer at most.")
    @functools.wraps(function)
    def wrapper(*, temperature: float, max_tokens: int, **kwargs: Any) -> None:
        function(sampling=SampleConfig(temperature=temperature, max_tokens=max_tokens), **kwargs)

    return wrapper


@contextmanager
def progress_bar(label: str, total: int, common: Common) -> Iterator[Callable[[int], None]]:
    """Yields what is to be called with every number of tokens done."""
    if common.json or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    console = Console(file=unfiltered(sys.stderr))
    # What others print meanwhile it would print for them, around the filter.
    with Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False) as bar:
        task = bar.add_task(label, total=total)
        yield lambda n_tokens: bar.advance(task, n_tokens)


def catch_up(engine: Engine, common: Common) -> None:
    """Replays what the log holds and the weights do not yet, as after a crash."""
    adaptation = engine.adaptation
    if engine.profile is not None and engine.profile.problem:
        common.note(engine.profile.problem, always=True)
    if not adaptation.pending:
        return
    total = sum(len(engine.tokenizer.encode(entry.text)) for entry in adaptation.pending)
    with progress_bar("replaying what was learned", total, common) as on_tokens:
        adaptation.catch_up(on_tokens)
