"""The likeliest next words, as a keyboard shows them."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field

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
    session: Session, tokenizer: Tokenizer, prompt_ids: Sequence[int], n_words: int, mix: Mix = no_mix
) -> list[tuple[str, float]]:
    """The next words after a prompt and their probabilities, best first.

    A word is followed token by token, the likeliest beginnings first, until the next token would begin
    another word; its probability is that of its tokens and of ending there. The search stops after
    MAX_STEPS runs of the model or when no open beginning can beat the words found, so the list is exact
    in its first places and may miss rare words.

    Returns
    -------
    list of (str, float)
        At most ``n_words``.
    """
    session.reset()
    starts = np.array([_starts_word(tokenizer.decode_bytes([i])) for i in range(tokenizer.vocab_size)])
    scores = _scores(session.run(np.asarray(prompt_ids))[-1], prompt_ids, mix)
    begins = np.where(starts & _has_letters(tokenizer), scores, -np.inf)
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
        scores = _scores(logits, [*prompt_ids, *best.ids], mix)
        ends = float(np.exp(scores[starts]).sum())
        word = tokenizer.decode(best.ids).strip()
        found[word] = found.get(word, 0.0) + float(np.exp(-best.cost)) * ends
        state = session.snapshot()
        inner = np.where(starts, -np.inf, scores)
        for i in np.argsort(-inner)[:BRANCH]:
            heapq.heappush(queue, _Beginning(best.cost - float(inner[i]), [*best.ids, int(i)], state))
    return sorted(found.items(), key=lambda item: -item[1])[:n_words]


def _scores(logits: np.ndarray, history: Sequence[int], mix: Mix) -> np.ndarray:
    return np.log(np.maximum(mix(history, np.exp(log_softmax(logits))), TINY))


def _starts_word(token: bytes) -> bool:
    """Whether a token cannot go on a word: white space, the end of a document, or a sign comes first."""
    first = token[:1]
    return not (first.isalnum() or first in (b"'", b"-") or first >= b"\x80") or token.startswith(b"<|")


def _has_letters(tokenizer: Tokenizer) -> np.ndarray:
    pieces = [tokenizer.decode([i]) for i in range(tokenizer.vocab_size)]
    return np.array([piece.startswith(" ") and piece.strip().isalnum() for piece in pieces])
