"""Leaves out what must not be trained on: repeated documents, and those that hold evaluation text.

Texts are compared by their runs of eight words (a Chinese character counts as a word), without case and marks.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from hashlib import blake2b

import numpy as np

RUN = 8
WORD = re.compile(r"[\u3400-\u9fff]|[^\W_\u3400-\u9fff]+")
_FACTORS = np.array([pow(0x9E3779B97F4A7C15, i + 1, 2**64) for i in range(RUN)], np.uint64)


class Filter:
    """Decides which documents stay; ``left_out`` counts the others by reason.

    Parameters
    ----------
    held_out : iterable of str
        Texts to be measured on. A document of which more than ``share`` of the runs occur in them is left out: a
        phrase in common is no leak, a paragraph is.
    never : iterable of str
        Texts of which no run at all may occur.
    share : float
    """

    def __init__(self, held_out: Iterable[str] = (), never: Iterable[str] = (), share: float = 0.25) -> None:
        self._codes: dict[str, int] = {}
        self._held_out, self._never, self._share = self._collect(held_out), self._collect(never), share
        self._seen: set[bytes] = set()
        self.left_out: Counter[str] = Counter()

    def keep(self, documents: Iterable[str]) -> Iterator[str]:
        """The documents that stay."""
        for document in documents:
            reason = self._reason(document)
            if reason:
                self.left_out[reason] += 1
            else:
                yield document

    def _reason(self, document: str) -> str | None:
        words = WORD.findall(document.lower())
        digest = blake2b(" ".join(words).encode(), digest_size=8).digest()
        if digest in self._seen:
            return "repeated"
        self._seen.add(digest)
        runs = self._runs(words)
        if len(runs) and _found(runs, self._never).any():
            return "never to be read"
        if len(runs) and _found(runs, self._held_out).mean() > self._share:
            return "held out"
        return None

    def _runs(self, words: list[str]) -> np.ndarray:
        """A 64-bit code of every run of eight words, [n - 7]; a shorter text has none."""
        codes = self._codes
        numbers = np.empty(len(words), np.uint64)
        for i, word in enumerate(words):
            code = codes.get(word)
            if code is None:
                blob = word.encode()
                code = codes[word] = zlib.crc32(blob) << 32 | zlib.crc32(blob[::-1])
            numbers[i] = code
        if len(numbers) < RUN:
            return numbers[:0]
        windows = np.lib.stride_tricks.sliding_window_view(numbers, RUN)
        return (windows * _FACTORS).sum(-1, dtype=np.uint64)

    def _collect(self, texts: Iterable[str]) -> np.ndarray:
        parts = [self._runs(WORD.findall(text.lower())) for text in texts]
        return np.unique(np.concatenate(parts)) if parts else np.empty(0, np.uint64)


def _found(runs: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Which runs are among the sorted ``known``."""
    if not len(known):
        return np.zeros(len(runs), bool)
    return known[np.minimum(np.searchsorted(known, runs), len(known) - 1)] == runs
