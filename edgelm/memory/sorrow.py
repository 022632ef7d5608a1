"""Whether a remark tells of something sad, or that it is over, and whether a reply is glad of it: by English words."""

from __future__ import annotations

import re

_SORROW = re.compile(
    r"\b(?:died|dead|dying|death|passed away|funeral|grief|miss (?:her|him|them|my)|lost my (?!first|baby)|ill|sick|"
    r"hospital|cancer|hurts?|pain|cried|crying|sad|lonely|alone|afraid|scared|terrible|awful|horrible|worst|fired|"
    r"divorced?|stolen|broken(?! up\b)|cheated|shouted|bullied|failed|cancelled|stressful|stressed|exhausted|depressed|"
    r"hopeless|tired|leaks|leaking|burnt|missed|forgot|annoying|angry|furious|upset|dropped|ruined|homesick|"
    r"broke(?! (?:up\b|the \w+ record))|"
    r"missing(?=\W*$| (?:since|for)\b)|dies?(?! hard)|bit (?:me|him|her|us|the|my|our)|"
    r"(?:was|were|been|got) (?:killed|stabbed|shot|raped|abused|murdered|run over|kidnapped|expelled)|raped|abusive|"
    r"(?:took|taken) (?:his|her|their) own li(?:fe|ves)|(?:killed|hanged|shot) (?:him|her|them)sel(?:f|ves)|suicide|"
    r"lost (?:his|her) life|stillborn|miscarriage|hospice|chemo|dialysis|amputat\w+|leuk\w+|coma|life support|"
    r"intensive care|deported|weeks to live|hate (?:myself|my life)|relapsed|"
    r"(?:hits?|beats?|chok(?:ed|es)|touch(?:es|ed)|locks?|forces|threatened|bull(?:y|ies)) (?:me|us)|"
    r"(?:mum|mom|mother|dad|father|nan|grand\w+|wife|husband|son|daughter|brother|sister|aunt|uncle|friend|colleague|"
    r"neighbour|he|she)(?: [A-Z]\w+)?(?: has|'s)? passed"
    r"(?=\W*$| (?:this|last|yesterday|peacefully|on (?:mon|tues|wednes|thurs|fri|satur|sun)day|in (?:his|her) sleep))|"
    r"in bed with (?:my|another|someone)|"
    r"ashamed|fever|fell (?:off|down|from|over|out of (?!love))|(?<!by )accident|prison|jail|arrested|robbed|injured|"
    r"(?:head|tooth|back|stomach)ache|spill(?:ed|t)|(?:cannot|can.t|couldn.t) find|stuck|sore|worried|stinks|unfair|"
    r"numb|bleeding|bitten|swollen|dizzy|fainted|(?<!a )hit by|drowned|(?:did not|didn.t) come back|"
    r"(?:he|she|they|voice|money|cat|dog)(?:.s| is| has)? (?:been )?gone|bankrupt|evicted|laid off|"
    r"embarrass(?:ing|ed)|not invited)\b|"
    r"\b(?:left|dumped) (?:me|us)(?=\s*(?:[.!?,;]|$|(?:for|after|when|because|yesterday|today|last|and|again|without|"
    r"(?:a|two|three|some|many) (?:days?|weeks?|months?|years?))\b))|"
    r"\b(?:split|splitting|broke|breaking|broken) up with (?:me|him|her|my)\b|"
    r"\b(?:ghosted|is leaving|walked out on) me\b",
    re.IGNORECASE,
)
_RELIEF = re.compile(
    r"(?:n't|\b(?:not|nobody|no longer|never))\b(?: (?:was|is|be|been|feel|a|an|have|had|do|in|so|get|got)){0,3} "
    r"(?:ill|sick|hurt|sad|lonely|afraid|scared|in (?:pain|hospital|prison)|hospital|prison|cancer|dead|die|died|fired|"
    r"stolen|fail|failed|missing|injured|stuck|bleeding|worried)\b(?! (?:alone|enough))|"
    r"\b(?:pain|headache|fever|tumou?r|lump|cancer|stomachache|backache|toothache)(?: is| has| was|'s)?(?: finally)? "
    r"(?:gone|over|benign)\b|\b(?:survived|beat) (?:the |my |her |his )?(?:accident|cancer|fire|stroke|crash)|"
    r"\bcancer-?free\b|\bno (?:more )?pain\b|\bno longer (?:have|has) (?:any )?pain\b|\bstopped crying\b|"
    r"\b(?:does|do|did)n't hurt\b",
    re.IGNORECASE,
)
"""What speaks of trouble only to say that it is not there, or not any more."""
_CHEER = re.compile(
    r"\b(?:congratulations|well done|hooray|hurray|hurrah|how (?:nice|lovely|wonderful|exciting|great|sweet|lucky)|"
    r"great!|wonderful!|lovely!|bravo|good for you|what a relief|happy birthday)|"
    r"^(?:lovely|nice|great|wonderful|good idea|yum)\b",
    re.IGNORECASE,
)


def is_sad(remark: str) -> bool:
    """Whether a remark tells of something sad or unpleasant."""
    return _SORROW.search(remark) is not None and not is_relief(remark)


def is_relief(remark: str) -> bool:
    """Whether a remark says that something sad or unpleasant is not so, or is over."""
    return _RELIEF.search(remark.replace("’", "'")) is not None


def cheers_at_sorrow(remark: str, reply: str) -> bool:
    """Whether a reply is glad of what the person is sad about."""
    return is_sad(remark) and _CHEER.search(reply) is not None
