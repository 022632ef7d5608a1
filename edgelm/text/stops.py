"""Where a reply ends, in text that comes in pieces."""

from __future__ import annotations

from collections.abc import Sequence


class Stops:
    """Finds a label at the beginning of a line, or a stop string anywhere, in one piece or in several.

    A piece that goes on beyond a label, as ``Users``, is a word.

    Parameters
    ----------
    labels : sequence of str
    stops : tuple of str

    Attributes
    ----------
    held : str
        The end of what was fed, as long as it may become a label or a stop string.
    found : bool
        Whether the reply has ended. Nothing may be fed after that.
    """

    def __init__(self, labels: Sequence[str], stops: tuple[str, ...]) -> None:
        self._labels, self._stops = labels, stops
        self._line: str | None = None
        """The present line, if it began with a line end and may become a label."""
        self.held, self.found = "", False

    def feed(self, piece: str) -> str:
        """The text that is now known to belong to the reply: all of it, where the reply has ended."""
        text = self.held + piece
        line = piece.rsplit("\n", 1)[-1] if "\n" in piece else None if self._line is None else self._line + piece
        ends = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if line is not None and line.strip() in self._labels:
            ends.append(len(text) - len(line))
        if ends:
            self.found, self.held = True, ""
            return text[: min(ends)]
        begun = "" if line is None else line.lstrip()
        may_be_label = bool(begun) and any(label.startswith(begun) for label in self._labels)
        self._line = line if line == "" or may_be_label else None
        n_held = max(_overlap(text, self._stops), len(line) if line and may_be_label else 0)
        self.held = text[len(text) - n_held :]
        return text[: len(text) - n_held]


def _overlap(text: str, stops: tuple[str, ...]) -> int:
    """Characters at the end of ``text`` that begin a stop string."""
    longest = max((len(stop) - 1 for stop in stops), default=0)
    return next((n for n in range(min(longest, len(text)), 0, -1) if any(s.startswith(text[-n:]) for s in stops)), 0)
