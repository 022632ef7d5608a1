"""Whether a statement holds what a question asks for: a number, a time, a name."""

from __future__ import annotations

import re

_NUMBER = re.compile(
    r"\d|\b(?:no|none|nothing|half|quarter|third|quarters|thirds|one|two|three|four|five|six|seven|eight|nine|ten|eleven|"
    r"twelve|\w+teen|\w*(?:twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety)(?:-\w+)?|\w*hundred|\w*thousand|million|"
    r"dozens?|couple|pair|twins?|triplets|both|double|once|twice|thrice|first|second|fourth|fifth|sixth|seventh|eighth|"
    r"ninth|tenth|\w+(?:tieth|enth)|fiver|tenner|grand|score|single|only|free|every|each|all|few|several)\b",
    re.IGNORECASE,
)
_TIME = re.compile(
    r"\d|\b(?:mon|tues|wednes|thurs|fri|satur|sun|to|yester|birth|mid|week|holi|every)?days?\b|"
    r"\b(?:january|february|march|april|may|june|july|august|september|october|november|december|jan|feb|apr|aug|sept?|"
    r"oct|nov|dec|spring|summer|autumn|fall|winter|(?:over|to|fort)?nights?|mornings?|afternoons?|evenings?|noon|midnight|"
    r"dawn|dusk|breakfast|lunch|dinner|supper|bed|tomorrow|now|currently|already|just|still|soon|later|early|late|earlier|"
    r"then|ago|since|until|till|before|after|when|whenever|while|during|once|twice|always|never|often|usually|daily|nightly|"
    r"weekly|monthly|yearly|annually|every|each|next|last|first|moments?|seconds?|minutes?|hours?|weeks?|weekends?|months?|"
    r"years?|decades?|centur\w+|terms?|semesters?|christmas|easter|ramadan|eid|diwali|hanukkah|passover|thanksgiving|"
    r"halloween|advent|lent|new year|eve|o'clock|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|"
    r"(?:twen|thir|for|fif|six|seven|eigh|nine)ty|second|third|(?:four|fif|six|seven|eigh|nin|ten|eleven|twelf|\w+tie)th|"
    r"\w+teen(?:th)?|school|war|child\w*|young|age|aged|old|born|at|for)\b",
    re.IGNORECASE,
)
_NAME = re.compile(
    r"(?<=.)(?<![.!?] )\b(?!(?:I|I'm|I've|I'd|I'll)\b)[A-Z]|^(?!(?:I|My|Our|The|We|It|He|She|They)\b)[A-Z]"
)
_OF_NUMBERS = re.compile(r"\bhow (?:many|much|old|tall|far|heavy|high|big)\b|\bwhat (?:age|size|time)\b", re.IGNORECASE)
_OF_TIMES = re.compile(r"^when\b|\b(?:what|which) (?:day|date|month|year|weekday|season)\b", re.IGNORECASE)
_OF_NAMES = re.compile(
    r"\b(?:names?|called)\W*$|^what(?:'s| is| are| was) the (?:\w+ )?names?\b|^who(?:'s| is) (?:my|our)\b",
    re.IGNORECASE,
)
_OF_BIRTHDAYS = re.compile(r"^(?:when|(?:what|which) (?:day|date))\b.*\bbirthday\W*$", re.IGNORECASE)
_DATE = re.compile(
    r"\d|\b(?:birth\w*|born|turn(?:s|ed|ing)?|yesterday|tomorrow|today|(?:mon|tues|wednes|thurs|fri|satur|sun)day|"
    r"jan\w*|feb\w*|march|april|may|june|july|august|sept\w*|oct\w*|nov\w*|dec\w*|christmas|easter|spring|summer|autumn|"
    r"winter)\b",
    re.IGNORECASE,
)
_ASKED = ((_OF_BIRTHDAYS, _DATE), (_OF_NUMBERS, _NUMBER), (_OF_TIMES, _TIME), (_OF_NAMES, _NAME))


def expected_in(question: str) -> list[re.Pattern[str]]:
    """What each answer to a question must hold, as patterns; none where it may be anything."""
    return [answers for asks, answers in _ASKED if asks.search(question)]


def lacks(statement: str, expected: list[re.Pattern[str]]) -> bool:
    """Whether a statement has not all that an answer must hold."""
    return not all(pattern.search(statement) for pattern in expected)
