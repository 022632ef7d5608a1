"""Prefill, step, sample, yield."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from edgelm.config import SampleConfig
from edgelm.engine.sampler import log_softmax, sample
from edgelm.engine.session import Session
from edgelm.errors import DivergenceError
from edgelm.text.template import USUAL, Template
from edgelm.text.tokenizer import Tokenizer

TINY = 1e-300
Mix = Callable[[Sequence[int], np.ndarray], np.ndarray]
"""(ids read so far, probabilities [V]) to probabilities [V]: how a fast memory joins in."""


def no_mix(history: Sequence[int], probabilities: np.ndarray) -> np.ndarray:
    """The model alone."""
    return probabilities


def generate(
    session: Session,
    prompt_ids: Sequence[int],
    config: SampleConfig,
    rng: np.random.Generator,
    mix: Mix = no_mix,
    before: Sequence[int] = (),
    on_score: Callable[[float], None] = lambda score: None,
    template: Template = USUAL,
) -> Iterator[int]:
    """Token ids after ``prompt_ids``, where the session has read the ids ``before``; ends at the end-of-document id.

    ``on_score`` is told the log-probability of each token, in nats, as it is before temperature and penalty.
    Each id is fed to the session when the next one is asked for, so an id that the caller refuses by
    stopping was never read by the model.
    """
    history = [*before, *prompt_ids]
    n_prompt = len(history)
    logits = session.run(np.asarray(prompt_ids))[-1]
    for _ in range(config.max_tokens):
        if not np.isfinite(logits).all():
            raise DivergenceError("the model's output is not finite; move the profile away, or get the model again")
        scores = log_softmax(logits)
        if mix is not no_mix:
            scores = np.log(np.maximum(mix(history, np.exp(scores)), TINY))
        token_id = sample(scores, history[n_prompt:], config, rng)
        if token_id == template.document_id:
            return
        on_score(float(scores[token_id]))
        yield token_id
        history.append(token_id)
        logits = session.run(np.array([token_id]))[-1]


def reply(
    session: Session,
    tokenizer: Tokenizer,
    prompt_ids: Sequence[int],
    config: SampleConfig,
    rng: np.random.Generator,
    mix: Mix = no_mix,
    on_token: Callable[[float], None] = lambda score: None,
    before: Sequence[int] = (),
    template: Template = USUAL,
) -> Iterator[str]:
    """Text of one turn after ``prompt_ids``, in pieces as they come; the session has read the ids ``before``.

    The turn ends at a label on a new line, at the end-of-document id, or after ``max_tokens``. Line ends
    and spaces are held back until something follows them; ``on_token`` is told the log-probability of every
    token of the turn.
    Afterwards the session has read the turn and a line end, whatever ended it.
    """
    decoder = tokenizer.stream()
    held, begun, line_end = "", False, False
    scores: list[float] = []
    for token_id in generate(session, prompt_ids, config, rng, mix, before, scores.append, template):
        piece = decoder.feed(token_id)
        if line_end and (held + piece).rsplit("\n", 1)[-1].strip() in template.labels:
            break
        on_token(scores[-1])
        line_end = piece.endswith("\n")
        held += piece
        if not begun:
            held = held.lstrip()
        settled = held.rstrip()
        if settled:
            begun = True
            yield settled
            held = held[len(settled) :]
    if not line_end:
        session.run(np.asarray(tokenizer.encode(template.turn_end)))


def best_reply(
    draw: Callable[[int, Sequence[int], Sequence[int]], tuple[str, float]],
    session: Session,
    prompt_ids: Sequence[int],
    *,
    enough: float,
    others: Sequence[tuple[str, float]] = (),
    most: int = 3,
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
    """
    prompt = list(prompt_ids)
    if len(prompt) > 1:
        session.run(np.asarray(prompt[:-1]))
    state, found = session.snapshot(), list(others)
    for number in range(most):
        found.append(draw(number, prompt[-1:], prompt[:-1]))
        session.restore(state)
        if found[-1][1] >= enough:
            break
    return max(found, key=lambda item: item[1])
