"""Prefill, step, sample, yield."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from edgelm.config import SampleConfig
from edgelm.engine.sampler import log_softmax, sample
from edgelm.engine.session import Session, Snapshot
from edgelm.errors import DivergenceError
from edgelm.text.stops import Stops
from edgelm.text.template import USUAL, Template
from edgelm.text.tokenizer import Tokenizer

TINY = 1e-300
Mix = Callable[[Sequence[int], np.ndarray], np.ndarray]
"""(ids read since it was last asked, probabilities [V]) to probabilities [V]: how a fast memory joins in one text."""


def no_mix(ids: Sequence[int], probabilities: np.ndarray) -> np.ndarray:
    """The model alone."""
    return probabilities


class Ended(StrEnum):
    """Why a generation ended."""

    END_OF_DOCUMENT = "end_of_document"
    LENGTH = "length"
    """After ``max_tokens``."""
    STOP = "stop"
    """At a label on a new line, or at a stop string of the template."""


class Token(NamedTuple):
    """A generated token, and its log-probability in nats as it is before temperature and penalty."""

    id: int
    log_probability: float


class Generation(Iterator[Token]):
    """Tokens after a prompt.

    Each id is fed to the session when the next one is asked for, so an id that the caller refuses by stopping was never
    read by the model.

    Parameters
    ----------
    session : Session
    prompt_ids : sequence of int
    config : SampleConfig
    rng : numpy.random.Generator
    mix : callable
        What it is first asked with is the prompt.
    document_id : int
        The token that ends the generation; it is not part of it.

    Attributes
    ----------
    ended : Ended or None
        Why it ended; None as long as it has not, or when the caller gave it up.
    """

    def __init__(
        self, session: Session, prompt_ids: Sequence[int], config: SampleConfig, rng: np.random.Generator,
        mix: Mix = no_mix, document_id: int = USUAL.document_id,
    ) -> None:  # fmt: skip
        self._session, self._prompt, self._config, self._rng = session, prompt_ids, config, rng
        self._mix, self._document_id = mix, document_id
        self._tokens = self._run()
        self.ended: Ended | None = None

    def __next__(self) -> Token:
        return next(self._tokens)

    def close(self) -> None:
        """Gives it up."""
        self._tokens.close()

    def _run(self) -> Generator[Token, None, None]:
        ids, generated = self._prompt, list[int]()
        logits = self._session.run(np.asarray(self._prompt))[-1]
        for _ in range(self._config.max_tokens):
            if not np.isfinite(logits).all():
                raise DivergenceError("the model's output is not finite; move the profile away, or get the model again")
            scores = log_softmax(logits)
            if self._mix is not no_mix:
                scores = np.log(np.maximum(self._mix(ids, np.exp(scores)), TINY))
            token_id = sample(scores, generated, self._config, self._rng)
            if token_id == self._document_id:
                self.ended = Ended.END_OF_DOCUMENT
                return
            yield Token(token_id, float(scores[token_id]))
            generated.append(token_id)
            ids = [token_id]
            logits = self._session.run(np.array(ids))[-1]
        self.ended = Ended.LENGTH


class _Place(NamedTuple):
    """Before the token with which a stop may have begun: the state, the end of what was read, the turn's tokens."""

    state: Snapshot
    tail: str
    n_tokens: int


