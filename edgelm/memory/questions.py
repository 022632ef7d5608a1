"""What a question asks for: something that the person told, what others know as well, or the assistant itself."""

from __future__ import annotations

import re

from edgelm.memory.kinds import Kind
from edgelm.memory.statements import SENTENCE, is_question, speaks_of_me

ASKS, ASKS_OF_ME, MAY_ASK = 1.0, -0.3, -0.6
"""Logit from which on a question asks for something told; from which on one with I, my or we in it does; and from
which on it is worth a look whether something told answers it."""
LIKELY_ASKS = 0.0
"""Logit that a question asks from which on it counts as one with I, my or we in it."""
GENERAL = frozenset([
    "ask-fact", "ask-sum", "ask-word", "ask-cooking", "ask-house", "ask-garden", "ask-health", "ask-tech", "ask-text",
    "ask-fun", "ask-media", "ask-pet", "ask-child", "ask-people", "ask-work", "ask-outing", "ask-opinion",
    "ask-assistant",
])  # fmt: skip
"""Kinds of questions that others can answer as well."""
_SHORT = re.compile(r"^(\W*(?:what|who|where|when|how|why))s\b", re.IGNORECASE)
_MINE = re.compile(r"\b(?:what|who|when|where|which|how old)\b.*\b(?:my|our)\b", re.IGNORECASE)
HAS_A_LIFE = re.compile(r"\b(?:my|mine|our|ours|we|us)\b", re.IGNORECASE)
"""What only somebody says who has a dog or a street of their own."""
ADVICE = re.compile(
    r"\b(?:should|shall|may|could) (?:i|we)\b|\b(?:i|we) (?:could|should)\b|\bdo you\b|"
    r"\bdo i (?:do(?! for (?:a living|work))|(?:say|write|answer|reply) (?:to|in))\b|"
    r"\bcan (?:i|we) (?:make|cook|do|use|bake|write|say|take|drink|eat|give)\b|"
    r"\bany (?:idea|advice|tip)",
    re.IGNORECASE,
)
_FOR_ANYBODY = re.compile(
    r"\b(?:can|could|should|shall|may|must) (?:i|we)\b|\bhow (?:(?:long|much|many|often|hot|big)\b.*?)?do (?:i|we)\b",
    re.IGNORECASE,
)
"""How somebody asks what holds for all who do the same."""
_WANTS_HELP = re.compile(
    r"\bhow (?:can|could|should) (?:i|we)\b|"
    r"\bwhat (?:\w+ ){0,2}(?:can|could|should) (?:i|we) (?:do|play|make|cook|give|try|bring)\b|"
    r"\bwhat(?:'?s| is| are)? (?:a |an |the |some )?(?:good|best|quick|easy|nice|right)\b|\bwhat \w+ goes with\b|"
    r"\bwhat (?:\w+ )?can you do\b",
    re.IGNORECASE,
)
"""How somebody asks for what would be of use, which nobody has told."""
_WHY = re.compile(r"^\W*why (?:do|does|is|are|can'?t|won'?t)\b", re.IGNORECASE)
OF_MY_LIFE = re.compile(
    r"\b(?:did|am|was|were|have|had) (?:i|we)\b|\bdo (?:i|we) do for\b|\bwhere do (?:i|we) (?:live|work|come)\b",
    re.IGNORECASE,
)
"""A question about what only the person can know."""
_RECALL = re.compile(
    r"^\W*(?:do you (?:still |even )?(?:know|remember|recall)|"
    r"(?:can|could) you (?:still )?(?:remember|recall|tell me))(?: again)?,? (?=(?P<noun>the|my)?)",
    re.IGNORECASE,
)
"""What stands before a question that is asked by way of another."""
_OF_MINE = re.compile(
    r"^(?:what|who|whose|where|when|which|how (?:old|tall|many|much|long|big))\b.*\b"
    r"(?:i['’]m\b|i (?:am|was|live|work|like|love|hate|prefer|told|said|did|met|put|bought|do for|asked|have|own)|"
    r"(?:is|are|was|were) my|"
    r"my [\w' -]+? (?:is|are|was|were|likes?|lives?|works?|plays?|eats?|has|starts?|leaves?|called))\b|"
    r"^What is (?:the )?(?:\w+ ){0,3}(?:name|age|birthday|address|number|job|colou?r|breed|date|time) of my\b|"
    r"^What is my(?: (?!is\b|has\b|died\b|got\b)[\w'-]+){1,4}\W*$",
    re.IGNORECASE,
)
_IN_GENERAL = re.compile(
    r"\b(?:to|can|could|should|need|must|would|have to) \w+|"
    r"\b(?:wrong with|good for|helps?|chances|horoscope|fortune)\b|^how (?:i|my|hard|tired|lonely|much i)\b",
    re.IGNORECASE,
)
"""Such a question about the person's own life, and what makes it one that others can answer."""
ALL_OF_ME = re.compile(
    r"^\W*(?:(?:can|could) you tell me what you know about me|"
    r"do you (?:still )?(?:know|remember) what i (?:told|said to) you"
    r"(?: about me| yesterday| before| earlier| last time)?|"
    r"what (?:else )?(?:do|have|did) you (?:know|remember|learn(?:t|ed)?|keep|stored?) (?:about|of) me|"
    r"what (?:have i|did i|do i) (?:told|tell) you(?: (?:so far|about me|about myself|today|before))?|"
    r"tell me (?:what|everything) you (?:know|remember) (?:about|of) me)\W*$",
    re.IGNORECASE,
)
_OF_YOU = re.compile(r"(?:do|are|can|could|did|have|will|would) you (?!know|remember|recall|tell|still)", re.IGNORECASE)
"""How a question begins that asks the assistant for itself."""


def plainly(turn: str) -> str:
    """The question within one that asks whether something of the person's is remembered; else the turn."""
    found = _RECALL.match(turn)
    if found is None or len(SENTENCE.split(turn.strip())) > 1:
        return turn
    asked = ("What is " if found["noun"] else "") + turn[found.end() :]
    return asked if _OF_MINE.search(asked) and not _IN_GENERAL.search(asked) else turn


def may_ask(turn: str, asks: float) -> bool:
    """Whether it is worth a look if something told answers a turn; ``asks`` is the logit that it asks for that."""
    return (asks > MAY_ASK or is_question(turn)) and not (_OF_YOU.match(turn) and not speaks_of_me(turn))


def with_its_verb(turn: str) -> str:
    """A turn whose first word, if it is a question word with the s of "is" but no apostrophe, is written out."""
    return _SHORT.sub(r"\1 is", turn)


def asks_in_general(turn: str, kind: Kind | None) -> bool:
    """Whether a turn of this kind asks for what others can answer, and names nothing that is the person's."""
    if kind is None or kind.name not in GENERAL or HAS_A_LIFE.search(turn):
        return False
    return not speaks_of_me(turn) or _FOR_ANYBODY.search(turn) is not None


def asks_for_told(turn: str, asks: float, kind: Kind | None = None) -> bool:
    """Whether a turn, of this kind, asks for what only the person can have told; ``asks`` is the logit of that."""
    if not is_question(turn) or any(pattern.search(turn) for pattern in (ADVICE, _WANTS_HELP, _WHY)):
        return False
    if asks_in_general(turn, kind):
        return False
    of_me = speaks_of_me(turn) and not turn.lower().startswith(("why", "can", "could", "will", "would"))
    least = MAY_ASK if _MINE.search(turn) else ASKS_OF_ME if of_me else ASKS
    return asks > least
