"""One exchange of a conversation: what was said, what was answered, and how that came about."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from edgelm.engine.generate import Ended
from edgelm.learn.worker import Job
from edgelm.memory.answering import MODEL_ALONE, Plan

if TYPE_CHECKING:
    # Kernels are loaded only by those who learn, or who learned before.
    from edgelm.learn.replay import Learned


class Source(StrEnum):
    """Where an answer came from."""

    TOLD = "told"
    """From what the person told, or from its not having been told."""
    BANK = "bank"
    """An exchange that came with edgelm, or one that the person corrected or approved."""
    MODEL = "model"
    NOTHING = "nothing"
    """Neither bank nor model had an answer that fits."""
    HEARD = "heard"
    """To a remark that nothing fits: that it was heard; to one that tells of danger: whom to call."""
    FRIEND = "friend"
    """A larger model that was asked."""


@dataclass
class Turn:
    """One exchange, filled while it goes on.

    Attributes
    ----------
    tokens : int
        Generated tokens, with those of answers that were drawn and not given.
    reply_tokens : int
        Tokens of the answer itself.
    prompt_tokens, known_tokens : int
        Tokens that the answer follows, and how many of them had been read before this turn.
    source : Source
    ended : Ended or None
        Why the answer ended; None where it was given up.
    """

    number: int
    text: str
    reply: str = ""
    tokens: int = 0
    reply_tokens: int = 0
    prompt_tokens: int = 0
    known_tokens: int = 0
    seconds: float = 0.0
    entry_ids: list[int] = field(default_factory=list)
    learning: Job | None = None
    secrets_skipped: int = 0
    plan: Plan = MODEL_ALONE
    source: Source = Source.MODEL
    ended: Ended | None = None

    @property
    def planned_source(self) -> Source:
        """Where an answer comes from that needs no model."""
        if self.plan.listens:
            return Source.HEARD
        return Source.BANK if self.plan.exchanges else Source.TOLD

    @property
    def learned(self) -> Learned | None:
        """What it taught, once that is known."""
        job = self.learning
        return job.result() if job is not None and job.done() else None

    def sources(self) -> list[str]:
        """What the answer rests on, a line each: what the person told, or an exchange of the bank."""
        if self.source is Source.HEARD and self.plan.text is not None:
            return ["words that tell of danger, which comes before all else"]
        if self.source is Source.HEARD:
            return ["nothing that you told, and no exchange of the bank: it only says that it has heard you"]
        told = [f"told: {'' if s.entry_id is None else f'#{s.entry_id} '}{s.text}" for s, *_ in self.plan.told]
        verb = "read" if self.plan.text is None else "from"
        own = [(e, "the bank" if e.entry_id is None else f"#{e.entry_id}") for e in self.plan.exchanges]
        return told + [f"{verb} {where}: {e.said} - {e.reply}" for e, where in own]

    def to_json(self) -> dict[str, Any]:
        """The fields of ``chat --json``."""
        learned = self.learned
        return {
            "turn": self.number,
            "reply": self.reply,
            "source": str(self.source),
            "tokens": self.tokens,
            "tokens_per_s": round(self.tokens / self.seconds, 2) if self.seconds else 0.0,
            "learned_tokens": learned.tokens if learned else 0,
            "loss_nats_before": round(learned.loss_before, 4) if learned else None,
            "loss_nats_after": round(learned.loss_after, 4) if learned else None,
            "secrets_skipped": self.secrets_skipped,
        }
