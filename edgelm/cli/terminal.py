"""The one way to the terminal: whatever is printed passes a filter, so that no text from elsewhere steers it.

An answer, a name, a remark of the network can hold what a terminal obeys: escape sequences that write its title or its
clipboard, C1 controls that begin them too, marks that turn the direction of writing around. ``filter_streams`` puts the
filter before stdout and stderr; ``print``, ``click.echo`` and tracebacks go through it without knowing. What edgelm
itself tells a terminal, colours, a progress bar, the prompt, is written around it, to the ``unfiltered`` streams.
"""

from __future__ import annotations

import codecs
import io
import os
import sys
import unicodedata
from collections.abc import Iterable
from typing import TextIO

import click

from edgelm.config import no_color

_KEPT = "\n\t\u200c\u200d"
"""Line end and tab; the joiners, which Persian and emoji are spelled with and which move nothing."""


def plain(text: str) -> str:
    r"""The text with all that a terminal could obey, or not show, as ``\u001b``: an escape that JSON reads back.

    Letters, marks, numbers, punctuation, symbols and spaces of any script stay. Controls (C0 but line end and tab, DEL,
    C1), marks of direction and what else is invisible, line and paragraph separators, lone surrogates, private use and
    what Unicode has not assigned do not. Nothing depends on what stands before or after: pieces may be filtered alone.
    """
    return text if text.isprintable() else "".join(char if _is_plain(char) else _escaped(char) for char in text)


def _is_plain(char: str) -> bool:
    return char.isprintable() or char in _KEPT or unicodedata.category(char) == "Zs"


def _escaped(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass").hex()
    return "".join(rf"\u{units[start : start + 4]}" for start in range(0, len(units), 4))


def _escape_error(error: UnicodeError) -> tuple[str, int]:
    """What an encoding of few letters lacks, escaped like the rest."""
    assert isinstance(error, UnicodeEncodeError)
    return "".join(map(_escaped, error.object[error.start : error.end])), error.end


_ESCAPE = "edgelm.escape"
codecs.register_error(_ESCAPE, _escape_error)


class Filtered:
    """A text stream that writes ``plain`` text to another, of whatever encoding.

    It has no ``buffer``: bytes would go around it.

    Attributes
    ----------
    unfiltered : TextIO
        The other, for what edgelm itself tells the terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ESCAPE)
        self.unfiltered = stream

    @property
    def encoding(self) -> str:
        return self.unfiltered.encoding

    @property
    def errors(self) -> str | None:
        return self.unfiltered.errors

    @property
    def closed(self) -> bool:
        return self.unfiltered.closed

    def write(self, text: str) -> int:
        self.unfiltered.write(plain(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        self.unfiltered.flush()

    def isatty(self) -> bool:
        return self.unfiltered.isatty()

    def fileno(self) -> int:
        return self.unfiltered.fileno()


def filter_streams() -> None:
    """From now on stdout and stderr are filtered; one that the parent process closed (``>&-``) goes nowhere."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name) or open(os.devnull, "w")  # noqa: PTH123, SIM115
        setattr(sys, name, stream if isinstance(stream, Filtered) else Filtered(stream))


def unfiltered(stream: TextIO) -> TextIO:
    """The stream behind the filter, for edgelm's own colours and movements: no text from elsewhere belongs there."""
    return stream.unfiltered if isinstance(stream, Filtered) else stream


def remark(text: str) -> None:
    """A line on stderr, dim where a person sees it and has not asked for plain text."""
    dim, bright = ("\x1b[2m", "\x1b[0m") if sys.stderr.isatty() and not no_color() else ("", "")
    unfiltered(sys.stderr).write(dim)
    click.echo(text, nl=False, err=True)
    unfiltered(sys.stderr).write(f"{bright}\n")
    sys.stderr.flush()
