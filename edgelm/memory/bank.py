"""A bank of exchanges: what was said, and what was answered to it.

Two steps find the exchanges nearest to a remark. *Candidates*: each word of the remark adds its weight, times the
square of the similarity, to every exchange that holds it or a word near it in meaning. *Score*: for the best of those,

    score = a covered(remark by said) + b covered(said by remark) + c pairs + d fit(remark, reply) + e alike

where covered(x by y) is the share of the weight of the words of x that y holds, the square of the similarity counting
for words that are only near; pairs is the share of two neighbouring words in common; alike is 1 if both are questions
or neither is, and 1 more if both deny or neither does, 2 less if only one does. A word weighs -log of the share of
exchanges that hold it.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from importlib.resources import files
from typing import NamedTuple

import numpy as np

from edgelm.errors import ModelFileError
from edgelm.memory.meaning import FIRST, UNKNOWN, WIDTH, Lines, Meaning
from edgelm.memory.statements import denies, is_question

Array = np.ndarray
CANDIDATES = 48
NEAR = 0.55
"""A word of less similarity is not followed in the first step."""
WEIGHTS = (1.0, 0.4, 0.4, 1.2, 0.1)
"""a, b, c, d, e of the score; docs/experiments.md says how they were found."""
PART = 512
"""Exchanges that are indexed at a time."""
LIGHTEST, CONTENT, CONTENT_ASKED = 1.5, 4.0, 1.0
"""Nats from which on a word is looked for, and from which on it is one of content in a remark; the weight in ``match``
from which on it is one in a question."""
_NOTHING = (np.zeros(0, np.uint16), np.zeros(0, np.uint32), np.zeros(0, np.int64), np.zeros((0, WIDTH), np.int8))


class Exchange(NamedTuple):
    """What was said, what was answered, and the entry of the person's log that says so (None: it came with edgelm)."""

    said: str
    reply: str
    entry_id: int | None = None


class Near(NamedTuple):
    """An exchange, how near it is to a remark (about 0 to 3), whether each has a word of content that the other lacks,
    and the share of the weight of the words of what was said that the remark holds, 0 to 1."""

    exchange: Exchange
    score: float
    differs: bool
    covering: float = 0.0


class PackedExchanges(Sequence[Exchange]):
    """Exchanges kept as the bytes of lines, what was said and the reply with a tab between, read when asked for.

    Parameters
    ----------
    text : bytes
        UTF-8; every line ends.

    Raises
    ------
    ValueError
        A line has no tab or more than one.
    """

    def __init__(self, text: bytes) -> None:
        self._text = text
        raw = np.frombuffer(text, np.uint8)
        self._ends, self._tabs = (np.flatnonzero(raw == ord(c)).astype(np.int32) for c in "\n\t")
        starts = np.concatenate([[-1], self._ends[:-1]])
        if len(self._tabs) != len(self._ends) or not ((starts < self._tabs) & (self._tabs < self._ends)).all():
            raise ValueError("not lines of two columns")
        if len(raw) and raw[-1] != ord("\n"):
            raise ValueError("its last line does not end")
        try:
            text.decode()
        except UnicodeDecodeError as exc:
            raise ValueError(f"not UTF-8 (byte {exc.start})") from None

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> Exchange:  # type: ignore[override]
        start = int(self._ends[index - 1]) + 1 if index else 0
        tab, end = int(self._tabs[index]), int(self._ends[index])
        return Exchange(self._text[start:tab].decode(), self._text[tab + 1 : end].decode())


def read_exchanges() -> PackedExchanges:
    """The exchanges that come with edgelm.

    Raises
    ------
    ModelFileError
        The file is damaged.
    """
    path = files("edgelm").joinpath("models", "talk", "bank.tsv.gz")
    try:
        return PackedExchanges(gzip.decompress(path.read_bytes()))
    except (OSError, EOFError, ValueError) as exc:
        raise ModelFileError(f"{path}: damaged ({exc}); install edgelm again") from None


