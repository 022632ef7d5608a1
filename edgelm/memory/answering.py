"""Where the answer to a turn comes from: what the person told, the bank of exchanges, or the model.

1. A question for what was told (``Meaning.asks``): the statement that answers it is said back in the second person; of
   several that may, the likeliest two; where none does, the answer is that it was not told. Nothing is made up.
2. Anything else: the nearest exchanges of the bank, their nouns exchanged where they differ, are candidates; how near
   they are decides whether one is given as it is, or whether the model answers after reading them.

The person's own exchanges (``/fix``, ``/good``) come before those that came with edgelm.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from edgelm.memory.acknowledging import CONTEXT_WORDS, is_remark, kept_in_mind
from edgelm.memory.bank import Bank, Exchange
from edgelm.memory.courtesies import Courtesies
from edgelm.memory.emergency import in_danger, misses_danger, sends_for_help
from edgelm.memory.forgetting import ALL, FORGET, FORGET_ALL, LAST, NOTHING_FOUND, asks_to_forget
from edgelm.memory.kinds import ASKS, LASTING, PERIL, Kind, Kinds, agreements
from edgelm.memory.meaning import Meaning
from edgelm.memory.questions import (
    ADVICE,
    ALL_OF_ME,
    HAS_A_LIFE,
    LIKELY_ASKS,
    MAY_ASK,
    OF_MY_LIFE,
    asks_for_told,
    asks_in_general,
    may_ask,
    plainly,
    with_its_verb,
)  # fmt: skip
from edgelm.memory.relevance import GIVEN, READ, SAME_KIND_ALIKE, Looked, greets, look_up
from edgelm.memory.reminder import REMEMBERED
from edgelm.memory.rewriting import adapted_reply, speaks_of_another
from edgelm.memory.sorrow import cheers_at_sorrow
from edgelm.memory.statements import SENTENCE, Found, Statement, Statements, corrects, is_question, speaks_of_me
from edgelm.memory.sums import worked_out
from edgelm.memory.whose import names_another
from edgelm.text.person import second_person

NOT_TOLD = "You have not told me that."
UNSURE, ALSO = "I am not sure, but you told me this: {}", "And this: {}"
TOLD_LAST, NOTHING_TOLD = "What you told me last: {}", "Nothing yet. Tell me something about yourself."
NEWEST_TOLD = 3
"""Statements that are said to somebody who asks for all."""
SHARED = 0.3
"""Share of what is asked to be forgotten that a statement must say in its words to be the one that is meant."""
ALSO_LIKELY = 0.7
"""Share of the best score from which on a second statement is given beside it."""
LISTENS_BELOW = 50_000_000
"""Parameters below which a model's own reply to a remark is not given where there is a bank: of those of ``small`` 6 %
fit, and no score tells which (docs/experiments.md). A larger one was not tried."""
SURE, FAIR, LIKELY = 0.5, 0.1, 0.03
"""Chance from which on a statement is the answer; and from which on it is given, with the next best, as what may be
meant, to any question that the bank has no answer to, and to one with I, my or we in it."""
CALIBRATION = (-2.72, -1.19, 9.76, 2.06, 0.4, 0.51)
"""Logit that a statement answers a question: bias, and the weights of its score, of its lead over the next one, of what
question and statement share, of the logit that the turn asks, and of I, my or we in it:
``tools/pretrain/calibrate.py``."""
MOST_OTHERS = 3
"""Replies that compete with the model's."""
FITS_ALL, AHEAD = 0.4, 0.3
"""Fit to the whole turn that a reply to one of its sentences must have; what a point of the score counts as in fit."""
CHEERLESS = 0.4
"""What a reply that is glad of what the person is sad about loses of its fit."""
DRAWN, COOL = 3, 0.1
"""Replies that the model is asked for at most; the first is drawn at this share of the temperature."""
SURENESS, WRITTEN = 0.5, -0.2
"""What a nat of the mean log-probability of its tokens counts as in fit, since a small model is unsure of what is
nonsense; and the log-probability that a reply of the bank, which a person wrote, passes for."""
UNSURE_ANSWER = -0.08
"""Mean log-probability below which the model's answer to a question is not given: it is made up."""
ENOUGH, POOR = 0.4, 0.1
"""Worth from which on the model's reply is taken as it is, and below which none is."""
PLANNED_CHARS = 1000
"""Characters of a turn that are looked at: time and memory grow with its words times those of the bank."""
BY_CHANCE = 0.4
"""Score that the next best of many statements has: one that has no more is not looked at, and in a short log too none
leads by more than over this."""
_WORD, _ASKS_WHAT, _YES_OR_NO = (
    re.compile(r"\w+"),
    re.compile(r"\W*(?:wh|how\b)", re.I),
    re.compile(r"(?:yes|no), ", re.I),
)
"""Words; how a question begins that is not answered with yes or no; and how an answer with either does."""
_COURTEOUS = re.compile(
    r"(?:thanks|thank you|thx)\b|"
    r"(?:please|sorry|ok(?:ay)?|yes|yeah|no|well done|good|great)(?=\W*(?:$|,|thanks|thank you))",
    re.IGNORECASE,
)
"""How a turn begins that tells nothing, unless it speaks of the person."""


