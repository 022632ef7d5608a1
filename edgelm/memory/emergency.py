"""What is said where somebody may be in danger: whom to call. It goes before all other answers.

Only plain words for it count, of a person: a cat that does not move lies on the sofa. What is said in other words gets
an answer as usual, so nobody may rely on it.
"""

from __future__ import annotations

import re

HELP = "That sounds dangerous. Please call for help now: 112 in Europe, 999 in Britain, 911 in America."
TALK = (
    "I am sorry that it is so hard. Please talk to somebody now: call 988 in America, 116 123 in Britain, or 112 in "
    "Europe."
)
"""To somebody who speaks of ending their life. 988 is the lifeline of the United States, 116 123 the Samaritans'."""
_NOT = r"(?:(?:does|do|did|is|wo|ca)(?:n'?t| not)|will not|cannot|not)"
_WHO = (
    r"\b(?:he|she|i|who|baby|toddler|child|mum|mom|mother|dad|father|son|daughter|brother|sister|husband|wife|friend|"
    r"girlfriend|boyfriend|partner|man|woman|somebody|someone|grand\w+|uncle|aunt|neighbou?r)"
)
_DOWN = (
    r"(?:(?:fell|fallen)(?! (?:asleep|in love))|collapsed|fainted|passed out|"
    r"(?:is |was )?(?:lying|lies) (?:there|on the (?:floor|ground)))"
)
_DANGER = re.compile(
    rf"{_WHO}(?:'s)? (?:just |has |have ){{0,2}}{_DOWN}\b[^?]{{0,80}}\b{_NOT} "
    r"(?:mov(?:e|ing)|wak(?:e|ing)|respond(?:ing)?|breath(?:e|ing))\b(?! (?:before|until|for|in\b|out|a word))|"
    rf"{_WHO}(?:'?s)? (?:is )?(?:{_NOT}|(?:has )?stopped) breath(?:e|ing)\b(?! (?:a word|for a|through))|"
    rf"{_WHO}(?:'s| is| was| lies| lying) unconscious\b(?! (?:of|bias))|\bfound \w+ unconscious\b|"
    rf"{_WHO}(?:'s|'m| is| am) (?:choking\b(?! with)|drowning\b(?! in))|"
    r"\b(?:having|has just had) a (?:heart attack|stroke)\b(?! of)|"
    rf"{_WHO}(?:'s| is)? bleeding (?:badly|heavily|a lot)\b|\b(?:won't|doesn't|does not) stop bleeding|"
    rf"{_WHO}(?:'s)? {_NOT} (?:wake|waking) up\b(?! (?:before|until|for|once|in\b|at\b|early))|"
    r"\b(?:has|have|is) no pulse\b|"
    r"\b(?:swallowed|drank) (?:some |a |the )?(?:button )?(?:bleach|pills|batter(?:y|ies)|poison)\b|"
    r"\btook (?:an overdose|too many pills)\b|\b(?:terrible|bad|strong) chest pain|"
    r"\b(?:house|home|flat|kitchen|curtains?|hob|room|roof) (?:is|are) (?:on fire|burning down)\b|"
    r"\b(?:there's|there is) a fire in the (?:house|home|flat|kitchen|room|hall|cellar)\b|"
    r"\bsmells? (?:a |of )?gas\b(?! station)|\bbreaking into (?:my|our) (?:house|flat|home)\b",
    re.IGNORECASE,
)
_ENDS = r"(?: any ?more| any longer)?\s*(?:[.!?,;]|$)"
_LIFE = re.compile(
    r"\b(?:kill myself\b(?! laughing)|end my (?:own )?life\b(?! as)|take my (?:own )?life\b)|"
    rf"\b(?:don'?t|do not) want to (?:live|be alive){_ENDS}|\b(?:want to|wanna) die{_ENDS}|"
    r"\b(?:i am|i'?m|feel(?:ing)?) suicidal\b|\bwish (?:that )?i (?:was|were) dead(?! weight)\b|"
    r"\b(?:want|wish) to be dead\b|\bwish to die\b|\bwish (?:that )?i(?:'d| would| could) (?:just )?die\b|"
    r"\bwish (?:that )?i had never been born\b|"
    r"\bbetter off dead\b(?! weight)|\bend it all\b|\bwant to hurt myself\b|\blife (?:is not|isn't) worth living\b",
    re.IGNORECASE,
)


def in_danger(turn: str) -> str | None:
    """What to say to a turn that tells of somebody in danger; None where none does."""
    turn = turn.replace("’", "'")
    if _LIFE.search(turn):
        return TALK
    return HELP if _DANGER.search(turn) else None
