"""What is said where somebody may be in danger: whom to call. It goes before all other answers.

Only plain words for it count. A text that is not one of these gets an answer as usual, so nobody may rely on it.
"""

from __future__ import annotations

import re

HELP = "That sounds dangerous. Please call for help now: 112 in Europe, 999 in Britain, 911 in America."
TALK = (
    "I am sorry that it is so hard. Please talk to somebody now: call 988 in America, 116 123 in Britain, or 112 in "
    "Europe."
)
"""To somebody who speaks of ending their life. 988 is the lifeline of the United States, 116 123 the Samaritans'."""
_NO_MOVE = r"(?:does not|doesn't|do not|don't|did not|didn't|will not|won't|is not|isn't|not|can't|cannot)"
_DANGER = re.compile(
    rf"\b(?:fell|fallen|collapsed|fainted|lying|lies|floor|hit)\b.*\b{_NO_MOVE} "
    r"(?:mov(?:e|ing)|wak(?:e|ing)|respond|answer|breath(?:e|ing))|"
    rf"\b(?:he|she|baby|mum|mom|dad|son|daughter|husband|wife|grand\w+) {_NO_MOVE} breath(?:e|ing)\b|"
    r"\bstopped breathing\b|\b(?:is|was|lies|lying|found \w+) unconscious\b|\bis choking\b|"
    r"\b(?:having|has had|had) a (?:heart attack|stroke)\b|\bbleeding (?:badly|heavily|a lot)|"
    r"\b(?:won't|doesn't|does not) stop bleeding|"
    r"\bswallowed (?:some |a |the )?(?:bleach|pills|batter(?:y|ies)|poison)\b|"
    r"\b(?:house|flat|kitchen|oven|curtains?|hob|room|roof) (?:is|are) (?:on fire|burning)|\bsmell gas\b",
    re.IGNORECASE | re.DOTALL,
)
_LIFE = re.compile(
    r"\b(?:kill myself|end my life|take my (?:own )?life|don't want to (?:live|be alive)|do not want to live|"
    r"want to die|suicidal|better off dead)\b",
    re.IGNORECASE,
)


def in_danger(turn: str) -> str | None:
    """What to say to a turn that tells of somebody in danger; None where none does."""
    turn = turn.replace("’", "'")
    if _LIFE.search(turn):
        return TALK
    return HELP if _DANGER.search(turn) else None