class Plan(NamedTuple):
    """How a turn shall be answered.

    Attributes
    ----------
    text : str or None
        The answer; None: the model makes it.
    told : tuple of Found
        Statements that the answer rests on, or that the model reads.
    exchanges : tuple of Exchange
        The exchange whose reply is given, or those that the model reads, the nearest last.
    others : tuple of (str, float)
        Replies of exchanges that are not near enough to be given, and may be better than the model's; what each is
        ahead of the model's replies by.
    listens : bool
        The turn is a remark that nothing fits, or tells of somebody in danger: it is only acknowledged, by ``text`` or
        else by ``edgelm.memory.acknowledging``.
    kind : Kind or None
        What kind of turn it is, where that is sure and may be of use.
    """

    text: str | None
    told: tuple[Found, ...] = ()
    exchanges: tuple[Exchange, ...] = ()
    others: tuple[tuple[str, float], ...] = ()
    listens: bool = False
    kind: Kind | None = None

    @property
    def entry_ids(self) -> set[int]:
        """Entries of the log that the answer rests on."""
        ids = [*(found.statement.entry_id for found in self.told), *(one.entry_id for one in self.exchanges)]
        return {entry_id for entry_id in ids if entry_id is not None}


MODEL_ALONE = Plan(None)
"""The model answers, with nothing before the turn but the conversation."""


