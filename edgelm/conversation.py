"""A conversation that is learned from while it goes on."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from edgelm.config import SampleConfig
from edgelm.engine.generate import Ended, Reply, best_reply
from edgelm.errors import InputError
from edgelm.interrupt import held_back
from edgelm.learn.worker import Job
from edgelm.log.entry import CHAT, FIX, GOOD
from edgelm.memory.answering import COOL, DRAWN, ENOUGH, MODEL_ALONE, POOR, Plan, nothing_to_say, reply_worth
from edgelm.runtime import LEAST_TOKENS, Engine
from edgelm.text.secrets import without_secrets

if TYPE_CHECKING:
    # Kernels are loaded only by those who learn, or who learned before.
    from edgelm.learn.replay import Learned

SEGMENT_SECONDS = 0.25
"""How long an answer waits for the learning of the first segment of what it answers."""


@dataclass
class Turn:
    """One exchange, filled while it goes on."""

    number: int
    text: str
    reply: str = ""
    tokens: int = 0
    seconds: float = 0.0
    entry_ids: list[int] = field(default_factory=list)
    learning: Job | None = None
    secrets_skipped: int = 0
    plan: Plan = MODEL_ALONE
    ended: Ended | None = None
    """Why the model's own answer ended; None where it was given up, chosen among several, or taken from elsewhere."""

    @property
    def learned(self) -> Learned | None:
        """What it taught, once that is known."""
        job = self.learning
        return job.result() if job is not None and job.done() else None

    def to_json(self) -> dict[str, Any]:
        """The fields of ``chat --json``."""
        learned = self.learned
        return {
            "turn": self.number,
            "reply": self.reply,
            "tokens": self.tokens,
            "tokens_per_s": round(self.tokens / self.seconds, 2) if self.seconds else 0.0,
            "learned_tokens": learned.tokens if learned else 0,
            "loss_nats_before": round(learned.loss_before, 4) if learned else None,
            "loss_nats_after": round(learned.loss_after, 4) if learned else None,
            "secrets_skipped": self.secrets_skipped,
        }


