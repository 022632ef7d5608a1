"""What the log of a profile is made of."""

from __future__ import annotations

import hashlib
from dataclasses import astuple, dataclass

CHAT, TEXT, GOOD, FIX = "chat", "text", "good", "fix"
CONSOLIDATION, CHECKPOINT, IMPORT, UNLOGGED = "consolidation", "checkpoint", "import", "unlogged"
PAIRED = (GOOD, FIX)
"""Answers, learned together with what they answer, their ``parent``."""
WORDLESS = (IMPORT, UNLOGGED)
"""Entries whose words are not there: they cannot be replayed, only their checkpoint can be loaded."""


@dataclass(frozen=True)
class Entry:
    """One thing that was learned.

    Attributes
    ----------
    id : int
        Rises along the log and is never given twice.
    time : float
        Seconds since 1970.
    kind : str
        chat, text, good, fix, consolidation, checkpoint, import or unlogged.
    text : str
    conversation : int
        The chat, or the run of ``adapt``, that it belongs to.
    parent : int or None
        What an approved or corrected answer answers.
    amount : int or None
        Steps after which a consolidation was broken off.
    note : str
        What became of it, where that is worth saying.
    """

    id: int
    time: float
    kind: str
    text: str
    conversation: int = 0
    parent: int | None = None
    amount: int | None = None
    note: str = ""

    @property
    def digest(self) -> bytes:
        """What a changed byte changes."""
        return hashlib.sha256(repr(astuple(self)).encode()).digest()[:16]
