"""The blank of a text: candidates from what stands before it, rescored with what stands after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from edgelm.engine.generate import TINY, no_mix
from edgelm.engine.sampler import log_softmax
from edgelm.engine.session import Session
from edgelm.engine.suggest import NewMix, WordSearch, split_begun
from edgelm.errors import InputError
from edgelm.text.template import USUAL, Template
from edgelm.text.tokenizer import Tokenizer

BLANK = "[...]"
STEPS = 64
"""Runs of the model that look for candidates."""
CANDIDATES = 32
"""So many candidates are rescored."""
AFTER_TOKENS = 20
"""So much of the text after the blank is read."""
AFTER_CHARS = 512
"""And no more than this, however long its tokens are."""
MAX_WORDS = 3


@dataclass(frozen=True)
class Blank:
    """A text with a gap: what stands before the gap, and what stands after it."""

    before: str
    after: str

    @classmethod
    def find(cls, text: str) -> Blank:
        """The blank of a text in which ``[...]`` stands once.

        Raises
        ------
        InputError
            It stands there more than once or not at all, or nothing else does.
        """
        count = text.count(BLANK)
        if count != 1:
            found = f"{count} of them" if count else "none"
            raise InputError(f"the text must have one blank, written {BLANK}; it has {found}")
        before, _, after = text.partition(BLANK)
        if not before.strip() and not after.strip():
            raise InputError(f"there is no text around the blank {BLANK}; give some to fill it from")
        return cls(before, after)

    def filled(self, fill: str) -> str:
        """The text with ``fill`` in its gap."""
        return self.before + fill + self.after


def fill_blank(
    session: Session, tokenizer: Tokenizer, blank: Blank, n_fills: int, new_mix: NewMix = lambda: no_mix,
    max_words: int = MAX_WORDS, template: Template = USUAL,
) -> list[tuple[str, float]]:  # fmt: skip
    """What the blank of a text may hold, and the log-probabilities, best first.

    Candidates are one to ``max_words`` words with a space between them. The words that may follow the text before the
    blank are searched (``WordSearch``) for STEPS runs of the model; the CANDIDATES that are likeliest there, each with
    the chance that a word ends where it does, are rescored. The score of a candidate is

        log p(candidate, after | before) = log p(candidate | before) + log p(after | before, candidate)

    of the tokens in which candidate and ``after`` are spelled together, ``after`` being at most the first AFTER_TOKENS
    tokens of what stands after the blank. So the order is exact among the candidates that are rescored, and a word
    that nothing before the blank makes likely may be missing. Where nothing stands after the blank but spaces, the
    score is that of ``suggest_words``: log p(candidate | before) and of a word ending there.

    The text before the blank is read once, without the space and the letters of a word in which the blank stands:
    candidates begin with those. The blank is never left empty. ``new_mix`` makes what is asked in a text that begins.

    Returns
    -------
    list of (str, float)
        At most ``n_fills``: what is to be put in place of the blank as it is, and nats.
    """
    stem, begins = split_begun(blank.before)
    ids = template.document(tokenizer.encode(stem))
    search = WordSearch(session, tokenizer, ids, new_mix, begins, max_words)
    after = _beginning_of(blank.after, tokenizer)
    found = _candidates(search, begins, ends_open=after[:1].isalnum() or after.startswith(("'", "-")))
    if after:
        best = sorted(found, key=lambda text: -found[text])[:CANDIDATES]
        rescored = _Rescoring(session, search, ids, new_mix)
        found = {text: rescored.log_probability(tokenizer.encode(begins + text + after)) for text in best}
    return sorted(found.items(), key=lambda item: -item[1])[:n_fills]


def _beginning_of(after: str, tokenizer: Tokenizer) -> str:
    """As much of the text after a blank as is read; empty if that is nothing but spaces."""
    after = after[:AFTER_CHARS]
    blob = tokenizer.decode_bytes(tokenizer.encode(after)[:AFTER_TOKENS])
    return blob.decode("utf-8", errors="ignore").rstrip(" ")


def _candidates(search: WordSearch, begins: str, *, ends_open: bool) -> dict[str, float]:
    """Candidates, without what they begin with, and their log-probabilities; ``ends_open``: none need end a word."""
    found: dict[str, float] = {}
    for step in islice(search, STEPS):
        try:
            text = step.spelling.decode()[len(begins) :]
        except UnicodeDecodeError:  # half a character
            continue
        chance = step.probability * (1.0 if ends_open else step.ends)
        if text.strip() and chance > 0:
            found[text] = found.get(text, 0.0) + chance
    return {text: float(np.log(chance)) for text, chance in found.items()}


class _Rescoring:
    """Log-probabilities of texts, each after the same prompt."""

    def __init__(self, session: Session, search: WordSearch, prompt_ids: Sequence[int], new_mix: NewMix) -> None:
        self._session, self._search, self._prompt, self._new_mix = session, search, prompt_ids, new_mix

    def log_probability(self, ids: Sequence[int]) -> float:
        """Of ``ids`` after the prompt, in nats."""
        self._session.restore(self._search.state)
        logits = self._search.logits[None]
        if len(ids) > 1:
            logits = np.concatenate([logits, self._session.run(np.asarray(ids[:-1]), 0)])
        mix, read, total = self._new_mix(), self._prompt, 0.0
        for token_id, probabilities in zip(ids, np.exp(log_softmax(logits)), strict=True):
            total += float(np.log(max(float(mix(read, probabilities)[token_id]), TINY)))
            read = [token_id]
        return total
