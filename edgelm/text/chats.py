"""Whether a text looks like a chat between persons, which is nobody's to pass on."""

from __future__ import annotations

import re

_TURN = re.compile(
    # A date or an hour, perhaps, then who speaks.
    r"\s*(?:\[?\d{1,4}[-./:]\d{1,2}(?:[-./:]\d{1,4})?[^A-Za-z]{0,16}\]?(?:[AaPp][Mm]\]?)?\s*-?\s*)?"
    r"[^\W\d_][\w.'’-]{0,20}(?: [\w.'’-]{1,20}){0,2}: \S"
)
SHARE = 0.25
"""Of the lines that are not empty: so many begin with the name of who speaks."""


def looks_like_chat(text: str) -> bool:
    """Whether at least ``SHARE`` of the lines begin with a name and a colon, maybe after a date or an hour."""
    lines = [line for line in text.splitlines() if line.strip() and line.strip() != "<|doc|>"]
    turns = sum(1 for line in lines if _TURN.match(line[:120]))
    return len(lines) > 0 and turns >= SHARE * len(lines)
