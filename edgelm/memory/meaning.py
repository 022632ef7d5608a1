"""Which statement answers a question, which reply fits a remark: by vectors of words, without the model.

**Match** (late interaction, as ColBERT, Khattab and Zaharia 2020, arXiv 2004.12832). Each word q of a question looks
for the word of a statement that is nearest to it; what words of one stem count was learned:

    s(q, t) = 1 + same if their stems are equal, else cos(v_q, v_t)
    match   = sum over q of w_q max(0, max over t of s(q, t))^2 / W - length W log(1 + words of the statement),
    W       = sqrt(sum over q of w_q)

What is taken off for its length is what a statement of many words finds by chance.

**Alike.** Other vectors, and s of them, say which words can stand for each other, in the bank of exchanges and in
commands: a question and its answer may hold opposites, two remarks that mean the same may not.

**Fit.** Remark and reply are weighted sums of vectors, of two kinds; fit is their cosine.

**Asks.** A logistic regression over words and pairs of neighbouring words: does a turn ask for something told?

Vectors are of length 1 and int8; a word without one has that of its stem ("frightens", "frighten"), or shares that of
numbers or of unknown words. How all of this is made: ``tools/pretrain/meaning.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np

from edgelm.errors import ModelFileError
from edgelm.memory.words import Words, words_of
from edgelm.model import tensorfile

Array = np.ndarray
WIDTH = 64
"""Numbers of a vector."""
PAIRS = 1 << 13
"""Weights that the pairs of words share, by their hash."""
NUMBER, UNKNOWN, FIRST = 0, 1, 3
"""Rows of any number, of any word without a vector, and of the first word that has one."""
_ONE = 127.0
_MIX = np.uint64(0x9E3779B97F4A7C15)


def pair_slots(stems: Array) -> Array:
    """[..., n - 1] int64: where the weight of each two neighbouring words stands, of stems [..., n]."""
    stems = stems & np.uint64(0x7FFFFFFFFFFFFFFF)
    mixed = (stems[..., :-1] * _MIX) ^ stems[..., 1:]
    return ((mixed * _MIX) >> np.uint64(64 - 13)).astype(np.int64)


class Lines(NamedTuple):
    """Lines of text, ready to be compared.

    Attributes
    ----------
    rows : ndarray [n] of int32
        The row of the vector of each word, line after line.
    stems : ndarray [n] of uint64
    starts : ndarray [lines + 1] of int64
        Where the words of each line begin.
    """

    rows: Array
    stems: Array
    starts: Array

    def line(self, index: int) -> slice:
        """The words of one line."""
        return slice(int(self.starts[index]), int(self.starts[index + 1]))

    def then(self, other: Lines) -> Lines:
        """These lines and others after them."""
        starts = np.concatenate([self.starts[:-1], other.starts + len(self.rows)])
        return Lines(np.concatenate([self.rows, other.rows]), np.concatenate([self.stems, other.stems]), starts)


class Meaning:
    """Vectors of words and what was learned with them.

    Parameters
    ----------
    path : Path, optional
        Default: what comes with edgelm.

    Raises
    ------
    ModelFileError
        The file is damaged or another one.
    """

    def __init__(self, path: Path | None = None) -> None:
        path = path or Path(str(files("edgelm").joinpath("models", "talk", "meaning.safetensors")))
        tensors, metadata = tensorfile.read(path)
        n = len(tensors.get("codes", ()))
        expected = {
            "codes": (n, 8),
            "match.same": (1,),
            "alike.same": (1,),
            "match.length": (1,),
            "asks.words": (n + FIRST,),
            "asks.pairs": (PAIRS,),
            "asks.bias": (1,),
        }
        n_fit, n_alike = (len(tensors.get(f"{side}.weights", ())) for side in ("reply", "alike"))
        for side, n_rows in (("match", n + FIRST), ("alike", n_alike), ("remark", n_fit), ("reply", n_fit)):
            expected |= {f"{side}.vectors": (n_rows, WIDTH), f"{side}.weights": (n_rows,)}
        if (
            metadata.get("kind") != "edgelm meaning"
            or {k: a.shape for k, a in tensors.items()} != expected
            or not (FIRST < n_fit <= n_alike <= n + FIRST)
        ):
            raise ModelFileError(f"{path}: not the word vectors of this edgelm; install it again")
        codes = np.ascontiguousarray(tensors["codes"]).view(np.uint64)[:, 0]
        self._order = np.argsort(codes)
        self.codes = codes[self._order]
        self._vectors = {side: tensors[f"{side}.vectors"] for side in ("match", "alike", "remark", "reply")}
        self._weights = {side: tensors[f"{side}.weights"].astype(np.float32) for side in self._vectors}
        self._same = {side: float(tensors[f"{side}.same"][0]) for side in ("match", "alike")}
        self._length = tensors["match.length"][0]
        self._asks_bias = float(tensors["asks.bias"][0])
        self._asks_words = tensors["asks.words"].astype(np.float32)
        self._asks_pairs = tensors["asks.pairs"].astype(np.float32)

    def lines(self, texts: Sequence[str]) -> Lines:
        """Texts, ready to be compared."""
        words = words_of(texts)
        return Lines(self.rows(words, texts), words.stems, np.searchsorted(words.line, np.arange(len(texts) + 1)))

    def rows(self, words: Words, texts: Sequence[str]) -> Array:
        """[n] int32: the row of the vector of each word, or else of its stem."""
        place, known = self._places(words.codes)
        of_stem, stem_known = self._places(words.stems)
        place, known = np.where(known, place, of_stem), known | stem_known
        raw = np.frombuffer("\n".join(t.replace("\n", " ").replace("’", "'") for t in texts).encode() or b" ", np.uint8)
        first = raw[np.minimum(words.begins, len(raw) - 1)]
        is_number = (first >= ord("0")) & (first <= ord("9"))
        return np.where(known, self._order[place] + FIRST, np.where(is_number, NUMBER, UNKNOWN)).astype(np.int32)

    def _places(self, codes: Array) -> tuple[Array, Array]:
        """Where each code stands among the sorted ones, and whether it does."""
        place = np.minimum(np.searchsorted(self.codes, codes), len(self.codes) - 1)
        return place, self.codes[place] == codes

    def unit(self, side: str, rows: Array) -> Array:
        """[n, WIDTH] float32 of length 1: vectors of ``match``, ``alike``, ``remark`` or ``reply``; 0 for a word that
        is too rare to have one there."""
        vectors = self._vectors[side]
        unit: Array = vectors[np.minimum(rows, len(vectors) - 1)].astype(np.float32) / np.float32(_ONE)
        unit[rows >= len(vectors)] = 0
        return unit

    def _with_vector(self, side: str, rows: Array) -> Array:
        """Rows of one side, which has vectors of the more frequent words alone."""
        return np.where(rows < len(self._weights[side]), rows, UNKNOWN)

    def in_replies(self, rows: Array) -> Array:
        """[n, WIDTH] float32 of length 1: vectors of ``reply``; words that replies can exchange are near each other."""
        return self.unit("reply", self._with_vector("reply", rows))

    def in_remarks(self, rows: Array) -> Array:
        """[n, WIDTH] float32 of length 1: vectors of ``remark``."""
        return self.unit("remark", self._with_vector("remark", rows))

    def weights(self, rows: Array, side: str = "alike") -> Array:
        """[n] float32: what each word of a question or remark weighs."""
        return self._weights[side][self._with_vector(side, rows)]

    def similar(self, asked: Lines, told: Lines, line: slice = slice(None), side: str = "alike") -> Array:
        """[words of ``asked``, words of ``told[line]``]: s(q, t) of the equations."""
        score = self.unit(side, asked.rows) @ self.unit(side, told.rows[line]).T
        score[asked.stems[:, None] == told.stems[line]] = 1 + self._same[side]
        return np.maximum(score, 0)

    def all_similar(self, asked: Lines, which: Array) -> Array:
        """[words, rows]: cosine by ``alike`` of some words of ``asked`` to every word; 0 to one that has no vector."""
        unit, vectors = self.unit("alike", asked.rows[which]) / np.float32(_ONE), self._vectors["alike"]
        found = np.zeros((len(which), len(self.codes) + FIRST), np.float32)
        for i in range(0, len(vectors), 2048):
            part = vectors[i : i + 2048].astype(np.float32)
            found[:, i : i + len(part)] = unit @ part.T
        return found

    def match(self, asked: Lines, told: Lines) -> Array:
        """[lines of ``told``] float32: how well each statement answers a question, ``match`` of the equations."""
        n_words = np.diff(told.starts)
        if not len(asked.rows) or not len(told.rows):
            return np.zeros(len(n_words), np.float32)
        score = self.similar(asked, told, side="match")
        # An empty line has no words to take the largest of.
        has_words = np.flatnonzero(n_words)
        best = np.zeros((len(score), len(n_words)), np.float32)
        best[:, has_words] = np.maximum.reduceat(score, told.starts[has_words], axis=1)
        weight = self.weights(asked.rows, "match")
        root = np.sqrt(weight.sum() + np.float32(1e-3))
        return (weight @ best**2) / root - self._length * root * np.log1p(n_words, dtype=np.float32)

    def shared(self, asked: Lines, stems: Array) -> float:
        """The share of the weight of a question's words that are among ``stems``."""
        weight = self.weights(asked.rows, "match")
        return float(weight[np.isin(asked.stems, stems)].sum() / (weight.sum() + np.float32(1e-3)))

    def sums(self, side: str, lines: Lines) -> Array:
        """[lines, WIDTH] float32 of length 1 (0 for a line without words): remarks or replies, for ``fit``."""
        sums = np.zeros((len(lines.starts) - 1, WIDTH), np.float32)
        has_words = np.flatnonzero(np.diff(lines.starts))
        for part in np.array_split(has_words, max(1, len(has_words) // 2000)):
            if not len(part):
                continue
            first, last = lines.starts[part[0]], lines.starts[part[-1] + 1]
            rows = self._with_vector(side, lines.rows[first:last])
            weighted = self.unit(side, rows) * self._weights[side][rows][:, None]
            sums[part] = np.add.reduceat(weighted, lines.starts[part] - first, axis=0)
        return sums / (np.linalg.norm(sums, axis=1, keepdims=True) + np.float32(1e-9))

    def fit(self, remark: str, reply: str) -> float:
        """Cosine of a remark and a reply: about 0.2 by chance, 0.5 where the reply belongs to the remark."""
        sides = (self.sums(side, self.lines([text]))[0] for side, text in (("remark", remark), ("reply", reply)))
        return float(np.dot(*sides))

    def asks(self, text: str) -> float:
        """Logit that a turn asks for something that the person told."""
        line = self.lines([text])
        if not len(line.rows):
            return -np.inf
        pairs = self._asks_pairs[pair_slots(line.stems)].sum() if len(line.rows) > 1 else 0.0
        return float(self._asks_words[line.rows].sum() + pairs) + self._asks_bias
