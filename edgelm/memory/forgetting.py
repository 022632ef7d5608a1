"""Who asks in plain words for something to be forgotten is told the command for it.

It is not done at once: what is forgotten cannot come back, words may be mistaken for others, and a text that is read
out or piped in must not make anything be forgotten. Such a turn is not learned, or what it names would be kept by it.
"""

from __future__ import annotations

import re

FORGET = 'I forget only by a command, and then for good: write "/forget {}" in edgelm chat, or take it out of the log.'
NOTHING_FOUND = (
    'I find nothing of that in what you told me. "/forget WORDS" in edgelm chat forgets all that holds them.'
)
FORGET_ALL = 'I forget only by a command, and then for good: "edgelm profile delete" forgets all that you told me.'
LAST, ALL = "last", "all"
"""What is to be forgotten if it is what was said last, or everything."""
_ASKS = re.compile(
    r"^\W*(?:(?:please|now|just|(?:can|could|would|will) you(?: please)?|i(?: would|'d)? (?:want|like) you to|"
    r"you (?:can|should|must)) )*(?:forget|unlearn) (?P<what>.+)$",
    re.IGNORECASE | re.DOTALL,
)
_ALL = re.compile(
    r"^(?:everything|all)(?: that)?(?: (?:you know|i(?:'ve| have)? (?:ever )?(?:said|told you)))?(?: about me)?\W*$",
    re.IGNORECASE,
)
_LAST = re.compile(
    r"^(?:that|this|what i(?: have|'ve)?(?: just)? (?:said|told you))(?:,? (?:one|please|again|now|last|just))*\W*$",
    re.IGNORECASE,
)
_NAMED = re.compile(
    r"^(?:(?:what|everything|all)(?: that)? (?:i(?: have|'ve)?(?: just)? (?:said|told you)|you know) about|"
    r"(?:the fact )?that|(?:everything |all )?about) (?P<what>.*\w.*)$",
    re.IGNORECASE | re.DOTALL,
)
_IDIOM = re.compile(r"^about (?:it|that|this|him|her|them)\W*$", re.IGNORECASE)


def asks_to_forget(turn: str) -> str | None:
    """What a turn asks to be forgotten, in its words, or ``LAST`` or ``ALL``; None where it asks for nothing.

    "Don't forget ...", "forget it" and "forget about it" ask for nothing.
    """
    found = _ASKS.match(turn.replace("’", "'"))
    if found is None or _IDIOM.match(found["what"]):
        return None
    if _ALL.match(found["what"]):
        return ALL
    if _LAST.match(found["what"]):
        return LAST
    named = _NAMED.match(found["what"])
    return named["what"].strip(" .!?,") if named else None
