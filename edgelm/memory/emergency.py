"""What is said where somebody may be in danger: whom to call. It goes before all other answers.

Only plain words for it count, of a person: a cat that does not move lies on the sofa. What is said in other words gets
an answer as usual, so nobody may rely on it.
"""

from __future__ import annotations

import re

from edgelm.memory.bank import Exchange

HELP = "That sounds dangerous. Please call for help now: 112 in Europe, 999 in Britain, 911 in America."
TALK = (
    "I am sorry that it is so hard. Please talk to somebody now: call 988 in America, 116 123 in Britain, or 112 in "
    "Europe."
)
"""To somebody who speaks of ending their life. 988 is the lifeline of the United States, 116 123 the Samaritans'."""
CALM = (
    "If you might really hurt somebody, please go away from them and call somebody now: 112 in Europe, 999 in Britain, "
    "911 in America."
)
"""To somebody who speaks of doing harm to others."""
ASK_FIRST = "Please ask your doctor before you stop it."
"""To somebody who stops taking what was prescribed."""
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
    r"(?:mov(?:e|ing)|wak(?:e|ing)|respond(?:ing)?|breath(?:e|ing))"
    r"\b(?! (?:before|until|for|in\b|out|a word))|"
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
    rf"{_WHO}(?:'s)? (?:has |have |just ){{0,2}}(?:collapsed|passed out|fainted)\W*$|"
    r"\b(?:swallowed|drank|drunk|ate|eaten|licked)\b[^.?!]{0,30}\b(?:poison|bleach|(?:drain|toilet|oven) cleaner|"
    r"antifreeze|thinner|detergent|petrol|lamp oil|magnets?|button batter(?:y|ies))\b|\boverdosed\b|"
    r"\b(?:took|taken|swallowed)\b[^.?!]{0,30}"
    r"\b(?:all|whole|too many|forty|fifty|thirty|twenty|\d\d+)\b[^.?!]{0,25}"
    r"\b(?:pills|tablets|paracetamol|aspirins?)\b|\beyes rolled back\b|\bhaving (?:a )?(?:seizures?|fit)\b(?! of)|"
    r"\b(?:baby|toddler|child)(?:'s| is| has| has turned| turned| went| lies)? (?:limp\b|blue(?=\W*$))|"
    rf"{_WHO}(?:'s)? (?:is |was )?(?:lying |lies )?(?:there|on the (?:\w+ )?(?:floor|ground))\b[^?.]{{0,40}}\b{_NOT} "
    r"answer(?:ing)?\b|"
    r"\bspeech (?:is|has gone|has become|went|got) (?:all |so )?slurred\b|"
    rf"(?:\b(?:my|his|her|their|one side of (?:his|her|the))|{_WHO}'s) (?:face|mouth)(?: is|'s)? droop(?:s|ed|ing)\b|"
    r"\b(?:my|his|her) chest (?:is|feels) (?:so |very |really |a bit )?tight\b(?! (?:in|from|after)\b)|"
    r"\b(?:can'?t|cannot|can not) get (?:any |enough )?air(?=\W*$| in\b(?! the)| and\b)|"
    r"\bface is hanging\b|\bvomit(?:ed|ing|s)? blood\b|\b(?:can'?t|cannot) stop the bleeding\b|"
    r"\bpregnant and (?:i'?m |i am )?bleeding\b|\b(?:i've|i have|has just|have just) been (?:stabbed|shot)\b|"
    r"\b(?:house|kitchen|flat|room|cellar) is full of smoke\b|"
    r"\b(?:carbon monoxide|co) (?:alarm|detector)\b|"
    r"\b(?:hair|clothes|bed|sleeve|dress|phone|laptop|battery|sofa|curtains?) "
    r"(?:caught fire|is (?:burning|on fire))\b(?! and i put|,? but)|"
    r"\bsmells? (?:a |of )?gas\b(?! station)|\bbreaking into (?:my|our) (?:house|flat|home)\b",
    re.IGNORECASE,
)
_ENDS = r"(?: any ?more| any longer)?\s*(?:[.!?,;]|$)"
_LIFE = re.compile(
    r"\b(?:hang|shoot|drown) myself\b|"
    r"\b(?:want|need|going|like|urge) to (?:cut|hurt|harm) myself\b(?! (?:a|some|off)\b)|"
    r"\b(?:no|any) (?:reason|point|sense) (?:to|in) (?:live|living|going on|go on)\b|\brather be dead\b|"
    r"\b(?:want to|wanna|could)\b[^.?!]{0,25}\b(?:never|not) wake up\b|"
    r"\bbetter off without me\b|\bgoing to overdose\b|"
    rf"\b(?:don'?t|do not|no longer) want to (?:be here|exist|wake up){_ENDS}|"
    r"\b(?:think|thinking|thoughts?) (?:about|of) (?:suicide|killing myself|ending it)\b|"
    r"\bjump(?:ing)? (?:off|from) (?:the|a) (?:bridge|roof|building|balcony)\b|"
    r"\bsitting on the (?:train|railway) tracks\b|"
    r"\bon the bridge,? (?:and )?looking down\b|"
    r"\b(?:kill myself\b(?! laughing)|end my (?:own )?life\b(?! as)|take my (?:own )?life\b)|"
    rf"\b(?:don'?t|do not) want to (?:live|be alive){_ENDS}|\b(?:want to|wanna) die{_ENDS}|"
    r"\b(?:i am|i'?m|feel(?:ing)?) suicidal\b|\bwish (?:that )?i (?:was|were) dead(?! weight)\b|"
    r"\b(?:want|wish) to be dead\b|\bwish to die\b|\bwish (?:that )?i(?:'d| would| could) (?:just )?die\b|"
    r"\bwish (?:that )?i had never been born\b|"
    r"\bbetter off dead\b(?! weight)|\bend it all\b|\bwant to hurt myself\b|\blife (?:is not|isn't) worth living\b",
    re.IGNORECASE,
)


