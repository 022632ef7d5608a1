"""What must never be learned: lines that look like they hold a secret.

A filter of this kind errs on the side of skipping: a line that is skipped costs a little learning, one
that is learned may be repeated to whoever uses the device next.

The time is linear in the text: a line is cut into pieces of at most ``PIECE`` characters, which overlap by
``OVERLAP`` so that no secret is cut in two, and every pattern runs on one piece at a time.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

from edgelm.text.secret_numbers import has_account, has_card, has_identity, has_phone
from edgelm.text.secret_words import awaits_value, has_code, has_password, is_value

PIECE = 1024
OVERLAP = 256
SHORT = 200  # a line that is only a value, or only a part of a key's block, is no longer

# What well-known services put before their keys.
_PREFIXED = re.compile(
    r"(?<![A-Za-z0-9])(?:gh[pousr]_|github_pat_|gl(?:pat|ptt|dt|rt|ft)-|xox[abceoprs]-|xapp-|AKIA|ASIA|"
    r"AIza|ya29\.|GOCSPX-|(?:sk|pk|rk|whsec)_(?:live|test)?_?|sk-(?:ant-|proj-|or-)?|npm_|pypi-|hf_|gsk_|r8_|"
    r"dop_v1_|SG\.|shpat_|shpss_|eyJ[\w-]{5,}\.|hvs\.|tskey-|AGE-SECRET-KEY-|xprv|glsa_|lin_api_|sq0\w{3}-|"
    r"dckr_pat_|rubygems_|EAA|ATATT|figd_|ntn_)(?=[\w.-]{0,60}\d)[\w.-]{12,}"
)
_EMAIL = re.compile(
    r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}|"
    r"(?<![\w.+-])[\w.+-]{1,64}(?: at | ?[(\[]at[)\]] ?)[\w-]{1,63}(?: dot | ?[(\[]dot[)\]] ?)[a-z]{2,6}\b",
    re.IGNORECASE,
)
_URL = re.compile(
    r"(?<![a-z])[a-z][a-z0-9+.-]{1,20}://[^\s/@:]{0,64}:[^\s/@]{1,128}@|"
    r"[?&](?:access_|auth_|api_?|id_)?(?:token|key|password|pass|pwd|secret|sig|signature|code)=[^\s&]{4}",
    re.IGNORECASE,
)
_LONG_WORD = re.compile(r"(?<![A-Za-z0-9+/=_\-.])[A-Za-z0-9+/=_\-.]{16,}")
_WORDLIKE = re.compile(r"[A-Z]?[a-z]{3,}")
# Possessive throughout: between two words of a list there is one way to read the spaces, or the time grows as a power.
_SEED_WORD = r"\d{0,2}+[.)]?+ ?+[a-z]{3,8}+,?+\s++"
_SEED = re.compile(rf"\W*+(?:{_SEED_WORD}){{11}}(?:(?:{_SEED_WORD}){{12}})?\d{{0,2}}+[.)]?+ ?+[a-z]{{3,8}}+\W*")
_IN_SENTENCES = re.compile(r"\b(?:the|and|for|was|are|his|her|but|not|with|that|they|from)\b")
_BEGIN_KEY = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_IN_KEY = re.compile(
    r"\s*(?:> ?){0,3}(?:[A-Za-z0-9+/=]{0,200}|(?:Version|Comment|Hash|Charset|Proc-Type|DEK-Info): .{0,200})\s*"
)


def has_prefix(text: str) -> bool:
    """Whether a word begins like the keys of a well-known service."""
    return _PREFIXED.search(text) is not None


def has_address(text: str) -> bool:
    """Whether there is an e-mail address."""
    return _EMAIL.search(text) is not None


def has_url(text: str) -> bool:
    """Whether an address of the web holds a password or a token."""
    return _URL.search(text) is not None


def has_random_word(text: str) -> bool:
    """Whether a long word mixes letters and digits at random."""
    return any(_is_random(match[0]) for match in _LONG_WORD.finditer(text))


def has_seed(text: str) -> bool:
    """Whether the text is twelve or twenty-four small words and no sentence."""
    return _SEED.fullmatch(text) is not None and _IN_SENTENCES.search(text) is None


def has_key_block(text: str) -> bool:
    """Whether a block with a private key begins."""
    return _BEGIN_KEY.search(text) is not None


class SecretClass(NamedTuple):
    """One class of secrets: why it is one, what a text must contain in lower case, and what decides."""

    name: str
    reason: str
    hints: tuple[str, ...]
    found: Callable[[str], bool]


_DIGITS = tuple("0123456789")
_PASSWORD_HINTS = ("pass", "pw", "kennwort", "contrase", "word", "question", "maiden", "phrase", "mnemonic", "key")
_LOGIN_HINTS = ("log", "sign", "user", "credential", "unlock")
_CHINESE_HINTS = ("密", "口令", "暗号", "助记", "账号", "登录")
CLASSES = (
    SecretClass("key block", "A private key opens whatever trusts it.", ("-----begin",), has_key_block),
    SecretClass(
        "password", "A password is as good as its owner.", _PASSWORD_HINTS + _LOGIN_HINTS + _CHINESE_HINTS, has_password
    ),
    SecretClass(
        "e-mail", "An e-mail address names a person and opens the way to that person.", ("@", "dot"), has_address
    ),
    SecretClass(
        "web address", "A password or token in a web address works for all who read it.", ("://", "="), has_url
    ),
    SecretClass("code", "PINs, door codes, one-time codes and numbers of papers prove who one is.", _DIGITS, has_code),
    SecretClass("card", "A card's number pays.", _DIGITS, has_card),
    SecretClass("account", "An IBAN names a person's account.", _DIGITS, has_account),
    SecretClass("identity", "Numbers of the state are for life.", _DIGITS, has_identity),
    SecretClass("telephone", "A telephone number reaches one person.", _DIGITS, has_phone),
    SecretClass("service key", "The prefix says that it is a key of a known service.", _DIGITS, has_prefix),
    SecretClass("random word", "What no one could pronounce was made to be a key.", _DIGITS, has_random_word),
    SecretClass("seed phrase", "Twelve words hold all the money of a wallet.", ("",), has_seed),
)


def is_secret(line: str) -> bool:
    """Whether a line holds a secret of one of the ``CLASSES``."""
    if line.isascii():
        return any(_is_secret_piece(piece) for piece in _pieces(line))
    # Full-width digits and signs, and spaces of all widths, become plain ones; that can make a piece longer.
    plain = (unicodedata.normalize("NFKC", piece) for piece in _pieces(line))
    return any(_is_secret_piece(piece) for part in plain for piece in _pieces(part))


def without_secrets(text: str) -> tuple[str, int]:
    """``text`` without the lines that look like secrets, and how many they were.

    A private key goes with all the lines of its block, and so do the values below a line like "my password is:".
    """
    lines = text.splitlines(keepends=True)
    secret = [is_secret(line) for line in lines]
    at = 0
    while at < len(lines):
        if secret[at] and has_key_block(lines[at][:PIECE]):
            end = _end_of_block(lines, secret, at)
        else:
            end = _end_of_values(lines, at) if awaits_value(lines[at]) else at
        secret[at:end] = [True] * (end - at)
        at = max(at + 1, end)
    return "".join(line for line, is_one in zip(lines, secret, strict=True) if not is_one), sum(secret)


def _pieces(line: str) -> Iterator[str]:
    """The line in pieces of at most ``PIECE`` characters, each of which begins within the one before it."""
    yield line[:PIECE]
    for start in range(PIECE - OVERLAP, len(line) - OVERLAP, PIECE - OVERLAP):
        yield line[start : start + PIECE]


def _is_secret_piece(piece: str) -> bool:
    lower = piece.lower()
    hints: tuple[str, ...] = ()
    hinted = False
    for kind in CLASSES:
        if kind.hints is not hints:  # neighbours in the table share their hints
            hints, hinted = kind.hints, any(map(lower.__contains__, kind.hints))
        if hinted and kind.found(piece):
            return True
    return False


def _end_of_block(lines: list[str], secret: list[bool], first: int) -> int:
    """Where a key's block is over: behind its last line, or at the first line that cannot belong to it."""
    for at in range(first + 1, len(lines)):
        if "-----END" in lines[at][:PIECE]:
            return at + 1
        if not secret[at] and not (len(lines[at]) <= SHORT and _IN_KEY.fullmatch(lines[at])):
            return at
    return len(lines)


def _end_of_values(lines: list[str], first: int) -> int:
    """Where the values below the line that names a password are over; ``first`` if there are none."""
    begin = first + 1
    while begin < min(first + 3, len(lines)) and not lines[begin].strip():
        begin += 1
    end = begin
    while end < len(lines) and len(lines[end]) <= SHORT and is_value(lines[end], only_codes=end > begin):
        end += 1
    return end if end > begin else first


def _is_random(word: str) -> bool:
    """Letters and digits mixed at random: high entropy, and less than half of it is words."""
    if not (any(c.isdigit() for c in word) and any(c.isalpha() for c in word)):
        return False
    parts = re.findall(r"[A-Za-z0-9]+", word)
    wordlike = sum(len(p) if p.isalpha() and len(p) > 2 else sum(map(len, _WORDLIKE.findall(p))) for p in parts)
    counts = Counter(word)
    entropy = -sum(n / len(word) * math.log2(n / len(word)) for n in counts.values())
    return wordlike < sum(map(len, parts)) / 2 and entropy > 3.2
