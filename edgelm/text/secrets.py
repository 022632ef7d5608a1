"""What must never be learned: lines that look like they hold a secret.

A filter of this kind errs on the side of skipping: a line that is skipped costs a little learning, one
that is learned may be repeated to whoever uses the device next.
"""

from __future__ import annotations

import math
import re
from collections import Counter

# The word, perhaps "is" or a sign, and something that is no ordinary small word.
_VALUE = r"\s*(?:\s(?:is|was|to|for \w+ is)\s|[:=]|是|为|：)\s*[\"'`]?(\S{3,})"
_PASSWORD = re.compile(r"(?:\bpass\s?(?:word|phrase|code)|\bpasswd|\bpwd|密码|口令)" + _VALUE, re.IGNORECASE)
_HARMLESS = frozenset(re.findall(r"\w+", "the a an my your his her our their not very too so safe secret hard easy"))
# These words have other uses: what follows must look like a code.
_CODE = re.compile(
    r"\b(?:pin(?:\s?(?:code|number))?|secret|(?:api|access|private)[\s_-]?key|token|cvv|cvc|tan|ssn|"
    r"social security(?: number)?)" + _VALUE,
    re.IGNORECASE,
)
_DATE = re.compile(r"\b\d{4}[-/.]\d{1,2}[-/.]\d{1,2}(?:[ T]\d{1,2}:\d{2}(?::\d{2})?)?|\b\d{1,2}:\d{2}(?::\d{2})?\b")
_EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_PHONE = re.compile(r"(?<![\w.,])(?:\+|00)?\(?\d[\d ()/.-]{6,}\d(?![\w,])")
_DIGITS = re.compile(r"(?<!\d)\d(?:[ -]?\d){11,18}(?!\d)")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}\b")
_WORD = re.compile(r"[A-Za-z0-9+/=_\-.]{16,}")
_BEGIN_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")


def is_secret(line: str) -> bool:
    """Whether a line holds a password after its word, a card or account number, a key, an e-mail address
    or a telephone number."""
    line = _DATE.sub(" ", line)
    return bool(
        _BEGIN_KEY.search(line)
        or any(match[1].strip(".,!?\"'`").lower() not in _HARMLESS for match in _PASSWORD.finditer(line))
        or any(any(c.isdigit() for c in match[1]) for match in _CODE.finditer(line))
        or _EMAIL.search(line)
        or any(_luhn(match[0]) for match in _DIGITS.finditer(line))
        or any(_iban(match[0]) for match in _IBAN.finditer(line))
        or any(_is_phone(match[0]) for match in _PHONE.finditer(line))
        or any(_is_key(match[0]) for match in _WORD.finditer(line))
    )


def without_secrets(text: str) -> tuple[str, int]:
    """``text`` without the lines that look like secrets, and how many they were."""
    lines = text.splitlines(keepends=True)
    kept = [line for line in lines if not is_secret(line)]
    return "".join(kept), len(lines) - len(kept)


def _luhn(number: str) -> bool:
    """The check digit of payment cards."""
    digits = [int(c) for c in reversed(number) if c.isdigit()]
    doubled = [d if i % 2 == 0 else sum(divmod(2 * d, 10)) for i, d in enumerate(digits)]
    return len(set(digits)) > 1 and sum(doubled) % 10 == 0


def _iban(number: str) -> bool:
    """The check digits of ISO 13616: the number, turned round and read in base 36, is 1 modulo 97."""
    plain = number.replace(" ", "")
    turned = plain[4:] + plain[:4]
    return int("".join(str(int(c, 36)) for c in turned)) % 97 == 1


def _is_phone(number: str) -> bool:
    digits = sum(c.isdigit() for c in number)
    # Years and dates are numbers with few digits; sums of money have no sign before and no spaces within.
    marked = number.startswith(("+", "00", "(", "0")) or number.count("-") + number.count(" ") >= 2
    if re.fullmatch(r"\(?(?:[12]\d{3}[ -]*)+", number):
        return False  # years
    looks_like_date = re.fullmatch(r"\d{1,4}[-/. ]\d{1,2}[-/. ]\d{1,4}", number.strip()) is not None
    return 8 <= digits <= 15 and marked and not looks_like_date


def _is_key(word: str) -> bool:
    """Letters and digits mixed at random: high entropy, and no words joined by signs."""
    has_both = any(c.isdigit() for c in word) and any(c.isalpha() for c in word)
    longest_word = max((len(part) for part in re.findall(r"[A-Z]?[a-z]+", word)), default=0)
    counts = Counter(word)
    entropy = -sum(n / len(word) * math.log2(n / len(word)) for n in counts.values())
    return has_both and longest_word < 8 and entropy > 3.2