class Answering:
    """Plans answers.

    Parameters
    ----------
    meaning : Meaning
    banks : sequence of Bank
        The person's own first.
    talks : bool
        Whether the model's replies to remarks are worth giving.
    courtesies : Courtesies
        Turns that get their replies by their words, unless the person has an exchange of their own that is near.
    kinds : Kinds, optional
        Say what kind of turn it is that nothing fits.
    """

    def __init__(
        self, meaning: Meaning, banks: Sequence[Bank] = (), *, talks: bool = True,
        courtesies: Courtesies | None = None, kinds: Kinds | None = None,
    ) -> None:  # fmt: skip
        self._meaning, self._banks, self._talks = meaning, list(banks), talks
        self._courtesies, self._kinds = courtesies or Courtesies(), kinds

    def plan(self, turn: str, statements: Statements, n_before: int = 0, *, learns: bool = True) -> Plan:
        """The plan for ``turn``, with ``n_before`` turns before it in this conversation; ``learns``: it is learned.

        Of a long turn the end is looked at, where its question is.
        """
        if (help_ := in_danger(turn)) is not None:
            return Plan(help_, listens=True)
        turn = with_its_verb(turn)
        turn = turn if len(turn) <= PLANNED_CHARS else turn[-PLANNED_CHARS:].partition(" ")[2] or turn[-PLANNED_CHARS:]
        if ALL_OF_ME.match(turn.replace("’", "'")):
            return self._all_of_me(statements)
        if (unwanted := asks_to_forget(turn)) is not None:
            found = [] if unwanted in (ALL, LAST) else statements.find(unwanted)
            return Plan(_how_to_forget(unwanted, self._told(statements), found), listens=True)
        if (courtesy := self._courtesies.find(turn, n_before)) is not None:
            exchange = self._own(turn) or courtesy
            return Plan(exchange.reply, (), (exchange,))
        said = kept_in_mind(turn, learns=learns) or worked_out(turn)
        if said is not None and self._own(turn) is None:
            return Plan(said)
        asked = plainly(turn)
        asks = self._meaning.asks(asked)
        found = [one for one in statements.find(asked) if one.score > BY_CHANCE] if may_ask(asked, asks) else []
        chance = answer_chance(found, asked, asks) if found else 0.0
        if chance > SURE:
            return Plan(second_person(found[0].statement.text), (found[0],))
        near = [] if n_before > 0 and len(turn.split()) < CONTEXT_WORDS else look_up(self._meaning, self._banks, turn)
        kind, agreeing, beyond_doubt = self._kinds_of(turn, near)
        is_fact = learns and kind is not None and kind.tone == LASTING  # which is said back
        only_same = (beyond_doubt or is_fact) and not is_question(turn)
        plan = self._from_banks(turn, near, agreeing, only_same=only_same)
        is_own = any(exchange.entry_id is not None for exchange in plan.exchanges)
        if kind is not None and kind.tone == PERIL and kind.replies and not (is_own and plan.text is not None):
            return Plan(kind.replies[0], listens=True, kind=kind)
        if learns and corrects(turn) and not is_question(turn):
            return Plan(REMEMBERED)
        is_whether_known = asked != turn
        if is_whether_known and not is_own:
            plan = MODEL_ALONE
        of_me = asks > (MAY_ASK if speaks_of_me(turn) and not ADVICE.search(turn) else LIKELY_ASKS)
        wants_advice = asks_in_general(turn, kind) and ADVICE.search(turn) is not None
        may_be_told = is_question(turn) and not wants_advice
        if may_be_told and ((chance > LIKELY and of_me) or (chance > FAIR and plan.text is None)):
            likely = [one for one in found[:2] if one.score >= ALSO_LIKELY * found[0].score]
            return Plan(_unsure(likely), tuple(likely))
        if (is_whether_known or asks_for_told(asked, asks, kind)) and not (is_own and plan.text is not None):
            return Plan(NOT_TOLD)
        return plan._replace(listens=plan.text is None and not self._talks and is_remark(turn), kind=kind)

    def _own(self, turn: str) -> Exchange | None:
        """The person's own exchange that is near enough to be given, if there is one."""
        near = [near for bank in self._banks[:1] for near in bank.nearest(turn, 1) if near.score >= GIVEN]
        return next((one.exchange for one in near if one.exchange.entry_id is not None), None)

    def _told(self, statements: Statements) -> list[Statement]:
        """All that tells something, the oldest first."""
        return [
            one
            for one in statements.statements
            if not one.text.startswith("/")
            and not self._courtesies.holds(one.text)
            and (speaks_of_me(one.text) or not _COURTEOUS.match(one.text))
        ]

    def _all_of_me(self, statements: Statements) -> Plan:
        """The answer to somebody who asks for all that they told: the newest of it, the last first."""
        told = self._told(statements)
        newest = told[: -NEWEST_TOLD - 1 : -1]
        if not newest:
            return Plan(NOTHING_TOLD)
        said = " ".join(second_person(statement.text) for statement in newest)
        return Plan(TOLD_LAST.format(said), tuple(Found(statement, 1.0, 1.0) for statement in newest))

    def _from_banks(self, turn: str, looked: Sequence[Looked], agreeing: Sequence[float], *, only_same: bool) -> Plan:
        """The reply of the nearest exchange of the whole turn or of one of its sentences.

        ``only_same``: only exchanges that name nothing the turn does not; the replies of others fit two times of three.
        """
        asks = is_question(turn)
        ranked = sorted(zip(looked, agreeing, strict=True), key=lambda pair: -pair[0].rank(pair[1]))
        others: dict[str, float] = {}
        for one, agreement in ranked:
            is_own = one.near.exchange.entry_id is not None
            is_given = one.is_given(agreement) and (is_own or not (one.near.differs and only_same))
            if not is_given and (one.score < READ or len(others) == MOST_OTHERS or agreement < SAME_KIND_ALIKE):
                continue
            if asks and not is_question(one.part):
                continue  # what is told before a question is not what wants an answer
            reply = self._reply(one)
            if reply is None or (one.is_part and self._meaning.fit(turn, reply) < FITS_ALL):
                continue
            if is_given:
                return Plan(reply, (), (one.near.exchange,))
            others.setdefault(reply, AHEAD * (one.score - READ))
        read = [one.near.exchange for one, _ in ranked[:2] if one.score >= READ]
        return Plan(None, (), tuple(reversed(read)), tuple(others.items()))

    def _kinds_of(self, turn: str, near: Sequence[Looked]) -> tuple[Kind | None, list[float], bool]:
        """The kind of a turn, how much that of each exchange near to it agrees with it, 0 to 1, and whether there is no
        doubt of it.

        There is no kind where it is not sure, or where the turn leans on what was said before. A person's own exchanges
        fit any kind, as do replies that send to somebody who helps: better once too often.
        """
        exchanges = [one.near.exchange for one in near]
        if self._kinds is None or not near:
            return None, [1.0] * len(near), False
        chances = self._kinds.chances(self._meaning, [turn, *(exchange.said for exchange in exchanges)])
        broad = self._kinds.broad(chances)
        found = agreements(broad[0], broad[1:]).tolist()
        fits_all = [exchange.entry_id is not None or sends_for_help(exchange.reply) for exchange in exchanges]
        whole = [i for i, one in enumerate(near) if one.part == turn and one.near.exchange.entry_id is None]
        kind = self._kinds.of(chances[0], chances[1:][whole], [near[i].near.score for i in whole])
        agreeing = [1.0 if fits else k for fits, k in zip(fits_all, found, strict=True)]
        return kind, agreeing, self._kinds.beyond_doubt(chances[0])

    def _reply(self, one: Looked) -> str | None:
        """The reply of an exchange as one to the turn; an answer to a question is never changed into another one."""
        near, part = one.near, one.part
        if near.exchange.entry_id is None and misses_danger(near.exchange, part):
            return None
        if is_question(part):
            if OF_MY_LIFE.search(part) and not ADVICE.search(part) and not speaks_of_me(near.exchange.said):
                return None
            fits = one.is_answer and not speaks_of_another(near.exchange, part, self._meaning)
            return _without_yes(near.exchange.reply, part) if fits else None
        reply = near.exchange.reply
        if is_question(near.exchange.said) or HAS_A_LIFE.search(reply) or cheers_at_sorrow(part, reply):
            return None
        adapted = adapted_reply(near.exchange, part, self._meaning)
        return None if adapted is None or names_another(adapted, part) else adapted


