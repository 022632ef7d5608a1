"""Logits to a token."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgelm.config import SampleConfig

Array = np.ndarray
PENALTY_WINDOW = 64


def log_softmax(logits: Array) -> Array:
    """Natural log-probabilities over the last axis, float64 inside."""
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def sample(logits: Array, recent: Sequence[int], config: SampleConfig, rng: np.random.Generator) -> int:
    """Draws the next token.

    Parameters
    ----------
    logits : ndarray [V]
    recent : sequence of int
        Tokens generated before; the last 64 are penalised.
    config : SampleConfig
    rng : numpy.random.Generator

    Returns
    -------
    int
        A token id. With temperature 0 the likeliest, whatever ``rng``.
    """
    scores = log_softmax(logits)
    if config.repetition_penalty > 1 and recent:
        scores[np.unique(recent[-PENALTY_WINDOW:])] -= np.log(config.repetition_penalty)
    if config.temperature == 0:
        return int(np.argmax(scores))
    probabilities = np.exp((scores - scores.max()) / config.temperature)
    probabilities /= probabilities.sum()
    # All that is rarer than this has less than 1 - top_p together: no need to sort it.
    found = np.flatnonzero(probabilities >= (1 - config.top_p) / len(probabilities))
    order = found[np.argsort(-probabilities[found], kind="stable")]
    kept = order[: int(np.searchsorted(np.cumsum(probabilities[order]), config.top_p)) + 1]
    weights = probabilities[kept] / probabilities[kept].sum()
    return int(rng.choice(kept, p=weights))
