"""The likeliest next words, as a keyboard shows them."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from edgelm.engine.generate import TINY, Mix, no_mix
from edgelm.engine.sampler import log_softmax
from edgelm.engine.session import Session, Snapshot
from edgelm.text.tokenizer import Tokenizer

BRANCH = 12
"""Continuations of a beginning that are followed."""
MAX_STEPS = 60
"""Runs of the model for one list of words."""


@dataclass(order=True)
class _Beginning:
    """The tokens of a word so far; ``cost`` is their negative log-probability."""

    cost: float
    ids: list[int] = field(compare=False)
    state: Snapshot = field(compare=False)


def suggest_words(
    session: Session, tokenizer: Tokenizer, prompt_ids: Sequence[int], n_words: int,
    new_mix: Callable[[], Mix] = lambda: no_mix,
) -> list[tuple[str, float]]:  # fmt: skip
    """The next words after a prompt and their probabilities, best first.

    A word is followed token by token, the likeliest beginnings first, until the next token would begin
    another word; its probability is that of its tokens and of ending there. The search stops after
    MAX_STEPS runs of the model or when no open beginning can beat the words found, so the list is exact
    in its first places and may miss rare words. ``new_mix`` makes what is asked in a text that begins.

    Returns
    -------
    list of (str, float)
        At most ``n_words``.
    """
    session.reset()
    starts, has_letters = _kinds(tokenizer)
    mix, read = new_mix(), list[int]()
    scores = _scores(session.run(np.asarray(prompt_ids))[-1], prompt_ids, mix)
    begins = np.where(starts & has_letters, scores, -np.inf)
    root = session.snapshot()
    queue = [_Beginning(-float(begins[i]), [int(i)], root) for i in np.argsort(-begins)[: 3 * BRANCH + n_words]]
    heapq.heapify(queue)
    found: dict[str, float] = {}
    for _ in range(MAX_STEPS):
        if not queue or (len(found) >= n_words and np.exp(-queue[0].cost) < sorted(found.values())[-n_words]):
            break
        best = heapq.heappop(queue)
        session.restore(best.state)
        logits = session.run(np.array([best.ids[-1]]))[-1]
        goes_on = best.ids[:-1] == read
        mix = mix if goes_on else new_mix()
        scores = _scores(logits, best.ids[-1:] if goes_on else [*prompt_ids, *best.ids], mix)
        read = best.ids
        ends = float(np.exp(scores[starts]).sum())
        word = tokenizer.decode(best.ids).strip()
        found[word] = found.get(word, 0.0) + float(np.exp(-best.cost)) * ends
        state = session.snapshot()
        inner = np.where(starts, -np.inf, scores)
        for i in np.argsort(-inner)[:BRANCH]:
            heapq.heappush(queue, _Beginning(best.cost - float(inner[i]), [*best.ids, int(i)], state))
    return sorted(found.items(), key=lambda item: -item[1])[:n_words]


def _scores(logits: np.ndarray, new_ids: Sequence[int], mix: Mix) -> np.ndarray:
    return np.log(np.maximum(mix(new_ids, np.exp(log_softmax(logits))), TINY))


def _starts_word(token: bytes) -> bool:
    """Whether a token cannot go on a word: white space, the end of a document, or a sign comes first."""
    first = token[:1]
    return not (first.isalnum() or first in (b"'", b"-") or first >= b"\x80") or token.startswith(b"<|")


@lru_cache(maxsize=2)
def _kinds(tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray]:
    """Which tokens begin a word or something else, and which are a space and letters; both [V] of bool."""
    spelled = [tokenizer.decode_bytes([i]) for i in range(tokenizer.vocab_size)]
    pieces = [token.decode("utf-8", errors="replace") for token in spelled]
    has_letters = [piece.startswith(" ") and piece.strip().isalnum() for piece in pieces]
    return np.array([_starts_word(token) for token in spelled]), np.array(has_letters)
