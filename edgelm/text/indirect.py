"""A question as a clause: "How do I clean a keyboard?" as "how to clean a keyboard", to be said back.

English alone, by the words at its beginning; only forms that come out right whatever follows are taken.
"""

from __future__ import annotations

import re

from edgelm.text.person import second_person

MOST_WORDS = 14
"""Of a question that is said back."""
_MODAL = r"can|could|should|shall|may|might|must|will|would"
_PRONOUN = r"i|we|he|she|it|they|there|this|that|these|those"
_WH = r"what|who|where|when|why|how|which \w+|what \w+"
_OPENING = re.compile(r"^(?:(?:and|so|but|well|oh|hey|ok|okay|please|now|then)[, ]+)+", re.IGNORECASE)
_FORMS = [
    (re.compile(pattern + "$", re.IGNORECASE), clause)
    for pattern, clause in (
        (rf"(?:please )?(?:(?:can you )?tell me|do you know|any idea) ((?:{_WH}) .+)", "{0}"),
        (r"how (?:do|can|could|should|shall) (?:i|we|you|one) (.+)", "how to {0}"),
        (r"what (?:do|should|shall|can) (?:i|we) do\b(.*)", "what to do{0}"),
        (rf"({_WH}) ({_MODAL}) ({_PRONOUN}) (.+)", "{0} {2} {1} {3}"),
        (r"(what|where|when|why|how) do (?!you\b)(.+)", "{0} {1}"),
        (rf"({_WH}) (is|are|am|was|were) ({_PRONOUN})\b(.*)", "{0} {2} {1}{3}"),
        (
            r"(what|who|where)[ '](is|s|are|was|were) ((?:the|an?|my|our)(?: (?!like\b)[\w'-]*(?<!ing)(?<!ed)){1,7})",
            "{0} {2} {1}",
        ),
        (
            rf"(who) (?!(?:is|are|was|were|am|do|does|did|has|have|had|else|{_MODAL})\b)([a-z]+ .+)",
            "{0} {1}",
        ),
        (rf"(is|are|am|was|were|{_MODAL}) ({_PRONOUN}) (.+)", "whether {1} {0} {2}"),
        (rf"do (?!you\b)({_PRONOUN}) (.+)", "whether {0} {1}"),
    )
]  # fmt: skip


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
            if re.search(r"\byou\b", said, re.IGNORECASE):
                return None  # whether it is the assistant or anybody
            said = second_person(said).rstrip(".")
            return said[:1].lower() + said[1:]
    return None
