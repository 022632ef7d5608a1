"""What the model gives each token of a text, and which blocks wake for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from edgelm.engine.generate import TINY, Mix, no_mix
from edgelm.engine.sampler import log_softmax
from edgelm.engine.session import Session
from edgelm.text.tokenizer import Tokenizer

PART = 64
"""Tokens of one run of the model; its logits are PART x V."""


class TokenScore(NamedTuple):
    """A token after those before it.

    Attributes
    ----------
    spelled : bytes
        What it stands for; a character may be cut in two.
    text : str
        What of it makes whole characters, with the tokens before it.
    log_probability : float
        Nats.
    top : tuple of (bytes, float)
        The likeliest tokens at this place, best first.
    """

    spelled: bytes
    text: str
    log_probability: float
    top: tuple[tuple[bytes, float], ...] = ()


def score_tokens(
    session: Session, tokenizer: Tokenizer, before: Sequence[int], ids: Sequence[int], mix: Mix = no_mix, n_top: int = 0
) -> list[TokenScore]:
    """Scores ``ids`` after ``before``, which is a document's beginning; the session is left after all but the last."""
    session.reset()
    found, decoder = list[TokenScore](), tokenizer.stream()
    if not ids:
        return found
    logits = session.run(np.asarray(before))[-1:]
    new = list(before)
    for start in range(0, len(ids), PART):
        part = list(ids[start : start + PART])
        last = start + PART >= len(ids)
        fed = part[:-1] if last else part
        after = session.run(np.asarray(fed), 0) if fed else logits[:0]
        for row, token_id in zip(np.concatenate([logits, after]), part, strict=False):
            scores = log_softmax(row)
            if mix is not no_mix:
                scores = np.log(np.maximum(mix(new, np.exp(scores)), TINY))
            likely = np.argsort(-scores, kind="stable")[:n_top]
            top = tuple((tokenizer.decode_bytes([int(i)]), float(scores[i])) for i in likely)
            spelled = tokenizer.decode_bytes([token_id])
            found.append(TokenScore(spelled, decoder.feed(token_id), float(scores[token_id]), top))
            new = [token_id]
        logits = after[-1:].copy() if len(after) else logits
    return found


def awake_blocks(session: Session, before: Sequence[int], ids: Sequence[int], max_awake: int) -> list[list[list[int]]]:
    """Of each of ``ids`` after ``before`` the blocks that wake, of each layer; empty for a model without blocks."""
    session.reset()
    if len(before):
        session.run(np.asarray(before))
    if not ids:
        return []
    _, activations = session.observe(np.asarray(ids))
    if activations.shape[-1] == 0:
        return []
    found = []
    for token in activations.transpose(1, 0, 2):
        strongest = np.argsort(-token, axis=-1, kind="stable")[:, :max_awake]
        found.append([sorted(int(i) for i in row if layer[i] > 0) for row, layer in zip(strongest, token, strict=True)])
    return found
