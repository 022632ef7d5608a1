"""Of whom a question is: what my sister does is not answered by what was said of my brother.

Vectors of words hold sister and brother for near, as they must to find either by "who in my family". But a question
that names one of them does not mean the other. Here are the words for people and animals of one's own, and the *kinds*
that each of them may mean: "parent" may be a mother or a father.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

_SAME = """
wife missus; husband hubby; partner; girlfriend; boyfriend; ex; mother mum mom mam mama mummy mommy; father dad papa
daddy; sister; brother; daughter; son; grandmother grandma granny gran nan nana; grandfather grandpa grandad granddad;
granddaughter; grandson; aunt auntie aunty; uncle; niece; nephew; cousin; mother-in-law; father-in-law; sister-in-law;
brother-in-law; daughter-in-law; son-in-law; godmother; godfather; stepmother stepmum stepmom; stepfather stepdad;
boss manager supervisor; colleague coworker; neighbour neighbor; landlord landlady; friend mate pal; doctor gp;
dentist; teacher; hairdresser barber; flatmate housemate roommate; plumber; electrician; gardener; cleaner;
accountant; lawyer; dog puppy; cat kitten; rabbit bunny; hamster; parrot; budgie; horse pony; tortoise; goldfish
"""
_WIDER = """
spouse = wife husband partner; fiance = partner; fiancé = partner; fiancee = partner; fiancée = partner; partner =
wife husband girlfriend boyfriend; husband = partner; wife = partner; girlfriend = partner; boyfriend = partner;
parent = mother father; sibling = sister brother; twin = sister brother; child = daughter son; children = daughter
son; kid = daughter son; baby = daughter son; girl = daughter girlfriend; boy = son boyfriend; grandparent =
grandmother grandfather; grandchild = granddaughter grandson; grandchildren = granddaughter grandson; in-law =
mother-in-law father-in-law sister-in-law brother-in-law daughter-in-law son-in-law; pet = dog cat rabbit hamster
parrot budgie horse tortoise goldfish
"""
SELF = "self"
"""The kind of the person who speaks, where they are named."""


def _kinds() -> dict[str, frozenset[str]]:
    """The kinds of each word."""
    found = {word: {words.split()[0]} for words in _SAME.split(";") for word in words.split()}
    for line in _WIDER.split(";"):
        word, _, kinds = line.partition("=")
        found.setdefault(word.strip(), set()).update(kinds.split())
    return {word: frozenset(kinds) for word, kinds in found.items()}


_KINDS = _kinds()
_WORD = re.compile(r"[^\W_]+(?:-[^\W_]+)*")
_ANY = "|".join(sorted(_KINDS, key=len, reverse=True))
_ASKED = re.compile(rf"\b(?:my|our) (?:[\w-]+ ){{0,2}}?({_ANY})(?:s|'s|s')?\b(?!-)", re.IGNORECASE)
_YOURS = re.compile(rf"\byour (?:[\w-]+ )??({_ANY})(?:s|'s|s')?\b(?!-)", re.IGNORECASE)
_CHAIN = re.compile(rf"\b(?:{_ANY})(?:'s|s') (?:\w+ )?(?:{_ANY})\b", re.IGNORECASE)
_IN_LAW = re.compile(r"\b(mother|father|sister|brother|daughter|son) in law\b", re.IGNORECASE)
_BESIDE = re.compile(
    r"\b(?:i|we|(?:at|to|from|about|with|for|in|by|on|near|than|without|into|as) (?:my|our))\b", re.IGNORECASE
)
"""What a question holds that is of the person and somebody else, or of somebody beside them."""
_ASKS_WHO = re.compile(r"who(?!(?:'s| is| was| are) (?:my|our)\b)|whose|whom|which", re.IGNORECASE)
_NAME = re.compile(r"\bmy (?:full |first |last |real )?name\b|\bwho (?:am i|i am)\b|\bam i called\b", re.IGNORECASE)
_NAMED = re.compile(r"\b(?:[Mm]y (?:full |first |last |real )?name|[Cc]all me)\b|^(?:I'm|I am) [A-Z][a-z]+\b(?! \w)")
_OF_SELF = re.compile(r"(?:i|i'm|i've|i'd|i'll)\b", re.IGNORECASE)
_PLACE = re.compile(r"\b(?:in|at|to|from|near|on) [A-Z]\w*")
_NAMED_FIRST = re.compile(
    r"(?!(?:I|My|Our|We|It|He|She|They|You|This|That|These|There|Here|The|A|An|Some|Every|Each|On|In|At|For|To|With|From|"
    r"After|Before|Since|Until|When|While|If|So|And|But|Or|Oh|Well|Guess|Just|Got|Had|Been|Remember|Please|No|Not|Yes|"
    r"Yesterday|Today|Tonight|Tomorrow|Last|Next)\b)[A-Z]"
)
"""What a statement begins with that begins with a name, more or less: it is of the one who is named."""
_OF_OTHERS = re.compile(
    r"\b(?:he|she|they|him|her|them|his|hers|their|we|us|our)\b|(?<=.)(?-i:[A-Z])[a-z]", re.IGNORECASE
)


class Whose(NamedTuple):
    """Of whom a text is.

    Attributes
    ----------
    kinds : frozenset of str
        Those that its words may mean.
    is_open : bool
        It may be of others too: of somebody who is named, of somebody's own relations ("my wife's sister"), or of a
        question's "who".
    is_of_self : bool
        A statement of the person who speaks and of nobody else.
    """

    kinds: frozenset[str]
    is_open: bool = False
    is_of_self: bool = False


def asked_of(question: str) -> Whose:
    """Of whom a question is: those who are named as my or our own, or the person, by name."""
    question = _IN_LAW.sub(r"\1-in-law", question)
    if _CHAIN.search(question):
        return Whose(frozenset(), True)
    kinds = _kinds_of(_ASKED.findall(question)) | ({SELF} if _NAME.search(question) else frozenset())
    return Whose(kinds, _ASKS_WHO.match(question.strip()) is not None or _BESIDE.search(question) is not None)


def told_of(statement: str) -> Whose:
    """Of whom a statement is."""
    statement = _IN_LAW.sub(r"\1-in-law", statement)
    words = _WORD.findall(statement)
    kinds = _kinds_of(words) | ({SELF} if _NAMED.search(statement) else frozenset())
    if not kinds:
        of_others = _OF_OTHERS.search(_PLACE.sub("", statement)) is not None
        return Whose(kinds, is_of_self=_OF_SELF.match(statement) is not None and not of_others)
    named = _NAMED_FIRST.match(statement) is not None and not _kinds_of(words[:1])
    return Whose(kinds, named or _CHAIN.search(statement) is not None)


def names_another(reply: str, turn: str) -> bool:
    """Whether a reply speaks of somebody of the person's ("your niece") whom the turn does not name."""
    named = _kinds_of([word.lower() for word in _WORD.findall(turn)])
    return any(not _KINDS[found.lower()] & named for found in _YOURS.findall(reply))


def same_or_other(asked: Whose, told: Whose) -> int:
    """1 if both are of the same one, -1 if the statement is of another one, 0 if that cannot be said."""
    if asked.kinds & told.kinds:
        return 1
    if not asked.kinds or asked.is_open or told.is_open or not (told.kinds or told.is_of_self):
        return 0
    return -1


def _kinds_of(words: Sequence[str]) -> frozenset[str]:
    lower = [word.lower() for word in words]
    none: frozenset[str] = frozenset()
    return none.union(*(_KINDS.get(word) or _KINDS.get(word.removesuffix("s"), none) for word in lower))