def _without_yes(reply: str, turn: str) -> str:
    """A reply to a question, without the yes or no that it begins with where ``turn`` asks for neither."""
    answer = _YES_OR_NO.match(reply) if _ASKS_WHAT.match(turn) else None
    return reply if answer is None else reply[answer.end()].upper() + reply[answer.end() + 1 :]


def _how_to_forget(wanted: str, statements: Sequence[Statement], found: Sequence[Found]) -> str:
    """The command that takes back all, what was said last, or the statement that is nearest to ``wanted``.

    It names a sentence that stands in the log as it is, of several words: those of one word stand in others.
    """
    if wanted == ALL:
        return FORGET_ALL
    near = [one.statement for one in found[:1] if one.score > BY_CHANCE and one.shared >= SHARED]
    for statement in statements[-1:] if wanted == LAST else near:
        if sentences := [part for part in SENTENCE.split(statement.text) if len(part.split()) >= CONTEXT_WORDS]:
            return FORGET.format(_meant(sentences, wanted))
    return NOTHING_FOUND


def _meant(sentences: Sequence[str], wanted: str) -> str:
    """Of the sentences of a statement the last one that shares most words with ``wanted``, or what corrects it."""
    words = set() if wanted == LAST else set(_WORD.findall(wanted.lower()))
    shared = [len(words & {*_WORD.findall(sentence.lower())}) for sentence in sentences]
    first = max(range(len(sentences)), key=lambda i: (shared[i], i))
    return next((sentence for sentence in reversed(sentences[first:]) if corrects(sentence)), sentences[first])


def _unsure(found: Sequence[Found]) -> str:
    """What may be meant, the likelier first."""
    said = [second_person(one.statement.text) for one in found]
    return " ".join(form.format(text) for form, text in zip((UNSURE, ALSO), said, strict=False))


def reply_worth(meaning: Meaning, turn: str, reply: str, score: float | None = None, kind: Kind | None = None) -> float:
    """How well a reply fits a turn, and how sure the model is of it (``score``, nats a token; None: a person wrote it);
    less by CHEERLESS where it is glad of what is sad."""
    asks = is_question(turn) or (kind is not None and kind.tone == ASKS)
    if score is not None and score < UNSURE_ANSWER and asks and not greets(turn):
        return -math.inf
    sure = WRITTEN if score is None else score
    return meaning.fit(turn, reply) + SURENESS * sure - CHEERLESS * cheers_at_sorrow(turn, reply)


def chance_features(found: Sequence[Found], turn: str, asks: float) -> tuple[float, ...]:
    """What ``CALIBRATION`` weighs: 1, the score of the first statement, its lead over the next, the share of the
    question that it says in its words, the logit that the turn asks, and whether the turn speaks of the person."""
    best, second = found[0].score, max([BY_CHANCE, *(one.score for one in found[1:])])
    of_me = float(speaks_of_me(turn))
    return 1.0, best, best - second, found[0].shared, min(asks, 5.0), of_me


def answer_chance(found: Sequence[Found], turn: str, asks: float) -> float:
    """Chance that the first statement answers the question."""
    logit = sum(w * f for w, f in zip(CALIBRATION, chance_features(found, turn, asks), strict=True))
    return float(1 / (1 + np.exp(-logit)))