class Conversation:
    """A dialogue: its state, its turns and what they put into the log, its template and its randomness.

    It learns from what the person writes, if it shall. All that it shares with other conversations belongs to the
    engine; in what order conversations take their turns changes none of their answers, but for what they teach.

    Parameters
    ----------
    engine : Engine
    sampling : SampleConfig
    learn : bool
    system : str
        Text that stands before the first turn.
    patient : bool
        Answers wait until what they answer is learned, so that the same input gives the same output;
        otherwise no longer than for one segment.
    """

    def __init__(
        self, engine: Engine, sampling: SampleConfig, *, learn: bool, system: str = "", patient: bool = True
    ) -> None:
        self.engine, self.sampling, self.learn = engine, sampling, learn
        self.session, self.rng = engine.new_session(), engine.new_rng()
        self.system, self.patient, self.template = system, patient, engine.template
        self.turns: list[Turn] = []
        engine.bank_being_made  # noqa: B018  while the person writes the first turn
        self.reset()

    def reset(self) -> None:
        """Begins a new conversation; what was learned stays."""
        self._number: int | None = None  # in the log; given when something is told, so that no two have the same
        self._said: list[Turn] = []
        self._read_again()

    def _read_again(self) -> None:
        """The model's state becomes that of the turns that are left."""
        opening = self.template.system_text(self.system) if self.system.strip() else ""
        said = (
            self.template.user_turn(t.text) + (self.template.assistant_turn(t.reply) if t.reply else "")
            for t in self._said
        )
        self.session.reset()
        self._unread = self.template.document(self.engine.tokenizer.encode(opening + "".join(said)))

    def turn(self, text: str) -> Generator[str, None, None]:
        """Makes the person's ``text`` durable, learns it, and yields the answer in pieces.

        The last element of ``turns`` tells how it went. Closing the generator ends the answer; nothing
        learned is lost.
        """
        engine, turn = self.engine, Turn(len(self.turns) + 1, text)
        kept, turn.secrets_skipped = without_secrets(text) if self.learn else ("", 0)
        if kept.strip():
            turn.learning = self._tell(turn, CHAT, kept)
            if self.patient:
                turn.learning.result()
            else:
                turn.learning.first_segment_done.wait(SEGMENT_SECONDS)
        self.turns.append(turn)
        self._said.append(turn)
        asked, begun = self.template.user_turn(text) + self.template.reply_prompt(), time.perf_counter()
        corrected = engine.is_corrected(asked)
        if not corrected:
            turn.plan = engine.plan(text, [t.text for t in self._said[:-1]], turn.entry_ids)
        if turn.plan.text is not None:
            turn.reply = turn.plan.text
            said = engine.tokenizer.encode(self.template.assistant_turn(turn.reply))
            self._unread = [*self._unread, *engine.tokenizer.encode(self.template.user_turn(text)), *said]
            turn.tokens, turn.seconds = len(said), time.perf_counter() - begun
            yield turn.reply
            return
        yield from self._generate(turn, asked, corrected=corrected)

    def _generate(self, turn: Turn, asked: str, *, corrected: bool) -> Generator[str, None, None]:
        """The model's own answer: as it comes, or, with the bank, the best of a few."""
        engine = self.engine
        read = "".join(
            self.template.user_turn(e.said) + self.template.assistant_turn(e.reply) for e in turn.plan.exchanges
        )
        reminded = engine.reminder(asked, [t.text for t in self._said])
        ids = [*self._unread, *engine.tokenizer.encode(read + reminded + asked)]
        begun = time.perf_counter()
        pieces: list[str] = []
        finished = False
        chooses = engine.options.bank and not corrected
        try:
            if chooses:
                pieces.append(self._best(turn, ids))
                yield pieces[0]
            else:
                drawn = self._draw(self.sampling, ids)
                try:
                    for piece in drawn:
                        pieces.append(piece)
                        yield piece
                finally:
                    turn.tokens, turn.ended = len(drawn.tokens), drawn.ended
                self._unread = []
            finished = True
        finally:
            turn.reply = "".join(pieces)
            turn.seconds = time.perf_counter() - begun
            if chooses and not pieces:
                self._read_again()
            elif not chooses and not finished:
                # A cut answer is closed by a line end, as a whole one is.
                self._unread = engine.tokenizer.encode(self.template.turn_end)

    def _draw(self, sampling: SampleConfig, ids: Sequence[int], before: Sequence[int] = ()) -> Reply:
        """A reply of the model, in pieces."""
        mix = self.engine.new_mix(before, as_reply=True)
        return Reply(self.session, self.engine.tokenizer, ids, sampling, self.rng, mix, self.template)

    def _best(self, turn: Turn, ids: Sequence[int]) -> str:
        """Of the replies that the model and the bank have, the one that fits best."""
        engine, sampling = self.engine, self.sampling

        def draw(number: int, prompt: Sequence[int], before: Sequence[int]) -> tuple[str, float]:
            cooled = replace(sampling, temperature=sampling.temperature * (COOL if number == 0 else 1))
            drawn = self._draw(cooled, prompt, before)
            try:
                text = "".join(drawn)
            finally:
                turn.tokens += len(drawn.tokens)
            return text, reply_worth(engine.meaning, turn.text, text, drawn.mean_log_probability)

        others = [(text, reply_worth(engine.meaning, turn.text, text) + ahead) for text, ahead in turn.plan.others]
        most = 1 if sampling.temperature == 0 else DRAWN
        text, worth = best_reply(draw, self.session, ids, enough=ENOUGH, others=others, most=most)
        if worth < POOR:
            text = nothing_to_say(turn.text, learns=self.learn)
        self._unread = [ids[-1], *engine.tokenizer.encode(self.template.answer(text))]
        return text

    def _tell(self, turn: Turn, kind: str, text: str, parent: int | None = None) -> Job:
        # What is in the log is learned, whenever the person has had enough.
        engine = self.engine
        with held_back(), engine.telling:
            if self._number is None:
                self._number = engine.profile.conversation() if engine.profile else 0
            entry = engine.adaptation.tell(kind, text, conversation=self._number, parent=parent)
            turn.entry_ids.append(entry.id)
            return engine.worker.learn(entry, report=kind == CHAT)

    def _last(self) -> Turn:
        self._must_learn()
        if not self._said:
            raise InputError("nothing was said yet in this conversation")
        return self._said[-1]

    def _must_learn(self) -> None:
        if not self.learn:
            raise InputError("this chat does not learn (--no-learn)")

    def approve(self) -> Job:
        """``/good``: the last answer is learned too."""
        turn = self._last()
        if not turn.reply:
            raise InputError("there is no answer to approve")
        return self._answer(turn, GOOD, _kept(turn.reply))

    def correct(self, text: str) -> Job:
        """``/fix``: this is what the last answer should have been."""
        turn = self._last()
        turn.reply = _kept(text)
        self._read_again()
        return self._answer(turn, FIX, turn.reply)

    def _answer(self, turn: Turn, kind: str, text: str) -> Job:
        return self._tell(turn, kind, text, parent=turn.entry_ids[0] if turn.entry_ids else None)

    def undo(self) -> list[int]:
        """Takes the last turn back, and what was learned from it; returns the entries that went."""
        turn = self._last()
        self._said.pop()
        self._read_again()
        return self._remove(turn.entry_ids) if turn.entry_ids else []

    def forget(self, match: str) -> list[int]:
        """Forgets every entry of the log that contains ``match``, whatever its case.

        The conversation forgets those turns too, and the answers that came after them.
        """
        self._must_learn()
        if not match.strip():
            raise InputError("say which words to forget: /forget WORDS")
        wanted = match.strip().casefold()
        ids = [entry.id for entry in self.engine.adaptation.entries if wanted in entry.text.casefold()]
        removed = self._remove(ids) if ids else []
        known = [wanted in t.text.casefold() or bool(set(t.entry_ids) & set(removed)) for t in self._said]
        if any(known):
            first = known.index(True)
            for turn in self._said[first:]:
                turn.reply = ""
            self._said = [turn for turn, gone in zip(self._said, known, strict=True) if not gone]
        self.turns = [turn for turn in self.turns if wanted not in turn.text.casefold()]
        for turn in self.turns:
            turn.reply = "" if wanted in turn.reply.casefold() else turn.reply
        self._read_again()
        return removed

    def _remove(self, ids: list[int]) -> list[int]:
        adaptation, worker = self.engine.adaptation, self.engine.worker
        try:
            removed: list[int] = worker.call(lambda _: adaptation.remove(ids)).result()
        finally:
            replay = worker.call(lambda _: adaptation.catch_up(aside=True))
            if self.patient:
                replay.result()
        return removed

    def sources(self) -> list[str]:
        """What the last answer rests on, a line each: what the person told, or an exchange of the bank."""
        plan = self._said[-1].plan if self._said else MODEL_ALONE
        told = [f"told: {'' if s.entry_id is None else f'#{s.entry_id} '}{s.text}" for s, *_ in plan.told]
        verb = "read" if plan.text is None else "from"
        own = [(e, "the bank" if e.entry_id is None else f"#{e.entry_id}") for e in plan.exchanges]
        return told + [f"{verb} {where}: {e.said} - {e.reply}" for e, where in own]

    def last_exchange(self) -> tuple[str, str]:
        """The last turn of the present conversation, with the label of the reply after it, and the reply.

        Raises
        ------
        InputError
            Nothing was answered yet.
        """
        if not self._said or not self._said[-1].reply:
            raise InputError("there is no answer to explain")
        turn = self._said[-1]
        return self.template.user_turn(turn.text) + self.template.reply_prompt(), self.template.answer(turn.reply)

    def close(self) -> None:
        """Ends the session: consolidates what was told, and keeps the weights."""
        if not self.learn:
            return
        adaptation, worker = self.engine.adaptation, self.engine.worker
        try:
            worker.call(lambda _: adaptation.consolidate()).result()
        finally:
            worker.close()
            adaptation.write_checkpoint(LEAST_TOKENS)


def _kept(answer: str) -> str:
    """An answer that shall be learned; whoever approves one may not see that it holds a secret."""
    kept, skipped = without_secrets(answer)
    if skipped or not kept.strip():
        raise InputError("the answer is empty or looks like a secret; it was not learned")
    return kept.strip()
