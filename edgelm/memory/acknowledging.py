"""What is said to a turn that nothing fits: a reply that suits every turn of its kind, or that it was heard.

A small model's own reply to a remark misses it nearly always, and so do three of four exchanges of the bank that are
near, but not near enough to be given; no score tells when (docs/experiments.md, 2026-11-28). Of the forms of a
kind the one is taken that was given longest ago in the conversation.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from edgelm.memory.kinds import ASKS, GLAD, LASTING, PERIL, SAD, Kind
from edgelm.memory.reminder import REMEMBERED
from edgelm.memory.sorrow import is_relief, is_sad
from edgelm.memory.statements import SENTENCE, denies, is_question, speaks_of_me
from edgelm.text.indirect import indirect
from edgelm.text.person import second_person

UNKNOWN_ANSWER, CANNOT = "I do not know that.", "I am sorry, I cannot do that."
UNKNOWN = "I am sorry, I do not know {}."
"""To a question that can be said back as a clause."""
ABILITIES = "I can talk with you and remember what you tell me, but not much more."
"""To somebody who asks whether the assistant can or will do something."""
SYMPATHY = ("I am sorry to hear that.", "That does not sound easy.", "I am sorry. Do you want to tell me more?")
GLADNESS = ("That is good to hear.", "How nice.", "I am glad to hear that.")
TO_COME = ("I see. How do you feel about that?", "I see. Is there much to do before?", "I see. Good that you tell me.")
"""To what is going to be: it may be anything, so that nobody is wished success."""
THANKS = (
    REMEMBERED, "Good to know. I will remember it.", "I will keep that in mind.", "Thank you for telling me.",
    "All right, I will remember that.",
)  # fmt: skip
TAKEN_UP = ("I see. I will remember that {}", "Thank you, I will remember that {}")
"""With a short statement of the person about themselves or their own, said back."""
KEPT, CALLED = "I will remember it: {}", "All right, {}. I will remember it."
NOT_KEPT = "I do not learn in this chat, so I will not keep that."
"""To somebody who asks for that, or says what to be called."""
GO_ON = ("I see. Tell me more, if you like.", "I see. I am listening.", "I see. Thank you for telling me.")
CONTEXT_WORDS = 3
"""A turn of fewer words leans on what was said before ("Thanks", "Yes"): the model answers it, not the bank, whose
exchanges stand alone."""
_TO_YOU = re.compile(
    r"^\W*(?:hello|hi|hey|good (?:morning|afternoon|evening|night)|thanks?|sorry|excuse me|please|yes|no|okay|ok|"
    r"you(?:'re|'ve)?|your)\b",
    re.IGNORECASE,
)
"""How a turn begins that is about the talk itself; the bank and the model have replies to it."""
_REQUEST = re.compile(
    r"^\W*(?!imagine (?:my|that)\b|correct me if|pick up\b|read that\b)"
    r"(?:tell|name|give|write|list|explain|show|play|call|wake|remind|turn|switch|set|open|close|pass|buy|order|send|"
    r"read|sing|translate|spell|count|find|draw|bring|make|put|help|describe|rewrite|suggest|advise|recommend|compare|"
    r"convert|choose|pick|invent|imagine|define|correct|finish|complete|repeat|guess) "
    r"(?:me|us|an?|the|my|our|it|this|that|some\w*|one|two|three|on|off|up|down|why|how|what|where|who|when)\b",
    re.IGNORECASE,
)
"""How somebody asks for something to be done."""
_OF_ABILITY = re.compile(
    r"^\W*(?:can|could|will|would) you\b"
    r"(?! (?:tell|say|know|remember|recall|believe|imagine|hear|rather|like|mind|recommend|suggest|explain|advise)\b)",
    re.IGNORECASE,
)
_KEEP = re.compile(
    r"^\W*(?:please )?(?:remember|do(?:n'?t| not) forget|keep in mind|make a note)\b[:,]?(?: that\b)? "
    r"(?P<told>(?P<lower>(?:my|our|i|i'm|we|the|there|on|at|in|every)\b)?"
    r"(?(lower)|(?!wh|how|that|it)\w+(?:'s| is| are| has| was)\b).*)",
    re.IGNORECASE | re.DOTALL,
)
_HOLDS = re.compile(
    r"\b(?:am|is|are|was|were|has|have|had|do|does|will|can|must|never|always|likes?|loves?|hates?|needs?|wants?|lives?|"
    r"works?|takes?|goe?s?|comes?|visits?|leaves?|starts?|opens?|closes?|eats?|drinks?|wears?|keeps?|plays?|hangs?|"
    r"stands?|lies|arrives?|collects?|prefers?|picks?|sleeps?)\b|\w'(?:m|s|re|ve|ll)\b|n't\b",
    re.IGNORECASE,
)
"""How somebody asks that something be remembered; and what it must say to be told."""
_CALL_ME = re.compile(
    r"^\W*(?:please |you can |you may |just )?call me (?P<name>[^\W\d_][\w'-]*(?: (?-i:[A-Z])[\w'-]*){0,2})"
    r"(?=\W*$|[,.!]| from now| instead| please)",
    re.IGNORECASE,
)
_NO_NAME = frozenset([
    "back", "later", "tomorrow", "tonight", "today", "now", "again", "soon", "whatever", "anything", "anytime", "maybe",
    "crazy", "stupid", "old", "lazy", "mad", "names", "that", "this", "it", "out", "up", "when", "if", "at", "as", "by",
    "in", "on", "a", "an", "the", "my", "your", "sometime", "something", "somebody",
])  # fmt: skip
_MEMORIES = re.compile(r"(?:the|our|my) (?:\w+ ){0,3}(?:time|day|night|summer|year|trip)s?\b", re.IGNORECASE)
"""How somebody says what to be called, and what is no name; and what is not told, but called to mind."""
_GLAD = re.compile(
    r"\b(?:finally|won|proud|prize|lovely|beautiful|wonderful|perfect|delicious|happy|glad|grateful|great)\b",
    re.IGNORECASE,
)
_TELLS = re.compile(
    r"^\W*(?:(?:i am|i'm|im|i was|i have|i've|ive|i had|we are|we're|we have|we've)\b"
    r"(?! (?:just )?(?:looking|after|trying|wondering|not sure|unsure|stuck|question|got a question|a question))|"
    r"(?:my|our|the|he|she|they|it)\b.*\b(?:is|are|was|were|has|have|had|\w+ed|came|went|got|made)\b)",
    re.IGNORECASE,
)
"""How somebody begins who tells something, rather than to ask for something."""
_BUT = re.compile(r"\b(?:but|although|though)\b", re.IGNORECASE)
_ON_MY_MIND = re.compile(r"^(?:i|we) (?:think|thought|guess|hope|wish|wonder|suppose|doubt|feel)\b", re.I)
_TO_COME = re.compile(
    r"\b(?:i'll|we'll|gonna|going to|(?:i|we) (?:shall|will|want to|plan to)|tomorrow|tonight|"
    r"next (?:week|month|year))\b",
    re.IGNORECASE,
)
_PLAIN = re.compile(
    r"^(?!(?:i|we) (?:think|thought|guess|hope|wish|wonder|need|want|feel|believe|suppose|doubt|mean)\b)"
    r"(?:my|our|i|we|the|an?|this|there|it|they|s?he|his|her) [^.!?;:\n\"]+\.?$",
    re.IGNORECASE,
)
"""One sentence that begins with whom it is about, and tells more than what is on the person's mind."""
_OF_ONE_DAY = re.compile(
    r"^(?:i|we) (?:just |also |finally |already )*"
    r"(?!need|feed|breed|adopted|married|moved|retired|divorced|trained|lived|used to)"
    r"(?:\w+ed|told|sold|held|lost|bought|met|saw|went|had|made|got|took|gave|found|left|broke|forgot|ate|drank|came|"
    r"heard|felt|woke|slept|ran|drove|rode|sat|stood|spent|sent|said|thought|caught|built)\b|"
    r"\bonly (?:\w+ed|came|had|got|one|two|three|four|five|a few)\b",
    re.IGNORECASE,
)
"""What happened once, or was less than hoped for: to say that it is remembered would be odd."""
_LASTS = re.compile(
    r"\b(?:am|is|are|'m|'re|was|were|has|have|called|named|likes?|loves?|lives?|works?|plays?|stud(?:y|ies)|"
    r"collects?|speaks?|sings?|teach(?:es)?|drives?|eats?|drinks?|hates?|prefers?|needs?|knows?|comes? from|grew up|"
    r"keeps?|wears?|sleeps?|goes|go|starts?|ends?|leaves?|opens?|closes?|costs?|weighs?|belongs?|stands?|lies|hangs?|"
    r"do not|don't|does not|doesn't|never|cannot|can't)\b",
    re.IGNORECASE,
)
"""How somebody says what holds for longer."""
_OWN_RULE = re.compile(
    r"^(?:i|we|(?:my|our) [\w' -]{1,40}?)(?:'m|'re)? "
    r"(?:do not|don't|does not|doesn't|(?:am|are|is) not|isn't|aren't|not|cannot|can't|never|no longer|"
    r"ha(?:ve|s) (?:no|never))\b"
    r"(?! (?:know|understand|think|believe|feel|hear|want|said|get|see|mean|care|find)\b)",
    re.IGNORECASE,
)
"""How somebody begins who says what they and theirs do not do, eat or have."""
_OVER = re.compile(r"\b(?:no longer|at last|nothing (?:was|is|has been))\b", re.IGNORECASE)
"""What trouble is not there any more, or never was."""
TO_BE_DONE = "tell-assistant"
"""The kind of what the assistant is told to do, which has the form of a request."""
SAID_BACK = frozenset(["ask-fact", "ask-sum", "ask-word"])
"""Kinds of questions to which "I do not know why the sky is blue" says more than what suits all of a kind."""
MOST_WORDS = 14
"""Of a statement that is said back."""


