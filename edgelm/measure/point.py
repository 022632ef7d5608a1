"""Whether answers are on the point: is the reply that belongs to a remark found, and what is the remark worth?

*Hits*: the right reply is first among 20, the others being replies to other remarks, by log p(reply | remark) -
log p(reply | "hm"), which does not favour what is said often (Li et al. 2016, arXiv 1510.03055). Chance is 5 %.
*Conditioning gain*: the share of bits by which a reply costs less after its own remark than after another one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edgelm.engine.sampler import log_softmax
from edgelm.engine.session import Session
from edgelm.errors import InputError
from edgelm.text.template import USUAL, Template
from edgelm.text.tokenizer import Tokenizer

Pair = tuple[str, str]
CHOICES, EMPTY_REMARK = 20, "hm"
LONGEST = 300
"""Characters of a remark or reply that are read."""


def read_pairs(text: str, name: str) -> list[Pair]:
    """Remarks and their replies: lines of JSON with ``said`` and ``reply``, or a dialogue file with labels.

    Raises
    ------
    InputError
        It holds none, or fewer than 20.
    """
    pairs = _from_json(text, name) if text.lstrip().startswith("{") else _from_dialogues(text)
    pairs = [(said[:LONGEST], reply[:LONGEST]) for said, reply in pairs]
    pairs = [pair for pair in pairs if all(text.strip() for text in pair)]
    if len(pairs) < CHOICES:
        raise InputError(f"{name}: {len(pairs)} exchanges in it, {CHOICES} are needed at least")
    return pairs


def _from_json(text: str, name: str) -> list[Pair]:
    pairs = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                fields = json.loads(line)
                pairs.append((str(fields["said"]), str(fields["reply"])))
            except (ValueError, TypeError, KeyError, RecursionError):
                raise InputError(f'{name}, line {number}: not an object with "said" and "reply"') from None
    return pairs


def _from_dialogues(text: str) -> list[Pair]:
    pairs, before = [], ("", "")
    for line in text.splitlines():
        label, _, words = line.partition(": ")
        if line == USUAL.document_line or label not in USUAL.labels:
            before = ("", "")
            continue
        if label == USUAL.assistant_label and before[0] == USUAL.user_label:
            pairs.append((before[1], words))
        before = (label, words)
    return pairs


class Scorer:
    """Log-probabilities of replies, nothing learned and nothing remembered."""

    def __init__(self, session: Session, tokenizer: Tokenizer, template: Template = USUAL) -> None:
        self._session, self._tokenizer, self._template = session, tokenizer, template

    def replies(self, said: str, replies: Sequence[str]) -> list[float]:
        """log p of each reply as the answer to ``said``, nats."""
        session, template, scores = self._session, self._template, []
        session.reset()
        prompt = template.document(self._tokenizer.encode(template.user_turn(said) + template.reply_prompt()))
        first = session.run(np.asarray(prompt))[-1].copy()
        state = session.snapshot()
        for reply in replies:
            ids = np.asarray(self._tokenizer.encode(template.answer(template.clean(reply))))
            session.restore(state)
            logits = np.concatenate([first[None], session.run(ids[:-1], 0)])
            scores.append(float(log_softmax(logits)[np.arange(len(ids)), ids].sum()))
        return scores


def on_the_point(
    session: Session, tokenizer: Tokenizer, pairs: Sequence[Pair], seed: int = 1,
    on_pair: Callable[[int], None] = lambda n: None, template: Template = USUAL,
) -> dict[str, Any]:  # fmt: skip
    """The fields of ``evaluate --suite point``."""
    scorer, rng, hits, own, other = Scorer(session, tokenizer, template), np.random.default_rng(seed), 0, 0.0, 0.0
    replies = [reply for _, reply in pairs]
    plain = np.array(scorer.replies(EMPTY_REMARK, replies))
    for i, (said, _) in enumerate(pairs):
        wrong = rng.choice(np.delete(np.arange(len(pairs)), i), CHOICES - 1, replace=False)
        chosen = np.concatenate([[i], wrong])
        scores = np.array(scorer.replies(said, [replies[j] for j in chosen]))
        gains = scores - plain[chosen]
        hits += bool((gains[0] > gains[1:]).all())
        own += scores[0]
        other += scorer.replies(pairs[int(wrong[0])][0], [replies[i]])[0]
        on_pair(1)
    n_bytes = sum(len(template.answer(template.clean(reply)).encode()) for reply in replies)
    bits = np.array([own, other]) / -np.log(2) / n_bytes
    return {
        "pairs": len(pairs), "first_of_20": round(hits / len(pairs), 4), "bits_per_byte": round(bits[0], 4),
        "bits_per_byte_after_another": round(bits[1], 4), "conditioning_gain": round(1 - bits[0] / bits[1], 4),
    }  # fmt: skip