_SENDS_FOR_HELP = re.compile(r"\b(?:vet|doctor|ambulance|emergency|poison|hospital|helpline|police)\b", re.I)
_VET, _ANIMAL = re.compile(r"\bvet\b", re.I), re.compile(
    r"\b(?:dog|cat|pup|pupp(?:y|ies)|kitten|rabbit|bunny|hamster|guinea|parrot|budgie|bird|horse|pony|tortoise|turtle|"
    r"(?:gold)?fish|hen|chicken|cow|calf|sheep|lamb|goat|pig|pet|vet|animal|paw|tail|ferret|rat|mouse|gecko|snake|lizard|"
    r"duck|goose|donkey|mutt|he|she|it)s?\b", re.I,
)  # fmt: skip
_PERIL = re.compile(
    r"\b(?:burn(?:s|ing)?|fire|smok(?:e|ing)|bleed(?:s|ing)?|blood|poison|stabbed|shot|shoot|killed|raped|murder|knife|gun|"
    r"cancer|dead|died|stopped eating|drown\w*|tracks|abused?)\b", re.I,
)  # fmt: skip
"""Words of a turn to which a reply must have been written for them."""
_PERSON = (
    r"(?:husband|wife|boss|ex|child|children|kids?|baby|son|daughter|mother|father|mum|mom|dad|brother|sister|neighbour|"
    r"neighbor|teacher|boyfriend|girlfriend|partner)"
)
_HARM = re.compile(
    r"\b(?:i(?:'d| would)? (?:really |just )?(?:want to|wanna|like to|plan to|feel like)|"
    r"i(?:'m| am) (?:going to|gonna)|i(?:'ll| will)) "
    r"(?:kill(?:ing)?|murder|stab(?:bing)?|strangl(?:e|ing)|poison(?:ing)?|hurt(?:ing)?) "
    rf"(?:him|her|them|somebody|someone|people|(?:my|our|the) (?:\w+ )?{_PERSON})\b"
    r"(?! (?:at|in (?:chess|tennis|cards|the game)))|"
    r"\bdrive into (?:the|a) crowd\b|\bvoices? (?:that )?(?:tell|tells|telling) me to (?:hurt|kill)\b",
    re.IGNORECASE,
)
_STOPS = re.compile(
    r"\b(?:stop|stopped|quit|stopping) (?:taking )?(?:my|his|her) (?:\w+ ){0,2}"
    r"(?:pills|tablets|insulin|medicines?|medication|chemo|antidepressants?)\b",
    re.IGNORECASE,
)


def in_danger(turn: str) -> str | None:
    """What to say to a turn that tells of somebody in danger, or of what will bring somebody into it; None where none
    does."""
    turn = turn.replace("’", "'")
    if _LIFE.search(turn):
        return TALK
    for pattern, answer in ((_DANGER, HELP), (_HARM, CALM), (_STOPS, ASK_FIRST)):
        if pattern.search(turn):
            return answer
    return None


def sends_for_help(reply: str) -> bool:
    """Whether a reply sends to a vet, a doctor or somebody else who helps."""
    return _SENDS_FOR_HELP.search(reply) is not None


def misses_danger(exchange: Exchange, turn: str) -> bool:
    """Whether a turn speaks of danger and an exchange does not, or sends somebody without an animal to a vet."""
    if _VET.search(exchange.reply) and not _ANIMAL.search(turn):
        return True
    peril = {word.lower() for word in _PERIL.findall(turn)}
    known = {word.lower() for word in _PERIL.findall(f"{exchange.said} {exchange.reply}")}
    return bool(peril) and not peril & known and not sends_for_help(exchange.reply)
