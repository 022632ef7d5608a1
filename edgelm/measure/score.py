"""Measures of a model on text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgelm.engine.sampler import log_softmax
from edgelm.engine.session import Session
from edgelm.model.config import ModelConfig
from edgelm.text.tokenizer import Tokenizer, document_ids

if TYPE_CHECKING:
    # Kernels are loaded only by those who learn.
    from edgelm.learn.replay import Replay
    from edgelm.memory.fast_memory import FastMemory

PART = 64
"""Tokens of one run of the graph while measuring: its logits are PART x V."""

OnTokens = Callable[[int], None]
OnActivations = Callable[[np.ndarray], None]


@dataclass(frozen=True)
class Score:
    """Code length of a text under a model.

    Attributes
    ----------
    bits : float
        -log2 of the probability of the whole text.
    tokens, n_bytes : int
    awake_fraction : float
        Share of the feed-forward neurons that were awake, the shared block included.
    """

    bits: float
    tokens: int
    n_bytes: int
    awake_fraction: float

    @property
    def bits_per_byte(self) -> float:
        """Bits divided by the UTF-8 bytes of the text."""
        return self.bits / self.n_bytes

    def __add__(self, other: Score) -> Score:
        tokens = self.tokens + other.tokens
        awake = (self.awake_fraction * self.tokens + other.awake_fraction * other.tokens) / max(1, tokens)
        return Score(self.bits + other.bits, tokens, self.n_bytes + other.n_bytes, awake)


def awake_fraction(config: ModelConfig, pairs_per_token: float) -> float:
    """Share of neurons awake, when ``pairs_per_token`` blocks wake over all layers together."""
    return config.ffn.share_awake(pairs_per_token / config.n_layers)


def score_text(
    session: Session,
    tokenizer: Tokenizer,
    config: ModelConfig,
    text: str,
    memory: FastMemory | None = None,
    on_tokens: OnTokens = lambda _: None,
    on_activations: OnActivations = lambda _: None,
) -> Score:
    """Scores a whole text; its ``<|doc|>`` lines reset the state and count. Nothing is learned.

    ``on_activations`` is given those of the blocks, [L,T,M], as ``Session.observe`` does, of all tokens in turn.
    """
    nats, pairs, tokens = 0.0, 0, 0
    for ids in document_ids(tokenizer.encode_document_lines(text)):
        session.reset()
        array, chosen = np.asarray(ids), []
        for start in range(0, len(ids) - 1, PART):
            part = array[start : start + PART + 1]
            logits, a = session.observe(part[:-1])
            chosen.append(log_softmax(logits)[np.arange(len(part) - 1), part[1:]])
            on_activations(a)
            pairs += int(np.minimum((a > 0).sum(-1), config.max_awake).sum())
            tokens += len(part) - 1
            on_tokens(len(part) - 1)
        scores = np.concatenate(chosen)
        if memory is not None:
            scores = np.log(memory.predict(array, 1, np.exp(scores)))
        nats -= float(scores.sum())
    fraction = awake_fraction(config, pairs / max(1, tokens))
    return Score(nats / np.log(2), tokens, len(text.encode()), fraction)


def progressive_score(replay: Replay, text: str, on_tokens: OnTokens = lambda _: None) -> Score:
    """Scores each segment of a text before it is learned: one pass, no token is seen twice."""
    nats, pairs, tokens = 0.0, 0, 0

    def count(p: np.ndarray) -> None:
        nonlocal nats, pairs, tokens
        nats -= float(np.log(p).sum())
        pairs += replay.learner.network.n_pairs
        tokens += len(p)
        on_tokens(len(p))

    for ids in document_ids(replay.model.tokenizer.encode_document_lines(text)):
        replay.learn_document(np.asarray(ids), count)
    fraction = awake_fraction(replay.model.config, pairs / max(1, tokens))
    return Score(nats / np.log(2), tokens, len(text.encode()), fraction)


def rank_continuations(
    session: Session,
    tokenizer: Tokenizer,
    prompt_ids: Sequence[int],
    candidates: Sequence[str],
    memory: FastMemory | None = None,
    *,
    as_reply: bool = False,
) -> list[tuple[str, float]]:
    """Total log-probability in nats of each candidate text after the prompt, best first.

    ``as_reply``: the candidates are answers of the assistant.
    """
    session.reset()
    first = session.run(np.asarray(prompt_ids))[-1].copy()
    state, ranking = session.snapshot(), []
    for candidate in candidates:
        ids = np.asarray(tokenizer.encode(candidate))
        session.restore(state)
        logits = np.concatenate([first[None], session.run(ids[:-1], 0)]) if len(ids) > 1 else first[None]
        scores = log_softmax(logits)[np.arange(len(ids)), ids]
        if memory is not None:
            whole = np.array([*prompt_ids, *ids])
            scores = np.log(memory.predict(whole, len(prompt_ids), np.exp(scores), as_reply))
        ranking.append((candidate, float(scores.sum())))
    return sorted(ranking, key=lambda item: -item[1])