class Reply(Iterator[str]):
    """Text of one turn after a prompt, in pieces as they come.

    The turn ends at a label on a new line, at a stop string, at the end-of-document id, or after ``max_tokens``. Line
    ends, spaces, and what may become a stop string are held back until something else follows them. When it has ended,
    whatever ended it, the session has read the turn and what the template puts after one.

    Parameters
    ----------
    session : Session
    tokenizer : Tokenizer
    prompt_ids, config, rng, mix
        As of ``Generation``.
    template : Template

    Attributes
    ----------
    tokens : list of Token
        Those of the turn, so far.
    ended : Ended or None
        Why it ended; None as long as it has not, or when the caller gave it up.
    """

    def __init__(
        self, session: Session, tokenizer: Tokenizer, prompt_ids: Sequence[int], config: SampleConfig,
        rng: np.random.Generator, mix: Mix = no_mix, template: Template = USUAL,
    ) -> None:  # fmt: skip
        self._session, self._tokenizer, self._template = session, tokenizer, template
        self._more_stops = config.stops
        self._generation = Generation(session, prompt_ids, config, rng, mix, template.document_id)
        self._pieces = _without_space(self._run())
        self.tokens: list[Token] = []
        self.ended: Ended | None = None

    def __next__(self) -> str:
        return next(self._pieces)

    def close(self) -> None:
        """Gives it up: nothing more is fed."""
        self._pieces.close()

    @property
    def mean_log_probability(self) -> float:
        """Nats a token; 0 of no token."""
        return sum(token.log_probability for token in self.tokens) / max(1, len(self.tokens))

    def _run(self) -> Iterator[str]:
        decoder, stops = self._tokenizer.stream(), Stops(self._template.labels, self._template.stops + self._more_stops)
        tail, since = "", ""  # the end of what was read; the text since the place
        place: _Place | None = None
        for token in self._generation:
            piece = decoder.feed(token.id)
            text = stops.feed(piece)
            if stops.found:
                # The token was not read. What of the turn was taken back with the stop, or stands in it, is read anew.
                if place is not None:
                    self._session.restore(place.state)
                    tail = place.tail
                    del self.tokens[place.n_tokens :]
                self.ended = Ended.STOP
                self._end_turn(tail, since + text)
                yield text
                return
            if not stops.held:
                place, since = None, ""
            else:
                if place is None:
                    place = _Place(self._session.snapshot(), tail, len(self.tokens))
                since += text
            self.tokens.append(token)
            tail = (tail + piece)[-len(self._template.turn_end) :] if piece else ""
            yield text
        self.ended = self._generation.ended
        self._end_turn(tail, "")
        yield stops.held

    def _end_turn(self, tail: str, text: str) -> None:
        """Reads ``text`` and what the template puts after a turn, as far as that was not read."""
        end, read = self._template.turn_end, tail + text
        n_read = next(n for n in range(len(end), -1, -1) if read.endswith(end[:n]))
        if rest := text + end[n_read:]:
            self._session.run(np.asarray(self._tokenizer.encode(rest)))


def _without_space(pieces: Iterator[str]) -> Generator[str, None, None]:
    """The pieces without white space around the whole."""
    held, begun = "", False
    for piece in pieces:
        held += piece
        if not begun:
            held = held.lstrip()
        if settled := held.rstrip():
            begun = True
            yield settled
            held = held[len(settled) :]


def best_reply(
    draw: Callable[[int, Sequence[int], Sequence[int]], tuple[str, float]],
    session: Session,
    prompt_ids: Sequence[int],
    *,
    enough: float,
    others: Sequence[tuple[str, float]] = (),
    most: int = 3,
    stopped: Callable[[], bool] = lambda: False,
) -> tuple[str, float]:
    """Of several replies the one that is worth most, and what it is worth.

    Parameters
    ----------
    draw : callable
        (number of the draw, ids to be read, ids that were read before) to a reply and its worth.
    session : Session
        Afterwards it has read the prompt alone, all but its last id.
    prompt_ids : sequence of int
    enough : float
        A drawn reply of this worth ends the search.
    others : sequence of (str, float)
        Replies that compete with those drawn, and their worth.
    most : int
        Replies drawn at most.
    stopped : callable
        Asked after each draw; says that no more are wanted.
    """
    prompt = list(prompt_ids)
    if len(prompt) > 1:
        session.run(np.asarray(prompt[:-1]))
    state, found = session.snapshot(), list(others)
    for number in range(most):
        found.append(draw(number, prompt[-1:], prompt[:-1]))
        session.restore(state)
        if found[-1][1] >= enough or stopped():
            break
    return max(found, key=lambda item: item[1])
