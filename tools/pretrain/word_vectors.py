"""Vectors of words from how often they stand near each other, and texts as rows of them.

Positive pointwise mutual information of words within six words of each other, and its singular vectors (Levy and
Goldberg 2014; Levy, Goldberg and Dagan 2015, with smoothed contexts).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numba import njit
from torch import Tensor, nn

from edgelm.memory.meaning import WIDTH, Lines
from edgelm.memory.words import Words, words_of
from tools.pretrain.corpus import read_documents

Array = np.ndarray
WINDOW, SVD_WIDTH, VOCABULARY = 6, 128, 40_000
TOLD_TIMES = 40
PROSE = (
    "dlg_self", "dlg_topical", "instr_dolly", "qa_small", "dlg_sgd", "dlg_taskmaster", "children_stories", "openstax",
    "factbook_prose", "wiki_en", "books_en", "x_wiki_en", "x_books_en",
)  # fmt: skip
TALK = ("talk_plain", "talk_remarks", "talk_facts", "talk_threads")
NUMBER, UNKNOWN, PAD = 0, 1, 2
"""Rows before those of the words: of any number, of any other word that has none, of none."""
FIRST = 3
LONGEST = 28
"""Words of a text that are read."""


def lines_of(corpus: Path, names: tuple[str, ...]) -> Iterator[list[str]]:
    """The lines of each source that is there, without labels, some thousands at a time."""
    for name in names:
        batch: list[str] = []
        for document in read_documents(corpus, name):
            batch += re.sub(r"(?m)^(User|Assistant): ", "", document).splitlines()
            if len(batch) > 20_000:
                yield batch
                batch = []
        yield batch


@njit(nogil=True)  # type: ignore[untyped-decorator]
def count_pairs(ids, line, counts):  # type: ignore[no-untyped-def]
    """Adds 1 / distance for each two words of a line within WINDOW."""
    for i in range(len(ids)):
        for d in range(1, WINDOW + 1):
            j = i + d
            if j >= len(ids) or line[j] != line[i]:
                break
            if ids[i] >= 0 and ids[j] >= 0:
                counts[ids[i], ids[j]] += np.float32(1 / d)
                counts[ids[j], ids[i]] += np.float32(1 / d)


def find_vocabulary(corpus: Path, told: Sequence[str] = ()) -> tuple[Array, Array]:
    """Codes of the VOCABULARY most frequent words, most frequent first, and their counts without ``told``.

    Talk counts three times. ``told`` counts TOLD_TIMES where words are chosen: people speak of what stands there.
    """
    total, chosen = Counter[int](), Counter[int]()
    for names, times in ((PROSE, 1), ((*TALK, "talk_memory"), 3)):
        for lines in lines_of(corpus, names):
            _count_words(lines, times, total)
    _count_words(told, TOLD_TIMES, chosen)
    codes = [code for code, _ in (total + chosen).most_common(VOCABULARY)]
    return np.array(codes, np.uint64), np.array([max(total[code], 1) for code in codes])


def _count_words(lines: Sequence[str], times: int, total: Counter[int]) -> None:
    codes, counts = np.unique(words_of(lines).codes, return_counts=True)
    for code, count in zip(codes.tolist(), counts.tolist(), strict=True):
        total[code] += times * count


def make_vectors(corpus: Path, codes: Array) -> Array:
    """[VOCABULARY, SVD_WIDTH] float32, each of length 1."""
    order = np.argsort(codes)
    counts = np.zeros((len(codes), len(codes)), np.float32)
    for names, times in ((PROSE, 1), ((*TALK, "talk_memory"), 3)):
        for lines in lines_of(corpus, names):
            words = words_of(lines)
            place = np.minimum(np.searchsorted(codes[order], words.codes), len(codes) - 1)
            ids = np.where(codes[order][place] == words.codes, order[place], -1)
            for _ in range(times):
                count_pairs(ids, words.line, counts)
    rows = counts.sum(1, dtype=np.float64)
    contexts = rows**0.75 / (rows**0.75).sum()
    for start in range(0, len(counts), 1000):
        part = slice(start, start + 1000)
        with np.errstate(divide="ignore"):
            counts[part] = np.maximum(np.log(counts[part] / (rows[part, None] * contexts + 1e-9)) - 0.3, 0)
    a, generator = torch.from_numpy(counts), torch.Generator().manual_seed(0)
    y = a @ torch.randn(len(codes), SVD_WIDTH + 32, generator=generator)
    for _ in range(4):
        q, _ = torch.linalg.qr(y)
        y = a @ (a.t() @ q)
    q, _ = torch.linalg.qr(y)
    u, s, _ = torch.linalg.svd(q.t() @ a, full_matrices=False)
    return F.normalize((q @ u)[:, :SVD_WIDTH] * s[:SVD_WIDTH] ** 0.5, dim=-1).numpy()


class Texts:
    """Texts as rows of words, as ``Meaning`` has them.

    Parameters
    ----------
    codes : ndarray of uint64
        Of the words, those of the first row first.
    """

    def __init__(self, codes: Array) -> None:
        self._order = np.argsort(codes)
        self._codes = codes[self._order]
        self._known: dict[str, tuple[Array, Array]] = {}

    def rows(self, words: Words, text: bytes) -> Array:
        """The row of each word: its own, that of numbers, or that of unknown words."""
        place = np.minimum(np.searchsorted(self._codes, words.codes), len(self._codes) - 1)
        known = self._codes[place] == words.codes
        is_number = np.array([text[b : b + 1].isdigit() for b in words.begins.tolist()], np.bool_)
        return np.where(known, self._order[place] + FIRST, np.where(is_number, NUMBER, UNKNOWN))

    def lines(self, texts: Sequence[str]) -> Lines:
        """The first LONGEST words of each text; a text is read once."""
        found = [self._line(text) for text in texts]
        starts = np.cumsum([0, *(len(rows) for rows, _ in found)])
        return Lines(np.concatenate([rows for rows, _ in found]), np.concatenate([stems for _, stems in found]), starts)

    def batch(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Rows and stems [n, longest] of texts; PAD and -1 where there is no word."""
        found = [self._line(text) for text in texts]
        width = max(len(rows) for rows, _ in found)
        shape = (len(found), width)
        all_rows, all_stems = np.full(shape, PAD), np.full(shape, -1, np.int64)
        for i, (rows, stems) in enumerate(found):
            all_rows[i, : len(rows)], all_stems[i, : len(rows)] = rows, stems
        return torch.from_numpy(all_rows), torch.from_numpy(all_stems)

    def _line(self, text: str) -> tuple[Array, Array]:
        if text not in self._known:
            words, raw = words_of([text]), text.replace("\n", " ").replace("’", "'").encode()
            stems = words.stems[:LONGEST].astype(np.int64) & 0x7FFFFFFFFFFFFFFF
            self._known[text] = self.rows(words, raw)[:LONGEST], stems
        return self._known[text]


