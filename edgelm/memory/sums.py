"""Sums that are asked for plainly ("what is nine minus four", "12 x 34", "15% of 80"), worked out exactly.

English number words, figures, the four operations, percent and shares; times and divided by bind first. What four
places do not hold is rounded to them, and said to be about that.
"""

from __future__ import annotations

import re
from fractions import Fraction

_UNITS = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]  # fmt: skip
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_VALUES = {word: n for n, word in enumerate(_UNITS)} | {word: 10 * n for n, word in enumerate(_TENS, 2)}
_SCALES = {"thousand": 1000, "million": 1_000_000}
_SHARES = {"half": Fraction(1, 2), "third": Fraction(1, 3), "quarter": Fraction(1, 4), "tenth": Fraction(1, 10)}
_OPERATIONS = {
    "+": "plus", "plus": "plus", "-": "minus", "minus": "minus", "take away": "minus", "less": "minus",
    "*": "times", "x": "times", "times": "times", "multiplied by": "times",
    "/": "divided by", "divided by": "divided by", "over": "divided by",
    "percent of": "percent of", "per cent of": "percent of", "% of": "percent of",
}  # fmt: skip


def _any_of(words: list[str]) -> str:
    return "|".join(sorted(words, key=len, reverse=True))


_WORD = rf"(?:\b(?:{_any_of(_TENS)})-(?:{_any_of(_UNITS[1:10])})\b|\b(?:{_any_of([*_VALUES, *_SCALES, 'hundred'])})\b)"
_FIGURES = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?![\d,.]*\d)"
_NUMBER = rf"(?:{_FIGURES}|(?:\ba\s+(?=hundred|thousand|million))?{_WORD}(?:\s+(?:and\s+)?{_WORD})*)"
_OPERATION = "|".join(
    re.escape(sign) if not sign[-1].isalpha() else rf"\b{sign}\b" for sign in sorted(_OPERATIONS, key=len, reverse=True)
).replace(r"%\ of", r"%\s?of\b")
_ASKED = re.compile(
    r"^[\s\"'(]*(?:(?:hey|hi|so|ok|please|and|quick|can you tell me|tell me|do you know|calculate|work out)[\s,:]+)*"
    r"(?P<asks>what(?:'?s|\s+is|\s+are|\s+does)?\s+|how\s+much\s+(?:is|are)\s+)?"
    rf"(?P<sum>(?:(?:a|one)\s+)?(?P<share>{'|'.join(_SHARES)})\s+of\s+(?P<whole>{_NUMBER})|"
    rf"{_NUMBER}(?:\s*(?:{_OPERATION})\s*{_NUMBER}){{1,5}})\s*"
    r"(?:=|equals?|make|please|then|again)?[\s?!.=]*$",
    re.IGNORECASE | re.ASCII,
)
_PIECE = re.compile(rf"({_NUMBER})|({_OPERATION})", re.IGNORECASE | re.ASCII)
_BARE = re.compile(r"^\d+\s*[-/]\s*\d+$")
"""Without a question a day, a score or a number to call may be meant."""
_SAYINGS = frozenset(["24/7", "9/11", "7/11", "50/50"])
MOST_DIGITS, MOST_CHARS = 12, 120
"""Of a number in figures, and of a turn; people who reckon with longer ones do not ask here."""


def worked_out(turn: str) -> str | None:
    """What a sum comes to, in a sentence; None where none is asked for, or where it has no result."""
    turn = turn.strip().replace("’", "'").replace("−", "-").replace("×", "x").replace("÷", "/")
    asked = _ASKED.match(turn) if len(turn) <= MOST_CHARS else None
    if asked is None or any(len(digits) > MOST_DIGITS for digits in re.findall(r"\d+", turn.replace(",", ""))):
        return None
    text = " ".join(asked["sum"].split())
    if text in _SAYINGS or (not asked["asks"] and _BARE.match(text)):
        return None
    result = _share(asked["share"], asked["whole"]) if asked["share"] is not None else _reckoned(text)
    if result is None:
        return None
    written = _written(result, spelled=re.search(r"\d", text) is None)
    verb = "is" if result.denominator in _EXACT else "is about"
    return None if result and written == "0" else f"{text[0].upper()}{text[1:]} {verb} {written}."


def _share(share: str, whole: str) -> Fraction | None:
    value = _value(whole)
    return None if value is None else _SHARES[share.lower()] * value


def _reckoned(text: str) -> Fraction | None:
    """What numbers with operations between them come to."""
    pieces = [piece.group(0).lower() for piece in _PIECE.finditer(text)]
    numbers = [value for piece in pieces[::2] if (value := _value(piece)) is not None]
    operations = [_OPERATIONS[piece.replace("%of", "% of")] for piece in pieces[1::2]]
    return _result(numbers, operations) if len(numbers) == len(operations) + 1 else None


def _value(number: str) -> Fraction | None:
    """What a number in figures or words is worth; None where its words are no number ("one two")."""
    if number[0].isdigit():
        return Fraction(number.replace(",", ""))
    total, part, least = 0, 0, 1000
    for word in re.findall(r"[a-z]+", number.lower()):
        if word in ("a", "and"):
            continue
        if word == "hundred" and part < 100:
            part, least = max(1, part) * 100, 100
        elif word in _SCALES and (not total or total % (1000 * _SCALES[word]) == 0):
            total, part, least = total + max(1, part) * _SCALES[word], 0, 1000
        elif word in _VALUES and _VALUES[word] < least:
            part, least = part + _VALUES[word], 10 if _VALUES[word] >= 20 else 0
        else:
            return None
    return Fraction(total + part)


def _result(numbers: list[Fraction], operations: list[str]) -> Fraction | None:
    """Times, divided by and percent of first, then plus and minus, each from left to right."""
    terms, signs = numbers[:1], [1]
    for number, operation in zip(numbers[1:], operations, strict=True):
        if operation == "divided by" and not number:
            return None
        if operation == "times":
            terms[-1] *= number
        elif operation == "divided by":
            terms[-1] /= number
        elif operation == "percent of":
            terms[-1] *= number / 100
        else:
            terms.append(number)
            signs.append(1 if operation == "plus" else -1)
    return sum((sign * term for sign, term in zip(signs, terms, strict=True)), Fraction(0))


_EXACT = frozenset(2**a * 5**b for a in range(5) for b in range(5))
"""Denominators of numbers that four places hold."""


def _written(number: Fraction, *, spelled: bool) -> str:
    """A number in figures; in words where the sum was and there is a word or two for it."""
    if number < 0:
        return f"minus {_written(-number, spelled=spelled)}"
    if spelled and number.denominator == 1 and number <= 100:
        n = int(number)
        if n < len(_UNITS):
            return _UNITS[n]
        if n == 100:
            return "a hundred"
        return _TENS[n // 10 - 2] + (f"-{_UNITS[n % 10]}" if n % 10 else "")
    whole, places = divmod(round(number * 10_000), 10_000)
    return f"{whole:,}" + (f".{places:04}".rstrip("0") if places else "")
