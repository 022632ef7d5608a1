"""Makes the reply of an exchange one to another remark: nouns that differ are exchanged, or the reply is refused.

A word of the reply that was said in the exchange, and is not in the remark, speaks of something that the person did not
say. It gives way to the word of the remark that means something of the same kind ("lamp" to "vase"), or, if it is a
name or a number, to the one name or number of the remark. Where there is none, the reply does not fit.
"""

from __future__ import annotations

import re

import numpy as np

from edgelm.memory.bank import Exchange
from edgelm.memory.meaning import FIRST, Lines, Meaning
from edgelm.memory.sorrow import cheers_at_sorrow

KIND = 0.5
"""Cosine of their vectors in replies from which on two words are of one kind ("coffee" and "tea", not "cup")."""
RELATED = 0.35
"""Cosine from which on a word may stay in the reply beside one of the remark."""
CONTENT = 1.4
"""A word that weighs less is not one of content."""
_NUMBER = re.compile(
    r"\d+|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|(?:thir|four|fif|six|seven|eigh|nine)teen|"
    r"twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred|thousand",
    re.IGNORECASE,
)
_COUNTS = re.compile(
    rf"\b(?:{_NUMBER.pattern}|first|second|third|(?:four|fif|six|seven|eigh|nin|ten|eleven|twelf|\w+teen|\w+tie)th|\d+\w+)\b",
    re.IGNORECASE,
)
_UNIT = re.compile(r"\b(?:second|minute|hour|day|week|month|year)(?=s?\b)")
"""A number, whatever counts, and what time is counted in."""
_ENDINGS = ("s", "ing", "ed", "ly", "er", "est")
"""Two words whose endings differ are not exchanged: the sentence would not be one any more."""
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")
_COLOURS = frozenset([
    "black", "white", "grey", "gray", "red", "green", "blue", "yellow", "orange", "purple", "violet", "pink", "brown",
    "turquoise", "gold", "golden", "silver", "dark", "light", "pale", "bright",
])  # fmt: skip
"""Of one kind to the vectors, and not to whoever likes one of them."""
_HE = frozenset([
    "he", "him", "his", "himself", "man", "boy", "father", "dad", "daddy", "grandfather", "grandpa", "husband",
    "brother", "son", "uncle", "nephew", "mr", "boyfriend", "grandson", "gentleman", "king",
    "rooster", "bull", "guy", "lad", "men", "bloke",
])  # fmt: skip
_SHE = frozenset([
    "she", "her", "hers", "herself", "woman", "girl", "mother", "mum", "mom", "mummy", "grandmother", "grandma",
    "granny", "nan", "wife", "sister", "daughter", "aunt", "niece", "mrs", "ms", "girlfriend", "granddaughter",
    "lady", "queen", "hen", "cow", "women", "lass",
])  # fmt: skip
_SAYS_HE = frozenset(["he", "him", "his", "himself", "boy", "son", "grandson"])
_SAYS_SHE = frozenset(["she", "her", "hers", "herself", "girl", "daughter", "granddaughter"])


def adapted_reply(exchange: Exchange, remark: str, meaning: Meaning) -> str | None:
    """The reply of ``exchange`` as one to ``remark``, or None where it speaks of something else."""
    if _clash(exchange, remark) or _counts_other(exchange, remark) or cheers_at_sorrow(remark, exchange.reply):
        return None
    said, given = meaning.lines([exchange.said]), meaning.lines([remark])
    reply = meaning.lines([exchange.reply])
    said_stems, given_stems = set(said.stems.tolist()), set(given.stems.tolist())
    spelled, remark_words = _WORD.findall(exchange.reply), _WORD.findall(remark)
    if len(spelled) != len(reply.rows) or len(remark_words) != len(given.rows):
        return exchange.reply if not _foreign(reply, said_stems, given_stems, meaning).any() else None
    foreign = np.flatnonzero(
        _foreign(reply, said_stems, given_stems, meaning) | _numbers(reply, spelled, said_stems, given_stems)
    )
    fresh = [i for i, stem in enumerate(given.stems.tolist()) if stem not in said_stems]
    exchanged: dict[int, str] = {}
    if any(spelled[i].lower() in _COLOURS for i in foreign.tolist()):
        return None
    for i in foreign.tolist():
        word = _counterpart(i, spelled, reply.rows, fresh, remark_words, given.rows, meaning)
        if word is None:
            return None
        exchanged[i] = word
    return _replaced(exchange.reply, exchanged) if exchanged else exchange.reply