class Bank:
    """Exchanges, found by meaning and by words.

    Parameters
    ----------
    meaning : Meaning
    exchanges : sequence of Exchange
    large : Bank, optional
        Whose frequencies say what a word weighs; default: its own, for which it must be large.
    """

    def __init__(self, meaning: Meaning, exchanges: Sequence[Exchange], large: Bank | None = None) -> None:
        self._meaning, self.exchanges = meaning, exchanges
        # A part at a time: the words of all of them together would take ten times what is kept.
        parts = [self._index(range(i, min(i + PART, len(exchanges)))) for i in range(0, len(exchanges), PART)]
        rows, stems, counts, replies = (np.concatenate(p) for p in zip(*parts, strict=True)) if parts else _NOTHING
        self._rows, self._stems, self._replies = rows, stems, replies
        self._starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        n_rows = len(meaning.codes) + FIRST
        held = np.bincount(rows, minlength=n_rows)
        self._holders = np.repeat(np.arange(len(counts), dtype=np.int32), counts)[np.argsort(rows, kind="stable")]
        self._holders_from = np.concatenate([[0], np.cumsum(held)]).astype(np.int32)
        own: Array = np.log((len(counts) + 1) / (held + 1.0)).astype(np.float32)
        own[UNKNOWN] = own.max()
        self._idf: Array = own if large is None else large._idf

    def _index(self, part: range) -> tuple[Array, Array, Array, Array]:
        """Of some exchanges the rows and stems of what was said, its number of words, and the vector of the reply."""
        some = [self.exchanges[i] for i in part]
        said, replies = (self._meaning.lines(texts) for texts in ([e.said for e in some], [e.reply for e in some]))
        vectors = np.round(self._meaning.sums("reply", replies) * 127).astype(np.int8)
        return said.rows.astype(np.uint16), _short(said.stems), np.diff(said.starts), vectors

    def nearest(self, remark: str, count: int = 5) -> list[Near]:
        """The ``count`` exchanges nearest to ``remark``, best first; fewer where fewer share a word with it."""
        asked = self._meaning.lines([remark])
        if not len(asked.rows) or not self.exchanges:
            return []
        candidates = self._candidates(asked)
        if not len(candidates):
            return []
        parts, exchanged = self.features(remark, asked, candidates)
        scores = parts @ np.array(WEIGHTS, np.float32)
        best = np.argsort(-scores, kind="stable")[:count].tolist()
        return [
            Near(self.exchanges[candidates[i]], float(scores[i]), bool(exchanged[i]), float(parts[i, 1])) for i in best
        ]

    def _candidates(self, asked: Lines) -> Array:
        """Indices of the exchanges that share most with a remark."""
        total = np.zeros(len(self.exchanges), np.float32)
        heavy = np.flatnonzero(self._idf[asked.rows] >= LIGHTEST)
        vocabulary = self._meaning.all_similar(asked, heavy)
        for word, row in enumerate(asked.rows[heavy].tolist()):
            similar = vocabulary[word]
            similar[row] = 1.0
            near = np.flatnonzero(similar >= NEAR)
            # From the least similar to the most, so that of several words of an exchange the nearest counts.
            near = near[np.argsort(similar[near], kind="stable")]
            best = np.zeros(len(self.exchanges), np.float32)
            for other in near.tolist():
                lines = self._holders[self._holders_from[other] : self._holders_from[other + 1]]
                best[lines] = similar[other] ** 2
            total += self._idf[row] * best
        count = min(CANDIDATES, len(total))
        found = np.argpartition(-total, count - 1)[:count]
        return found[total[found] > 0]

    def features(self, remark: str, asked: Lines, candidates: Array) -> tuple[Array, Array]:
        """[candidates, 5] float32, what the score is the weighted sum of; and [candidates] bool, whether remark and
        exchange each have a word of content that the other lacks."""
        counts = np.diff(self._starts)[candidates]
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        words = np.arange(counts.sum()) + np.repeat(self._starts[candidates] - starts, counts)
        rows, stems, asked_stems = self._rows[words], self._stems[words], _short(asked.stems)
        same = asked_stems[:, None] == stems
        similar = np.maximum(self._meaning.unit("alike", asked.rows) @ self._meaning.unit("alike", rows).T, 0) ** 2
        similar[same] = 1
        weight, other = self._idf[asked.rows], self._idf[rows]
        covered = weight @ np.maximum.reduceat(similar, starts, axis=1) / (weight.sum() + 1e-3)
        covering = np.add.reduceat(similar.max(0) * other, starts) / (np.add.reduceat(other, starts) + 1e-3)
        pairs = np.isin(_pairs(stems), _pairs(asked_stems))
        pairs[starts[1:] - 1] = False  # from one exchange to the next
        shared = np.add.reduceat(np.append(pairs, False), starts) / max(1, len(asked.rows) - 1)
        vector = self._meaning.sums("remark", asked)[0]
        fits = self._replies[candidates].astype(np.float32) @ vector / 127
        asks, denied = "?" in remark, denies(remark)
        said = (self.exchanges[i].said for i in candidates.tolist())
        alike = [(asks == ("?" in text)) + (1 if denied == denies(text) else -2) for text in said]
        # A question for "minus" is not answered with "plus", however often both are asked for.
        if is_question(remark):
            content, other_content = (self._meaning.weights(r) >= CONTENT_ASKED for r in (asked.rows, rows))
        else:
            content, other_content = weight >= CONTENT, other >= CONTENT
        lacks = (content @ ~np.logical_or.reduceat(same, starts, axis=1)) > 0
        lacked = np.add.reduceat(other_content & ~same.any(0), starts) > 0
        return np.stack([covered, covering, shared, fits, np.array(alike, np.float32)], 1).astype(
            np.float32
        ), lacks & lacked


def _pairs(stems: Array) -> Array:
    """[n - 1] uint64: each two neighbours as one number."""
    return (stems[:-1].astype(np.uint64) << np.uint64(32)) | stems[1:]


def _short(stems: Array) -> Array:
    """Stems as uint32: of 10,000 different words two are taken for one in one of a hundred texts."""
    return (stems ^ (stems >> np.uint64(32))).astype(np.uint32)
