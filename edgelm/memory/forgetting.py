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
_LEAD = (
    r"^\s*(?:(?:ok(?:ay)?|oh|no|wait|actually|sorry|hey|hi|edgelm|please|now|just|maybe|"
    r"(?:can|could|would|will) you(?: please)?|i(?: would|'d)? (?:want|like|need) you to|"
    r"you (?:should|must|have to|need to)),? )*(?:forget|unlearn|delete|erase)\s+"
)
_END = r"(?:,? (?:please|now|again|thanks|thank you|ok(?:ay)?))*\W*$"
_ONE = r"(?P<what>[^,;.!?\n]*[^,;.!?\s])"
"""One clause: what stands behind it would be news, and be lost."""
_SAID = r"(?:that )?i(?: have|'ve)?(?: ever| just)? (?:said|told you|wrote)"
_LAST = re.compile(
    rf"{_LEAD}(?:that|this|what {_SAID}(?: earlier| before| just now)?|i (?:ever )?said that|"
    rf"(?:the|that|this) (?:last )?(?:thing|message|sentence|part|one)(?: {_SAID})?){_END}",
    re.IGNORECASE,
)
_ALL = re.compile(
    rf"{_LEAD}(?:it all|(?:everything|all)(?: of (?:it|that))?(?: (?:you know|{_SAID}))?(?: about me)?"
    rf"(?: today| so far)?){_END}",
    re.IGNORECASE,
)
_NAMED = re.compile(
    rf"{_LEAD}(?:(?:what|everything|all|anything) (?:{_SAID}|you know) about |(?:the fact )?that (?=(?:i|we|my|our)\b)"
    r"(?!i (?:ever )?(?:said|told|asked|was here|existed)\b)|(?:everything |all )?about (?=(?:my|our)\b)|"
    r"(?=my (?:name|address|birthday|age|job|number|phone|email|\w+'s? name)\b))"
    rf"(?![^,;.!?]* and (?:i|we|you)(?:'ll| will)\b){_ONE}{_END}",
    re.IGNORECASE,
)


def asks_to_forget(turn: str) -> str | None:
    """What a turn asks to be forgotten, in its words, or ``LAST`` or ``ALL``; None where it asks for nothing.

    It asks for one thing of the person's, and for nothing else: "don't forget ...", "forget about it", and "forget that
    noise, my sister got married" do not.
    """
    turn = turn.replace("’", "'")
    if _ALL.match(turn):
        return ALL
    if _LAST.match(turn):
        return LAST
    named = _NAMED.match(turn)
    return named["what"].strip() if named else None
