"""Numbers that belong to one person: cards, accounts, identity papers and telephones.

Every function takes a piece of bounded length (see ``secrets.py``), and every repetition in a pattern is
bounded or begins only where a word or a number begins.
"""

from __future__ import annotations

import re

_DIGITS = re.compile(r"\d+")
_CARD_GAP = re.compile(r"[\s.\-_/]{1,3}")
_IBAN = re.compile(r"(?<![A-Za-z0-9])(?:[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]){11,30}|[a-z]{2}\d{2}[a-z0-9]{11,30})")
_CHINESE_ID = re.compile(r"(?<!\d)\d{17}[\dXx](?![\dA-Za-z])")
_SSN = re.compile(r"(?<![\d-])\d{3}-\d{2}-\d{4}(?![\d-])")
# Issuer's first digits and how many digits its cards have (ISO/IEC 7812).
_ISSUER = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|2[2-7]\d{14}|3[47]\d{13}|3[0689]\d{12}|35\d{14}|"
    r"6\d{15,18}|5[06-8]\d{10,17}"
)

_DATE = re.compile(
    r"(?<!\d)\d{4}[-/.]\d{1,2}[-/.]\d{1,2}(?!\d)|(?<!\d)\d{1,2}[-/.]\d{1,2}[-/.]\d{4}(?!\d)|"
    r"(?<!\d)\d{1,2}:\d{2}(?::\d{2})?(?!\d)"
)
_BOOK = re.compile(r"\bISBN[\s:#-]{0,3}(?:1[03][\s:]{1,2})?[\dX -]{10,17}", re.IGNORECASE)
_PHONE = re.compile(r"(?<![\w.,/-])(?:\+|00)?[ ]?\(?\d[\d ()/.\-]{5,22}\d(?![\w,])")
_MARKED = re.compile(r"\+|00[1-9]|\(?0[1-9]|\(\d{2,4}\)")
# Three, three and four digits, as in North America, with or without the 1 of the country.
_AMERICAN = re.compile(r"(?:1[ .-])?\(?[2-9]\d{2}\)?[ .-]{1,2}\d{3}[ .-]\d{4}")
_CHINESE_MOBILE = re.compile(r"(?<!\d)1[3-9]\d[ -]?\d{4}[ -]?\d{4}(?!\d)")
_PHONE_WORD = re.compile(
    r"\b(?:(?:tele)?phones?|call|mobile|cell|whatsapp|tel|fax|dial|ring|text (?:me|him|her|us)|"
    r"(?:my|his|her|our|home|work|office|contact) number)\b|电话|手机",
    re.IGNORECASE,
)
_NEAR = 40


def has_card(text: str) -> bool:
    """Whether neighbouring groups of digits are together a card's number, whatever stands between them."""
    groups = list(_DIGITS.finditer(text))
    for first in range(len(groups)):
        if groups[first][0][0] not in "23456":
            continue
        number, end = "", groups[first].start()
        for group in groups[first : first + 19]:
            if number and not _CARD_GAP.fullmatch(text, end, group.start()):
                break
            number, end = number + group[0], group.end()
            if len(number) > 19:
                break
            if _ISSUER.fullmatch(number) and _luhn(number):
                return True
    return False


def has_account(text: str) -> bool:
    """Whether there is an IBAN; what follows it may look like more of it, so each end of a group is tried."""
    for match in _IBAN.finditer(text):
        plain = ""
        for group in re.findall(r"[A-Z0-9]+", match[0].upper()):
            plain += group
            if 15 <= len(plain) <= 34 and _iban(plain):
                return True
    return False


def has_identity(text: str) -> bool:
    """Whether there is a social security number or a Chinese identity number."""
    return _SSN.search(text) is not None or any(_chinese_id(m[0]) for m in _CHINESE_ID.finditer(text))


def has_phone(text: str) -> bool:
    """Whether there is a telephone number; one that has no usual form needs a word such as "call" before it."""
    text = _DATE.sub(" ; ", _BOOK.sub(" ; ", text))
    if _CHINESE_MOBILE.search(text):
        return True
    for match in _PHONE.finditer(text):
        number = match[0].strip()
        before = text[max(0, match.start() - _NEAR) : match.start()]
        if _is_phone(number) or (_has_phone_shape(number, 7) and _PHONE_WORD.search(before)):
            return True
    return False


def _luhn(number: str) -> bool:
    """The check digit of payment cards."""
    digits = [int(c) for c in reversed(number)]
    doubled = [d if i % 2 == 0 else sum(divmod(2 * d, 10)) for i, d in enumerate(digits)]
    return len(set(digits)) > 1 and sum(doubled) % 10 == 0


def _iban(plain: str) -> bool:
    """The check digits of ISO 13616: the number, turned round and read in base 36, is 1 modulo 97."""
    turned = plain[4:] + plain[:4]
    return int("".join(str(int(c, 36)) for c in turned)) % 97 == 1


def _chinese_id(number: str) -> bool:
    """The check digit of GB 11643: ISO 7064, modulo 11."""
    total = sum(int(c) * pow(2, 17 - i, 11) for i, c in enumerate(number[:17]))
    return "10X98765432"[total % 11] == number[17].upper()


def _is_phone(number: str) -> bool:
    if _AMERICAN.fullmatch(number):
        return True
    return _MARKED.match(number) is not None and _has_phone_shape(number, 9)


def _has_phone_shape(number: str, least: int) -> bool:
    """Enough digits, not nearly all alike, and neither a decimal fraction nor a row of years."""
    digits = [c for c in number if c.isdigit()]
    if not least <= len(digits) <= 15 or len(set(digits)) < 3:
        return False
    return re.fullmatch(r"\d+\.\d+|\(?(?:[12]\d{3}[ /-]*)+", number) is None