def kept_in_mind(turn: str, *, learns: bool) -> str | None:
    """The answer to somebody who says what to be called, or asks that what they tell be remembered; None to anything
    else."""
    plain = turn.replace("’", "'")
    named = _CALL_ME.match(plain)
    if named is not None and named["name"].lower() not in _NO_NAME and not is_question(turn):
        return CALLED.format(named["name"][:1].upper() + named["name"][1:]) if learns else NOT_KEPT
    asked = _KEEP.match(plain)
    if asked is None or "?" in turn or _MEMORIES.match(asked["told"]) or not _HOLDS.search(asked["told"]):
        return None
    if any(map(is_question, re.split(r"[,;.!]\s+", asked["told"]))) or is_sad(turn):
        return None
    if not learns:
        return NOT_KEPT
    said = second_person(asked["told"])
    if len(said.split()) > MOST_WORDS:
        return REMEMBERED
    return KEPT.format(said[:1].lower() + said[1:] if asked["lower"] else said)


def is_remark(turn: str) -> bool:
    """Whether a turn asks nothing and says enough to be taken by itself."""
    return not _questions(turn) and len(turn.split()) >= CONTEXT_WORDS and not _TO_YOU.match(turn.replace("’", "'"))


def _questions(turn: str) -> list[str]:
    """The sentences of a turn that ask; behind the first one "What a day!" is none."""
    sentences = SENTENCE.split(turn.strip())
    return [s for i, s in enumerate(sentences) if is_question(s) and (i == 0 or "?" in s or s[-1:] not in ".!")]


