"""Secrets that a word gives away: a password, a code or the number of a paper, in whatever order it is said.

Every function takes a piece of bounded length (see ``secrets.py``) and looks no further than a fixed number
of characters around the word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_BEFORE, _AFTER = 50, 70
_SENTENCE_END = re.compile(r"[.?;](?=\s)|!(?=\s+[A-Z]|\s*$)|[。！？；]")

_PASSWORD = re.compile(
    r"(?:(?<![a-z])(?:pass[\s_-]?(?:word|phrase|code)|passwd|pwd|pw(?=\s?[:=])|pass(?=\s?[:=])|passwort|kennwort|"
    r"mot de passe|contraseña|(?:code|safe|secret)[\s-]?word|security question|maiden name|"
    r"(?:seed|recovery|mnemonic|backup) (?:phrase|words)|mnemonic|(?:wi-?fi|network|wpa2?|router) key)s?|"
    r"密码|口令|暗号|助记词)",
    re.IGNORECASE,
)
# Words that speak of a login without naming a password: only a word like Adm1n!23 counts beside them.
_LOGIN = re.compile(
    r"\b(?:log(?:ged|ging)?[\s-]?(?:in|on)(?:to)?|sign(?:ed)? in|user ?(?:name|id)|credentials|"
    r"unlocks?)\b|账号|登录",
    re.IGNORECASE,
)
_SAYS = re.compile(
    r"(?:\s*(?::|=>?|->)\s*|['’]s\s+|\b(?:is|was|are|were|will be|called|named|being)(?:\s+(?:now|still|just|simply))?"
    r"(?:\s*:)?\s+|[是为叫]做?)[\"'“‘`]?(\S{2,64})",
    re.IGNORECASE,
)
_TO = re.compile(r"\b(?:to|into)\s+[\"'“‘`]?(\S{3,64}?)[\"'”’`]?(?:[.!?,;]|$|\s+(?:on|for|today|yesterday|last|so)\b)")
_CHANGES = re.compile(r"\b(?:set|chang|reset|switch|updat|made)", re.IGNORECASE)
_WITH = re.compile(
    r"\b(?:with|and|use|using|enter|type|say|give)\s+(?:(?:the|my|this|our|as)\s+)?(?:\w{1,20}\s+)?$", re.IGNORECASE
)
_NEXT = re.compile(r"\s+[\"'“‘`]?(\S{3,64})")
_IS_THE = re.compile(
    r"(\S{3,64}?)[\"'”’`]?\s+(?:(?:is|was)\s+(?:my|our|the|his|her)|(?:as|for)\s+(?:my|our|the|a|his|her|every))\s+"
    r"(?:[\w-]{1,20}\s+){0,2}$",
    re.IGNORECASE,
)
# What follows "the password is" or "with the password" in sentences that tell no password.
_HARMLESS = frozenset(
    re.findall(
        r"\w+",
        """the a an my your his her its our their this that these those it he she they we you i one what which who
        where when why how if whether because not never always often usually still already also only just even now too
        so very really quite more most less as like than about of in on at by for from to with without and or but no
        yes any some all both each every same different something anything nothing someone everyone there here then
        please again safe secret hard easy long short weak strong wrong right correct incorrect invalid valid bad good
        better best great old new fine simple complex secure unsafe important necessary mandatory optional private
        public personal unique known unknown missing empty case hidden lost gone stolen written kept sent given shown
        set made stuck forgotten broken taken down up out off back okay ok ready available impossible possible
        difficult funny boring stupid silly manager managers reset resets field fields box hint hints policy policies
        protection prompt rule rules list file reuse change changes recovery expert generator checker must should can
        could will would may might has have had does do did is was are were be been being going getting supposed twice
        first second last three four five six seven eight nine ten twelve characters letters digits asked used people
        things""",
    )
)
_HARMLESS_CHINESE = re.compile(r"[很不什多错对一非最要我你他她谁太没正忘吗怎哪学]")
# Names that mix letters and digits and are no password: measures, ordinals and names of techniques.
_COMMON_MIX = re.compile(
    r"\d+(?:st|nd|rd|th|s|am|pm|kg|km|cm|mm|m|g|[gmkt]b|[gmk]?hz|px|mins?|h|hrs?|d|k|x|-?bits?|e|-?(?:day|year|digit|char"
    r"|letter|hour|minute|month|week|step|factor)\w*)|"
    r"(?:sha|md|aes|rsa|utf|base|ipv|argon|wpa|mp|oauth|fido|windows|win|python|iphone|android|ios|covid|pbkdf|x|h|s|"
    r"ps|galaxy|level|chapter|page|room|version|v|web|http|usb|wifi|wi-fi)-?\d{1,4}\w{0,2}|2fa|u2f|mfa2|u?int\d+|float\d+",
    re.IGNORECASE,
)
_WORD = re.compile(r"[!-~]{4,64}")

_CODE = re.compile(
    r"(?<!ten[\s-])\b(?:pin(?:[\s-]?(?:code|number))?s?|cvv2?|cvc2?|otp|puk|"
    r"(?:door|gate|alarm|entry|access|security|verification|confirmation|log-?in|sign-?in|auth\w{0,12}|recovery|backup|"
    r"unlock|lock|locker|safe|keypad|entrance|garage|elevator|building|house|gym|one[\s-]time|sms|sim|activation|reset|"
    r"google|whatsapp|telegram|microsoft|2fa|mfa|two[\s-]factor|vault|voicemail|screen)[\s_-](?:pass)?codes?|"
    r"(?:2fa|mfa)|combination|"
    r"(?:passport|insurance|policy|account|card|licen[cs]e|tax|taxpayer|social security|nhs|medicare|medicaid|identity|"
    r"id card|membership|member|patient|routing|green card|visa|aadhaar|pension|student|health)"
    r"(?:\s\w{2,12})?[\s_-](?:numbers?|no\b\.?|id\b|#)|ssn|aadhaar|iban|sort code)(?![a-z])|"
    r"验证码|护照|身份证|账号|帐号|卡号|社保号|医保|锁屏|门禁",
    re.IGNORECASE,
)
_CODE_HINTS = re.findall(
    r"\S+",
    """pin cvv cvc otp puk code 2fa mfa combination number no id ssn aadhaar iban # key secret token serial bearer
    credential tan 验证码 护照 身份证 账号 帐号 卡号 社保号 医保 锁屏 门禁""",
)
_TAN = re.compile(r"\bTAN\b")
_NUMBER = re.compile(r"(?<![\w.,$€£¥])[A-Za-z]{0,4}-?\d[A-Za-z\d-]{1,30}(?![\w%]|[.,]\d)", re.ASCII)
_YEAR = re.compile(r"(?:19|20)\d\d")
_RIGHT_BEFORE = re.compile(
    r"(?:^|\b(?:is|was|are|be|to|as|code|number|pin|no)|[:=是为号码])[\s\"'#.]{0,3}$", re.IGNORECASE
)
# These words have many other uses: a code must follow a sign or "is".
_KEY = re.compile(
    r"(?:(?<![a-z])(?:api|access|private|secret|client|encryption|licen[cs]e|product|activation|signing|master)[\s_-]?"
    r"(?:key|secret|token)(?:[\s_-]id)?|\b(?:secret|token|key|serial(?: number)?|bearer|credential)s?)(?![a-z])",
    re.IGNORECASE,
)
_PLAIN_CODE = re.compile(
    r"(?<!error )(?<!area )(?<!zip )(?<!postal )(?<!post )(?<!country )(?<!exit )(?<!status )(?<!product )(?<!source )"
    r"(?<!response )\bcode\b",
    re.IGNORECASE,
)


def has_password(text: str) -> bool:
    """Whether a password is told beside its word."""
    return any(_tells(*near) for near in _around(_PASSWORD, text)) or any(
        any(_is_mixed(word[0], 6) for word in _WORD.finditer(f"{before} {after}"))
        for before, _, after in _around(_LOGIN, text)
    )


def has_code(text: str) -> bool:
    """Whether the number of a PIN, a door, a paper or an account, or the value of a key, is told beside its word."""
    lower = text.lower()
    if not any(word in lower for word in _CODE_HINTS):
        return False
    for pattern in (_CODE, _TAN):
        if any(_has_number(before) or _has_number(after, name) for before, name, after in _around(pattern, text)):
            return True
    for _, _, after in _around(_KEY, text):
        if any(_is_mixed(m[1], 5) for m in _SAYS.finditer(after)):
            return True
        first = _NEXT.match(after)
        if first and _is_mixed(first[1], 8):
            return True
    says = (m[1].strip(".,!?#\"'") for _, _, after in _around(_PLAIN_CODE, text) for m in _SAYS.finditer(after))
    return any(_is_mixed(value, 5) or re.fullmatch(r"\d{4,10}", value) for value in says)


def awaits_value(line: str) -> bool:
    """Whether a line names a password or code and leaves the value to the next line."""
    plain = line.rstrip()
    if len(plain) > 200 or not (len(plain) <= 40 or plain.lower().endswith(_OPEN_ENDS)):
        return False
    for pattern in (_PASSWORD, _CODE, _KEY):
        for name in pattern.finditer(plain):
            alone = _ALONE.fullmatch(plain, 0, name.start()) and not re.search(r"\w", plain[name.end() :])
            if _OPEN.fullmatch(plain, name.end()) or (alone and pattern is not _KEY):
                return True
    return False


_OPEN_ENDS = (":", "=", "：", "是", "为", "is", "are", "was")
_OPEN = re.compile(r"[^.!?]{0,40}?(?:[:=：]|\b(?:is|are|was)|是|为)", re.IGNORECASE)
_ALONE = re.compile(r"\W*(?:(?:user|assistant|my|the|our)\W+)?(?:[\w-]{1,15} )?", re.IGNORECASE)


def is_value(line: str, only_codes: bool = False) -> bool:
    """Whether a line is one value alone, as after "my password is:"; ``only_codes``: it must hold digits."""
    words = line.split()
    if not words or len(words) > 4:
        return False
    if any(_is_mixed(word, 4) or re.fullmatch(r"[\d-]{3,}", word) for word in words):
        return True
    return not only_codes and len(words) == 1 and words[0].lower().strip(".,!?") not in _HARMLESS


def _around(pattern: re.Pattern[str], text: str) -> Iterator[tuple[str, str, str]]:
    """For every match: what stands before it in its sentence, the match, and what stands after it."""
    for match in pattern.finditer(text):
        before = _SENTENCE_END.split(text[max(0, match.start() - _BEFORE) : match.start()])[-1]
        after = text[match.end() : match.end() + _AFTER]
        end = _SENTENCE_END.search(after)
        yield before, match[0], after[: end.start() + 1] if end else after


def _tells(before: str, name: str, after: str) -> bool:
    """Whether a sentence with the word ``name`` for a password tells the password."""
    if any(_is_mixed(word[0], 5) for word in _WORD.finditer(f"{before}{name}{after}")):
        return True
    if any(_is_value_word(m[1]) for m in _SAYS.finditer(after)):
        return True
    if re.search(r"[密口暗助]", name) and re.match(r"[^，。]{0,10}?[A-Za-z0-9]{4,}(?!年)", after):
        return True
    if _CHANGES.search(before) and any(_is_value_word(m[1]) for m in _TO.finditer(after)):
        return True
    named = _NEXT.match(after)
    if named and _WITH.search(before) and _is_value_word(named[1]):
        return True
    told = _IS_THE.search(before)
    return told is not None and _is_value_word(told[1])


def _is_value_word(word: str) -> bool:
    """Whether a word may be a password: no small word, participle or noun of everyday sentences."""
    plain = word.strip(".,!?;:\"'“”‘’`()").lower()
    if len(plain) < 3 or (plain.isalpha() and plain.isascii() and plain.endswith(("ed", "ing"))):
        return len(plain) == 2 and not plain.isascii() and not _HARMLESS_CHINESE.search(plain)
    if not plain.isascii() and _HARMLESS_CHINESE.match(plain):
        return False
    return plain.split("'")[0].split("’")[0] not in _HARMLESS


def _is_mixed(word: str, least: int) -> bool:
    """Whether a word of at least ``least`` characters mixes letters with digits, or has a sign amid letters."""
    plain = word.strip(".,?;:\"'`()[]<>")
    if len(plain) < least or plain.isalpha() or _COMMON_MIX.fullmatch(plain.strip("!")) or "://" in plain:
        return False
    has_letter = re.search(r"[A-Za-z]", plain) is not None
    return has_letter and re.search(r"\d|[A-Za-z][!@#$%^*]\w", plain) is not None


def _has_number(text: str, name: str = "") -> bool:
    """Whether there is a number that may be a code: three digits right after the word, else four and no year."""
    for match in _NUMBER.finditer(text):
        digits = sum(c.isdigit() for c in match[0])
        right_after = bool(name) and _RIGHT_BEFORE.search(text[: match.start()]) is not None
        if digits >= (3 if right_after else 4) and (right_after or not _YEAR.fullmatch(match[0])):
            return not _COMMON_MIX.fullmatch(match[0])
    return False
