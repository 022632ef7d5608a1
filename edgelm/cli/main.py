"""The ``edgelm`` command: finds its subcommands when they are asked for, and reports errors in one line."""

from __future__ import annotations

import importlib
import os
import sys

import click

from edgelm import __version__
from edgelm.cli.terminal import filter_streams
from edgelm.config import one_blas_thread
from edgelm.errors import EdgelmError

# Help texts stand here too, so that `edgelm --help` imports nothing else.
_COMMANDS = {
    "chat": ("edgelm.cli.chat", "Talk with a model that learns from what you write."),
    "complete": ("edgelm.cli.text", "Continue a text."),
    "suggest": ("edgelm.cli.text", "The likeliest next words."),
    "fill": ("edgelm.cli.text", "What the blank [...] of a text may hold."),
    "choose": ("edgelm.cli.text", "Rank given continuations of a text."),
    "serve": ("edgelm.cli.serve", "Answer over HTTP: OpenAI's and Ollama's clients, and a page."),
    "adapt": ("edgelm.cli.learning", "Learn files, folders or standard input."),
    "evaluate": ("edgelm.cli.learning", "Bits per byte of whole files."),
    "profile": ("edgelm.cli.profile", "What was learned: its log, forgetting, moving."),
    "pack": ("edgelm.cli.pack", "Layers of knowledge: make, add, compare, merge, remove."),
    "swarm": ("edgelm.cli.swarm", "Devices that learn from each other: serve, join, status."),
    "export": ("edgelm.cli.export", "Write the model, or a part of it, as ONNX or for edgelm."),
    "models": ("edgelm.cli.models", "The models here: list, show, verify, pull."),
    "bench": ("edgelm.cli.bench", "Speed and memory on this machine."),
    "info": ("edgelm.cli.models", "Version, model, device and where files are."),
}


class LazyGroup(click.Group):
    """Imports the module of a command when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(_COMMANDS[cmd_name][0])
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edgelm")
def cli() -> None:
    """A small language model that runs on this device and learns here."""


def main() -> None:
    """Runs the command line; the one place where an error becomes a line and an exit code."""
    # An input that the parent process closed (`<&-`) is an empty one.
    sys.stdin = sys.stdin or open(os.devnull)  # noqa: PTH123, SIM115
    filter_streams()
    one_blas_thread()
    try:
        code = cli.main(sys.argv[1:] or ["--help"], standalone_mode=False)
        sys.stdout.flush()
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Abort:
        _fail("interrupted; what was learned is kept", 130)
    except KeyboardInterrupt:
        _fail("interrupted; what was learned is kept", 130)
    except click.ClickException as exc:
        context = exc.ctx if isinstance(exc, click.UsageError) else None
        hint = f"; see `{context.command_path} --help`" if context else ""
        _fail(exc.format_message().rstrip(".") + hint, exc.exit_code)
    except EdgelmError as exc:
        _fail(str(exc), 1)
    except BrokenPipeError:
        # The reader has gone (`edgelm ... | head`); nothing is left to say to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except MemoryError:
        _fail("not enough memory; use a smaller file or model", 1)
    except OSError as exc:
        _fail(f"{exc.filename or 'input/output'}: {exc.strerror or exc}", 1)


def _fail(message: str, code: int) -> None:
    line = " ".join(message.split())
    print(f"edgelm: {line}", file=sys.stderr)
    sys.exit(code)