def nothing_to_say(
    turn: str, exchanges: Sequence[tuple[str, str]] = (), *, learns: bool, kind: Kind | None = None
) -> str:
    """What is answered where neither the bank nor the model has a reply that fits.

    Parameters
    ----------
    turn : str
    exchanges : sequence of (str, str)
        The turns before it in this conversation, with their answers.
    learns : bool
        Whether it is remembered.
    kind : Kind, optional
        Of ``turn``, where that is sure.
    """
    asked, turn = _questions(turn), turn.replace("’", "'")
    kind = None if kind is None or _is_otherwise(turn, kind) else kind
    of_kind, wants = _replies(kind), kind is not None and kind.tone == ASKS
    if asked and (wants or not (is_sad(turn) and speaks_of_me(turn))):
        if wants and of_kind and kind is not None and kind.name not in SAID_BACK:
            return _longest_ago(of_kind, turn, exchanges)
        if _OF_ABILITY.match(asked[-1]):
            return ABILITIES
        if not wants and not _tells_before_it_asks(turn):
            of_kind = ()  # what comforts is no answer to a question
        clause = indirect(asked[-1]) if wants or not of_kind else None
        return UNKNOWN.format(clause) if clause else _longest_ago(of_kind or (UNKNOWN_ANSWER,), turn, exchanges)
    if of_kind and kind is not None and (wants or kind.name == TO_BE_DONE):
        return _longest_ago(of_kind, turn, exchanges)
    if _REQUEST.match(turn):
        return CANNOT
    if of_kind and kind is not None and not (learns and kind.tone == LASTING):
        return _longest_ago(of_kind, turn, exchanges)
    said = second_person(turn)
    return _longest_ago(_forms(turn, learns=learns), turn, exchanges).format(said[:1].lower() + said[1:])