def speaks_of_another(exchange: Exchange, question: str, meaning: Meaning) -> bool:
    """Whether the reply names something of the kind of what the question asks for, and the exchange did not: "nine plus
    four is thirteen" says nothing to "nine minus four"."""
    asked, said, reply = (meaning.lines([text]) for text in (question, exchange.said, exchange.reply))
    open_ = ~np.isin(asked.stems, said.stems) & (meaning.weights(asked.rows) >= CONTENT)
    other = ~np.isin(reply.stems, asked.stems) & (meaning.weights(reply.rows) >= CONTENT)
    if not (open_.any() and other.any()):
        return False
    near = meaning.in_replies(asked.rows[open_]) @ meaning.in_replies(reply.rows[other]).T
    return bool(near.max() >= KIND)


def _foreign(reply: Lines, said: set[int], given: set[int], meaning: Meaning) -> np.ndarray:
    """Which words of the reply were said in the exchange and not in the remark, and carry content."""
    stems, rows = reply.stems.tolist(), reply.rows
    heavy = (meaning.weights(rows) >= CONTENT) | (rows < FIRST)
    return np.array([stem in said and stem not in given for stem in stems], np.bool_) & heavy


def _is_number(word: str) -> bool:
    return _NUMBER.fullmatch(word) is not None


def _numbers(reply: Lines, spelled: list[str], said: set[int], given: set[int]) -> np.ndarray:
    """Which words of the reply are numbers that were said in the exchange and not in the remark."""
    stems = reply.stems.tolist()
    return np.array(
        [_is_number(w) and s in said and s not in given for w, s in zip(spelled, stems, strict=True)], np.bool_
    )


def _counterpart(
    i: int,
    spelled: list[str],
    rows: np.ndarray,
    fresh: list[int],
    words: list[str],
    given: np.ndarray,
    meaning: Meaning,
) -> str | None:
    if not fresh:
        return None
    if _is_number(spelled[i]) or rows[i] < FIRST or (i and spelled[i][0].isupper()):
        # A name or a number: of those of the remark there must be one alone.
        alike = [j for j in fresh if _is_number(words[j]) == _is_number(spelled[i])]
        alike = [j for j in alike if _is_number(words[j]) or (words[j][0].isupper() and j and words[j] != "I")]
        return words[alike[0]] if len(alike) == 1 else None
    near = meaning.in_replies(rows[i : i + 1])[0] @ meaning.in_replies(given[fresh]).T
    best = int(near.argmax())
    word = words[fresh[best]]
    same_form = all(word.endswith(end) == spelled[i].endswith(end) for end in _ENDINGS)
    if near[best] >= KIND and same_form:
        return word
    # "Which book was it?" is a reply to a novel too.
    related = meaning.in_replies(rows[i : i + 1])[0] @ meaning.in_replies(given).T
    return spelled[i] if related.max() >= RELATED else None


def _replaced(text: str, exchanged: dict[int, str]) -> str:
    pieces, last = [], 0
    for i, match in enumerate(_WORD.finditer(text)):
        if (word := exchanged.get(i)) is not None:
            upper = match[0][0].isupper()
            pieces += [text[last : match.start()], (word[0].upper() + word[1:]) if upper else word]
            last = match.end()
    return "".join(pieces) + text[last:]


def _counts_other(exchange: Exchange, remark: str) -> bool:
    """Whether the reply takes up a number or a unit of time that was said in the exchange, and the remark has none, or
    another."""
    said, reply, given = (set(_UNIT.findall(text.lower())) for text in (exchange.said, exchange.reply, remark))
    if said & reply - given:
        return True
    counts = [{word.lower() for word in _COUNTS.findall(text)} for text in (exchange.said, exchange.reply, remark)]
    if counts[0] != counts[2] and counts[0] and counts[1] - counts[0] - counts[2]:
        return True  # "Six floors is a lot!", to the sixth floor
    return all(map(_COUNTS.search, (exchange.said, exchange.reply))) and not _COUNTS.search(remark)


def _clash(exchange: Exchange, remark: str) -> bool:
    """Whether a reply says he or she, boy or girl, of somebody of whom the remark does not tell which."""
    if exchange.entry_id is not None or exchange.said.casefold() == remark.casefold():
        return False
    spoken, told = _persons(exchange.reply), _persons(remark)
    says_he, says_she = bool(spoken & _SAYS_HE), bool(spoken & _SAYS_SHE)
    if says_he and says_she:
        return False  # "A boy or a girl?"
    return (says_he and not told & _HE) or (says_she and not told & _SHE)


def _persons(text: str) -> set[str]:
    """The words of a text without what hangs on them ("father's", "she'll", "stepson", "boys")."""
    words = {word.partition("'")[0].removeprefix("step") for word in _WORD.findall(text.lower().replace("’", "'"))}
    return words | {word.removesuffix("s") for word in words}
