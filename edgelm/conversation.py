"""A conversation that is learned from while it goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import replace

from edgelm.asking import UNSURE, Friend, may_be_asked, request_for
from edgelm.config import SampleConfig
from edgelm.engine.generate import Ended, Reply, best_reply
from edgelm.engine.sharing import StoppedError
from edgelm.errors import InputError
from edgelm.interrupt import held_back
from edgelm.learn.worker import Job
from edgelm.log.entry import CHAT, FIX, GOOD
from edgelm.memory.acknowledging import nothing_to_say
from edgelm.memory.answering import COOL, DRAWN, ENOUGH, MODEL_ALONE, POOR, reply_worth
from edgelm.memory.forgetting import asks_to_forget
from edgelm.runtime import Engine
from edgelm.text.secrets import without_secrets
from edgelm.turn import Source, Turn

SEGMENT_SECONDS = 0.25
"""How long an answer waits for the learning of the first segment of what it answers."""


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

    Attributes
    ----------
    friend : callable or None
        Asked where neither what was told, nor the bank, nor the model answers a question well (``edgelm.asking``).
    cancelled : threading.Event
        When it is set, from whatever thread, the answer under way ends after its present token.
    """

    def __init__(
        self, engine: Engine, sampling: SampleConfig, *, learn: bool, system: str = "", patient: bool = True
    ) -> None:
        self.engine, self.sampling, self.learn = engine, sampling, learn
        self.session, self.rng = engine.new_session(), engine.new_rng()
        self.system, self.patient, self.template = system, patient, engine.template
        self.friend: Friend | None = None
        self.turns: list[Turn] = []
        self.cancelled = threading.Event()
        self.session.stopped = lambda: self.cancelled.is_set()
        engine.bank_being_made  # noqa: B018  while the person writes the first turn
        self.reset()

    def reset(self) -> None:
        """Begins a new conversation; what was learned stays."""
        self._number: int | None = None  # in the log; given when something is told, so that no two have the same
        self._said: list[Turn] = []
        self._read_again()

    def resume(self, exchanges: Sequence[tuple[str, str]]) -> None:
        """Begins a new conversation after turns, with their answers, that it only reads; either may be empty."""
        self.reset()
        self._said = [Turn(0, text, reply) for text, reply in exchanges]
        self._read_again()

    @property
    def exchanges(self) -> list[tuple[str, str]]:
        """The turns of the present conversation, with their answers."""
        return [(turn.text, turn.reply) for turn in self._said]

    def _read_again(self) -> None:
        """The model's state becomes that of the turns that are left."""
        self.session.reset()
        self._n_read = 0
        self._unread = self.template.document(self.engine.tokenizer.encode(self._written(self._said)))

    def _written(self, turns: Sequence[Turn]) -> str:
        """The system's text and turns with their answers, as the model reads them."""
        parts = [self.template.system_text(self.system)] if self.system.strip() else []
        for turn in turns:
            parts.append(self.template.user_turn(turn.text) if turn.text else "")
            parts.append(self.template.assistant_turn(turn.reply) if turn.reply else "")
        return "".join(parts)

    def turn(self, text: str) -> Generator[str, None, None]:
        """Makes the person's ``text`` durable, learns it, and yields the answer in pieces.

        The last element of ``turns`` tells how it went. Closing the generator ends the answer; nothing
        learned is lost.
        """
        engine, turn = self.engine, Turn(len(self.turns) + 1, text)
        kept, turn.secrets_skipped = without_secrets(text) if self.learn and asks_to_forget(text) is None else ("", 0)
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
        given = turn.plan.text
        if given is None and turn.plan.listens and not self._may_ask(turn):
            given = self._nothing_to_say(turn)
        if given is not None:
            turn.source = turn.planned_source
            read = engine.tokenizer.encode(self.template.user_turn(text))
            turn.known_tokens, turn.prompt_tokens = self._n_read, self._n_read + len(self._unread) + len(read)
            self._give(turn, given)
            said = engine.tokenizer.encode(self.template.assistant_turn(turn.reply))
            self._unread = [*self._unread, *read, *said]
            turn.tokens, turn.seconds = len(said), time.perf_counter() - begun
            yield turn.reply
            return
        try:
            yield from self._generate(turn, asked, corrected=corrected)
        except StoppedError:
            self._read_again()  # it was cancelled while it read

    def _nothing_to_say(self, turn: Turn) -> str:
        return nothing_to_say(turn.text, self.exchanges, learns=bool(turn.entry_ids), kind=turn.plan.kind)

    def _give(self, turn: Turn, text: str) -> None:
        """Makes ``text`` the answer, as far as the sampling allows one to go."""
        turn.ended = Ended.STOP
        ends = [place for stop in self.sampling.stops if (place := text.find(stop)) >= 0]
        text = text[: min(ends)].rstrip() if ends else text
        ids = self.engine.tokenizer.encode(text)
        if len(ids) > self.sampling.max_tokens:
            turn.ended, text = Ended.LENGTH, self.engine.tokenizer.decode(ids[: self.sampling.max_tokens]).strip()
        turn.reply, turn.reply_tokens = text, min(len(ids), self.sampling.max_tokens)

    def _generate(self, turn: Turn, asked: str, *, corrected: bool) -> Generator[str, None, None]:
        """The model's own answer: as it comes, or, with the bank, the best of a few."""
        engine = self.engine
        read = "".join(
            self.template.user_turn(e.said) + self.template.assistant_turn(e.reply) for e in turn.plan.exchanges
        )
        reminded = engine.reminder(asked, [t.text for t in self._said])
        ids = [*self._unread, *engine.tokenizer.encode(read + reminded + asked)]
        turn.known_tokens, turn.prompt_tokens = self._n_read, self._n_read + len(ids)
        begun, pieces = time.perf_counter(), list[str]()
        chooses = not corrected and (engine.options.bank or self._may_ask(turn))
        try:
            if chooses:
                self._best(turn, ids)
                pieces.append(turn.reply)
                yield turn.reply
            else:
                with closing(self._as_it_comes(turn, ids)) as drawn:
                    for piece in drawn:
                        pieces.append(piece)
                        yield piece
        finally:
            turn.reply = "".join(pieces)
            turn.seconds = time.perf_counter() - begun
            if chooses and not pieces:
                self._read_again()

    def _as_it_comes(self, turn: Turn, ids: Sequence[int]) -> Generator[str, None, None]:
        """A single reply of the model; afterwards its state has read it."""
        drawn, finished = self._draw(self.sampling, ids), False
        try:
            for piece in drawn:
                yield piece
                if self.cancelled.is_set():
                    return
            self._unread, finished = [], True
        finally:
            turn.tokens, turn.reply_tokens, turn.ended = len(drawn.tokens), len(drawn.tokens), drawn.ended
            self._n_read += len(ids) + len(drawn.tokens)
            if not finished:
                # A cut answer is closed by a line end, as a whole one is.
                self._unread = self.engine.tokenizer.encode(self.template.turn_end)

    def _draw(self, sampling: SampleConfig, ids: Sequence[int], before: Sequence[int] = ()) -> Reply:
        """A reply of the model, in pieces."""
        mix = self.engine.new_mix(before, as_reply=True)
        return Reply(self.session, self.engine.tokenizer, ids, sampling, self.rng, mix, self.template)

    def _best(self, turn: Turn, ids: Sequence[int]) -> None:
        """Of the replies that the model and the bank have, the one that fits best becomes the answer.

        Without a bank it is the model's only one. It is the friend's, if there is one and the model is unsure.
        """
        engine, sampling, drawn_replies = self.engine, self.sampling, dict[str, Reply]()
        has_bank = engine.options.bank

        def draw(number: int, prompt: Sequence[int], before: Sequence[int]) -> tuple[str, float]:
            cool = COOL if number == 0 and has_bank else 1
            cooled = replace(sampling, temperature=sampling.temperature * cool)
            drawn, pieces = self._draw(cooled, prompt, before), list[str]()
            try:
                for piece in drawn:
                    pieces.append(piece)
                    if self.cancelled.is_set():
                        break
            finally:
                turn.tokens += len(drawn.tokens)
            text = "".join(pieces)
            drawn_replies[text] = drawn
            if not has_bank:
                return text, 0.0
            return text, reply_worth(engine.meaning, turn.text, text, drawn.mean_log_probability, turn.plan.kind)

        others = [(text, reply_worth(engine.meaning, turn.text, text) + ahead) for text, ahead in turn.plan.others]
        most = 1 if sampling.temperature == 0 or not has_bank else DRAWN
        text, worth = best_reply(
            draw, self.session, ids, enough=ENOUGH, others=others, most=most, stopped=self.cancelled.is_set
        )
        self._n_read += len(ids) - 1
        drawn, fits = drawn_replies.get(text), worth >= POOR or not has_bank
        is_unsure = not (fits and text) or (drawn is not None and drawn.mean_log_probability < UNSURE)
        if is_unsure and self._may_ask(turn) and self._ask_friend(turn):
            pass
        elif not fits:
            turn.source = Source.NOTHING
            self._give(turn, self._nothing_to_say(turn))
        elif drawn is not None:
            turn.source, turn.reply, turn.ended = Source.MODEL, text, drawn.ended
            turn.reply_tokens = len(drawn.tokens)
        else:
            turn.source = Source.BANK
            self._give(turn, text)
        self._unread = [ids[-1], *engine.tokenizer.encode(self.template.answer(turn.reply))]

    def _may_ask(self, turn: Turn) -> bool:
        """Whether the friend may be asked for the answer to a turn without the person's saying so."""
        if self.friend is None or self.cancelled.is_set():
            return False
        return may_be_asked(turn.text, self.engine.meaning.asks(turn.text))

    def _ask_friend(self, turn: Turn, *, insists: bool = False) -> bool:
        """Whether the friend had an answer, which then is that to the turn, and learned if the turn means the same
        in every conversation."""
        assert self.friend is not None
        request = request_for(turn, [one for one in self._said if one is not turn])
        said = self.template.clean(self.friend(request.before, request.text, insists)) if request else ""
        if not request or not said:
            return False
        turn.source = Source.FRIEND
        self._give(turn, said)
        if self.learn and request.alone and not without_secrets(said)[1]:
            self._answer(turn, FIX, said)  # the whole, of which the sampling may have cut the end
        return True

    def ask(self) -> str:
        """``/ask``: the friend's answer to the last turn takes the place of the one that was given; returns it.

        Raises
        ------
        InputError
            There is no friend, nothing was said yet, the conversation holds what looks like a secret, or no answer
            came.
        """
        if self.friend is None:
            raise InputError("there is nobody to ask; begin with --ask URL")
        if not self._said:
            raise InputError("nothing was said yet in this conversation")
        turn = self._said[-1]
        if request_for(turn, self._said[:-1]) is None:
            raise InputError(
                "it was not asked: the conversation holds what looks like a secret; /reset begins a new one"
            )
        if not self._ask_friend(turn, insists=True):
            raise InputError("the friend had no answer")
        self._read_again()
        return turn.reply

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
        return self.engine.remove(turn.entry_ids, wait=self.patient) if turn.entry_ids else []

    def forget(self, match: str) -> list[int]:
        """Forgets every entry of the log that contains ``match``, whatever its case.

        The conversation forgets those turns too, and the answers that came after them.
        """
        self._must_learn()
        if not match.strip():
            raise InputError("say which words to forget: /forget WORDS")
        wanted = match.strip().casefold()
        ids = [entry.id for entry in self.engine.adaptation.entries if wanted in entry.text.casefold()]
        removed = self.engine.remove(ids, wait=self.patient) if ids else []
        self.drop(removed, [wanted])
        return removed

    def drop(self, entry_ids: Sequence[int], words: Sequence[str]) -> None:
        """Leaves out turns that put ``entry_ids`` into the log or hold one of ``words``, and the answers after them.

        Answers that hold one, or rest on an entry that is gone, are left out wherever they stand.
        """
        gone, wanted = set(entry_ids), [text.casefold() for text in words]

        def holds(text: str) -> bool:
            return any(word in text.casefold() for word in wanted)

        known = [holds(turn.text) or bool(set(turn.entry_ids) & gone) for turn in self._said]
        if any(known):
            for turn in self._said[known.index(True) :]:
                turn.reply, turn.plan = "", MODEL_ALONE
            self._said = [turn for turn, is_gone in zip(self._said, known, strict=True) if not is_gone]
        self.turns = [turn for turn in self.turns if not holds(turn.text)]
        for turn in [*self.turns, *self._said]:
            if holds(turn.reply) or turn.plan.entry_ids & gone:
                turn.reply, turn.plan = "", MODEL_ALONE
        self._read_again()

    def sources(self) -> list[str]:
        """What the last answer rests on, a line each: what the person told, or an exchange of the bank."""
        return self._said[-1].sources() if self._said else []

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

    def before_last_answer(self) -> list[int]:
        """The ids of the whole conversation up to the last answer, as a document."""
        turn = self._said[-1]
        asked = self.template.user_turn(turn.text) + self.template.reply_prompt()
        return self.template.document(self.engine.tokenizer.encode(self._written(self._said[:-1]) + asked))

    def close(self) -> None:
        """Ends the session: consolidates what was told, and keeps the weights."""
        if self.learn:
            self.engine.finish()


def _kept(answer: str) -> str:
    """An answer that shall be learned; whoever approves one may not see that it holds a secret."""
    kept, skipped = without_secrets(answer)
    if skipped or not kept.strip():
        raise InputError("the answer is empty or looks like a secret; it was not learned")
    return kept.strip()