def _is_otherwise(turn: str, kind: Kind) -> bool:
    """Whether the words of a turn speak against its kind: sad ones against all but sorrow, a denial against joy, what
    is told against what is asked for."""
    if kind.tone == GLAD and denies(turn):
        return not is_relief(turn)
    if kind.tone == SAD:
        return _OVER.search(turn) is not None or is_relief(turn)
    if kind.tone == ASKS:
        return _TELLS.match(turn) is not None and not _questions(turn)
    return is_sad(turn)


def _tells_before_it_asks(turn: str) -> bool:
    """Whether a sentence that does not ask stands before the last one."""
    return any(not is_question(sentence) for sentence in SENTENCE.split(turn.strip())[:-1])


def _replies(kind: Kind | None) -> tuple[str, ...]:
    """What suits every turn of a kind, or of its tone."""
    if kind is None:
        return ()
    return kind.replies or {SAD: SYMPATHY, PERIL: SYMPATHY, GLAD: GLADNESS}.get(kind.tone, ())


def _longest_ago(forms: Sequence[str], turn: str, exchanges: Sequence[tuple[str, str]]) -> str:
    """Of some forms the one that was given longest ago; where none was, which one depends on the turn."""
    first, replies = len(turn) % len(forms), [reply for _, reply in exchanges]

    def last_given(form: str) -> int:
        return max((i for i, reply in enumerate(replies) if reply.startswith(form.partition("{")[0])), default=-1)

    return min([*forms[first:], *forms[:first]], key=last_given)


def _forms(turn: str, *, learns: bool) -> tuple[str, ...]:
    if is_relief(turn):
        return GLADNESS
    if is_sad(turn):
        return SYMPATHY
    if _GLAD.search(turn) and not denies(turn) and not _BUT.search(turn):
        return GLADNESS
    if speaks_of_me(turn):
        if _TO_COME.search(turn):
            return TO_COME
        is_passing = _OF_ONE_DAY.search(turn) or _ON_MY_MIND.match(turn)
        is_fact = not is_passing and _LASTS.search(turn) and (not denies(turn) or _OWN_RULE.match(turn))
        if learns and is_fact:
            return TAKEN_UP if _PLAIN.match(turn) and len(turn.split()) <= MOST_WORDS else THANKS
    return GO_ON
