"""A question as a clause: "How do I clean a keyboard?" as "how to clean a keyboard", to be said back.

English alone, by the words at its beginning; only forms that come out right whatever follows are taken.
"""

from __future__ import annotations

import re

from edgelm.text.person import second_person

MOST_WORDS = 14
"""Of a question that is said back."""
_MODAL = r"can|could|should|shall|may|might|must|will|would"
_BE = r"is|are|am|was|were"
_PRONOUN = r"i|we|he|she|it|they|there"
_WH = r"what|who|where|when|why|how|which \w+|what \w+"
_OPENING = re.compile(r"^(?:(?:and|so|but|well|oh|hey|ok|okay|please|now|then)[, ]+)+", re.IGNORECASE)
_FORMS = [
    (re.compile(pattern + "$", re.IGNORECASE), clause)
    for pattern, clause in (
        (rf"(?:please )?(?:(?:can you )?tell me|do you know|any idea) ((?:{_WH}) .+)", "{0}"),
        (r"how (?:do|can|should) (?:i|we|one) (?!(?:look|feel|seem|sound|be|know|like|ever)\b)(.+)", "how to {0}"),
        (r"what (?:do|should|shall|can) (?:i|we) do((?: (?:now|next|with|about|if|when)\b.*)?)", "what to do{0}"),
        (rf"({_WH}) ({_MODAL}) ({_PRONOUN}) (.+)", "{0} {2} {1} {3}"),
        (r"(what|where|when|why) do (?!(?:you|it|this|that)\b)(.+)", "{0} {1}"),
        (rf"({_WH}) ({_BE}) ({_PRONOUN})\b(.*)", "{0} {2} {1}{3}"),
        (
            r"(what|who|where)[ '](is|s|are|was|were) ((?:the|an?|my|our)(?: (?!like\b)[\w'-]*(?<!ing)(?<!ed)){1,7})",
            "{0} {2} {1}",
        ),
        (
            rf"(who) (?!(?:{_BE}|do|does|did|has|have|had|else|the|an?|on|knows|cares|says|{_MODAL})\b)([a-z]+ .+)",
            "{0} {1}",
        ),
        (rf"(is|are|was|were|can|could|should|would) ({_PRONOUN}) (.+)", "whether {1} {0} {2}"),
        (r"do (i|we|they) (.+)", "whether {0} {1}"),
    )
]  # fmt: skip
_ODD = re.compile(
    rf"\byou\b|^(?:{_WH}) (?:{_BE}|do|does|did|{_MODAL}) (?:the|an?|my|our|{_PRONOUN})\b|"
    r" (?:from|to|of|in|on|at|with|for|about|by|now|today|tomorrow|tonight|here|there|again|gone|held|hidden|"
    rf"eaten|made|called) (?:{_BE})$| (?:and|or) (?:what|who|where|when|why|how|{_BE}|do|{_MODAL})\b",
    re.IGNORECASE,
)
"""What shows that a clause came out wrong, or may mean the assistant by you."""


def indirect(question: str) -> str | None:
    """The clause, as said to the person who asked, without a sign at its end; None where none is sure to be right."""
    plain = _OPENING.sub("", " ".join(question.replace("’", "'").split())).rstrip(" ?!.")
    if not plain or len(plain.split()) > MOST_WORDS or re.search(r"[\"“”:;()?!]|\. ", plain):
        return None
    for form, clause in _FORMS:
        if found := form.match(plain):
            parts = ["is" if part == "s" else part for part in found.groups("")]
            if found.end(1) <= len(plain.split()[0]):
                parts[0] = parts[0].lower()
            said = clause.format(*parts)
            if _ODD.search(said):
                return None
            said = second_person(said).rstrip(".")
            return said[:1].lower() + said[1:]
    return None