class Vectors(nn.Module):
    """Vectors and weights of the words, begun with those of the singular vectors and of the frequencies."""

    def __init__(self, vectors: Array, counts: Array) -> None:
        super().__init__()
        fixed = torch.zeros(FIRST + len(vectors), SVD_WIDTH)
        fixed[FIRST:] = torch.from_numpy(vectors)
        self.register_buffer("fixed", fixed)
        self.change = nn.Parameter(torch.zeros(len(fixed), WIDTH))
        self.projection = nn.Parameter(torch.eye(SVD_WIDTH)[:, :WIDTH].clone())
        weight = torch.full((len(fixed),), 4.0)
        weight[FIRST:] = torch.from_numpy(np.log(1e-3 / (counts / counts.sum() + 1e-5) + 1))
        self.log_weight = nn.Parameter(weight.clamp(0.05).log())

    def vectors(self, rows: Tensor | slice = slice(None)) -> Tensor:
        """[rows, WIDTH], not normalised."""
        return self.fixed[rows] @ self.projection + self.change[rows]  # type: ignore[no-any-return,operator,index]

    def parameter_groups(self, rate: float = 2e-3) -> list[dict[str, object]]:
        """Rates: what a word has of its own, what all share, weights."""
        return [
            {"params": [self.change], "lr": rate},
            {"params": [self.projection], "lr": 1e-3},
            {"params": [self.log_weight], "lr": 1e-2},
        ]
