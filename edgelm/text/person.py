"""A sentence of the person's, said back to them: "I lent my drill to Marcus" becomes "You lent your drill to Marcus.".

English alone, by words: what the person calls I, the answer calls you. What stands in quotation marks stays.
"""

from __future__ import annotations

import re

_SPLIT = re.compile(r"(\"[^\"]*\")")
_WORD = re.compile(r"[A-Za-z]+(?:['’][A-Za-z]+)?")
_OPENING = re.compile(
    r"^(?:(?:oh|ah|hey|hi|hello|well|so|and|but|btw|by the way|ok|okay|anyway|anyhow|also|fyi|yes|yeah|no|please|"
    r"actually|just so you know|for the record|you know|"
    r"(?:please )?(?:remember|note|mind|don't forget|do not forget)(?: that)?|"
    r"i (?:told|said to) you(?: that)?|did i (?:tell|mention)(?: to)? you that)\b[,:;!.\s]+)+",
    re.IGNORECASE,
)
_CALL_ME = re.compile(r"^(?i:(?:please |you can |you may |just )?call me )(?=[A-Z])")
_TURNED = {
    "i": "you", "me": "you", "my": "your", "mine": "yours", "myself": "yourself", "i'm": "you are", "i've": "you have",
    "i'd": "you would", "i'll": "you will", "im": "you are", "ive": "you have", "we": "you", "us": "you", "our": "your",
    "ours": "yours", "ourselves": "yourselves", "we're": "you are", "we've": "you have", "we'd": "you would",
    "we'll": "you will", "your": "my", "yours": "mine", "yourself": "myself", "you're": "I am", "you've": "I have",
    "you'll": "I will", "you'd": "I would",
}  # fmt: skip
_AFTER_I = {"am": "are", "was": "were", "wasn't": "weren't"}
_AFTER_YOU = {"are": "am", "were": "was", "weren't": "wasn't"}
_VERBS = frozenset([
    "are", "were", "can", "could", "will", "would", "shall", "should", "may", "might", "must", "do", "did",
    "don't", "didn't", "have", "had", "know", "said", "told", "think", "like",
])  # fmt: skip
_HAD = frozenset([
    "better", "been",
])  # fmt: skip
_LINKS = frozenset([
    "and", "or", "also", "still", "just", "always", "never", "really", "often", "only", "both", "already",
])  # fmt: skip


_BEGINS = re.compile(r"(?<=[a-z0-9]{3}[.!?] )[a-z]")
"""Where a sentence begins after another; not after "p.m."."""


def second_person(text: str) -> str:
    """What a person said of themselves, said to them, as one line that begins with a capital and ends with a sign."""
    plain = " ".join(text.replace("’", "'").split())
    cut = _CALL_ME.sub("I want to be called ", _OPENING.sub("", plain))
    parts = _SPLIT.split(cut or plain)
    said = "".join(part if i % 2 else _turn(part) for i, part in enumerate(parts)).strip()
    said = said.rstrip(" ,;:")
    if not said:
        return ""
    said = _BEGINS.sub(lambda begin: begin[0].upper(), said[0].upper() + said[1:])
    return said if said[-1] in ".!?\"'" else said + "."


def _turn(text: str) -> str:
    found, pieces, last, subject = list(_WORD.finditer(text)), [], 0, ""
    for i, match in enumerate(found):
        word = match[0].lower()
        following = found[i + 1][0].lower() if i + 1 < len(found) else ""
        new = _TURNED.get(word)
        if word == "you":
            # Whom the person calls you is the assistant.
            new = "I" if following in _VERBS else "me"
        elif word == "i'd" and (following in _HAD or following.endswith("ed")):
            new = "you had"
        elif word in _AFTER_I and subject == "i":
            new = _AFTER_I[word]
        elif word in _AFTER_YOU and subject == "you":
            new = _AFTER_YOU[word]
        elif word == "am":
            new = "are"
        begins = match.start() == 0 or text[: match.start()].rstrip()[-1:] in ".!?"
        pieces.append(text[last : match.start()])
        pieces.append(match[0] if new is None else new[0].upper() + new[1:] if begins else new)
        last = match.end()
        if word in ("i", "you"):
            subject = word
        elif word not in _LINKS:
            subject = ""
    return "".join(pieces) + text[last:]
