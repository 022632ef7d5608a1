"""Prefill, step, sample, yield."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from edgelm.config import SampleConfig
from edgelm.engine.sampler import log_softmax, sample
from edgelm.engine.session import Session
from edgelm.errors import DivergenceError
from edgelm.text.conversation import LABELS
from edgelm.text.tokenizer import DOC_ID, Tokenizer

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
) -> Iterator[int]:
    """Token ids after ``prompt_ids``, where the session has read the ids ``before``; ends at the end-of-document id.

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
        if token_id == DOC_ID:
            return
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
    on_token: Callable[[], None] = lambda: None,
    before: Sequence[int] = (),
) -> Iterator[str]:
    """Text of one turn after ``prompt_ids``, in pieces as they come; the session has read the ids ``before``.

    The turn ends at a label on a new line, at the end-of-document id, or after ``max_tokens``. Line ends
    and spaces are held back until something follows them; ``on_token`` is called for every token read.
    Afterwards the session has read the turn and a line end, whatever ended it.
    """
    decoder = tokenizer.stream()
    held, begun, line_end = "", False, False
    for token_id in generate(session, prompt_ids, config, rng, mix, before):
        piece = decoder.feed(token_id)
        if line_end and (held + piece).rsplit("\n", 1)[-1].strip() in LABELS:
            break
        on_token()
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
        session.run(np.asarray(tokenizer.encode("\n")))


def best_reply(
    draw: Callable[[Sequence[int], Sequence[int]], Iterator[str]],
    session: Session,
    prompt_ids: Sequence[int],
    judge: Callable[[str], float],
    *,
    enough: float,
    others: Sequence[str] = (),
    most: int = 3,
) -> tuple[str, float]:
    """Of several replies the one that ``judge`` likes best, and what it is worth.

    Parameters
    ----------
    draw : callable
        (ids to be read, ids that were read before) to the pieces of a reply, as ``reply`` gives them.
    session : Session
        Afterwards it has read the prompt alone, all but its last id.
    prompt_ids : sequence of int
    judge : callable
    enough : float
        A reply of this worth ends the search.
    others : sequence of str
        Replies that compete with those drawn.
    most : int
        Replies drawn at most.
    """
    prompt = list(prompt_ids)
    if len(prompt) > 1:
        session.run(np.asarray(prompt[:-1]))
    state, found = session.snapshot(), [(judge(text), text) for text in others]
    for _ in range(most):
        text = "".join(draw(prompt[-1:], prompt[:-1]))
        found.append((judge(text), text))
        session.restore(state)
        if found[-1][0] >= enough:
            break
    worth, text = max(found, key=lambda item: item[0])
    return text, worth
