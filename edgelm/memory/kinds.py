"""What kind of turn somebody writes ("a pet has died", "asks for a poem"), and replies that suit every turn of a kind.

    chances = softmax(W h + b),  h = (sum of v over the words + sum of u over pairs of neighbouring words) / sqrt(words)

as in fastText (Joulin et al. 2017, arXiv 1607.01759). The beginning of a turn, its end and a question mark count as
neighbours. A turn is in few words, so exchanges that are near to it have a say too: its chances are the geometric mean
of its own and of theirs, weighed by how near they are. How the numbers are made: ``tools/pretrain/kinds.py``.

Some kinds are finer ones of another ("an exam was passed" of "somebody succeeded"). A turn is of the finest kind that
is sure; the chance of a broad kind is the sum of its own and of those of its finer ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np

from edgelm.errors import ModelFileError
from edgelm.memory.meaning import PAIRS, UNKNOWN, Meaning, pair_slots
from edgelm.model import tensorfile

Array = np.ndarray
SAD, GLAD, LASTING, ASKS, PLAIN, PERIL = "sad", "glad", "lasting", "asks", "plain", "peril"
TONES = (SAD, GLAD, LASTING, ASKS, PLAIN, PERIL)
"""What a kind is about: sorrow or trouble, something pleasant, a lasting fact, something asked for, anything else, or
danger to somebody."""
SURE, SURE_FINER, SURE_TONE = 0.45, 0.5, 0.6
"""Chance from which on a turn counts as one of its kind, from which on as one of a finer kind that is the likeliest of
all, and from which on as one of its tone (docs/experiments.md)."""
SURE_PERIL = 0.45
"""Chance of all kinds of peril together from which on it is the likeliest of them (docs/experiments.md)."""
BEYOND_DOUBT = 0.8
"""Chance by its words alone from which on a reply that suits all of a finer kind is better than that of an exchange
about something else."""
NEIGHBOURS, NEARER, LEAST = 8, 5.0, 1e-4
"""Exchanges that have a say; what a point of their score counts for, in nats; the least weight of a kind among them."""
_BEGIN, _QUESTION, _END = (np.uint64(n * 0x1111111111111111) for n in (1, 2, 3))


class Kind(NamedTuple):
    """A kind of turns.

    Attributes
    ----------
    name : str
        Empty where the tone alone is known.
    tone : str
        One of ``TONES``.
    replies : tuple of str
        Each suits every turn of the kind; none where the tone alone is known.
    broad : str
        The name of the kind that it is a finer one of; empty where it is none.
    """

    name: str
    tone: str
    replies: tuple[str, ...]
    broad: str = ""


class Bags(NamedTuple):
    """The words and the pairs of words of texts, a row of vectors each.

    Attributes
    ----------
    words, pairs : list of ndarray of int64
    """

    words: list[Array]
    pairs: list[Array]


def bags(meaning: Meaning, texts: Sequence[str], n_words: int) -> Bags:
    """What kinds are told by; words beyond the first ``n_words`` of ``meaning`` count as unknown."""
    lines = meaning.lines(texts)
    rows = np.where(lines.rows < n_words, lines.rows, UNKNOWN).astype(np.int64)
    words, pairs = [], []
    for i, text in enumerate(texts):
        stems = lines.stems[lines.line(i)]
        words.append(rows[lines.line(i)])
        pairs.append(pair_slots(np.concatenate([[_BEGIN], stems, [_QUESTION if "?" in text else _END]])))
    return Bags(words, pairs)


def read_kinds(text: str) -> list[Kind]:
    """Kinds of lines: a name, its tone, the kind that it is a finer one of or nothing, and replies with ``|`` between;
    tabs between these.

    Raises
    ------
    ValueError
        A line is something else.
    """
    rows = [line.split("\t") if line.count("\t") == 3 else [""] * 4 for line in text.splitlines()]
    names, known = {name for name, _, broad, _ in rows if not broad}, set[str]()
    for number, (name, tone, broad, replies) in enumerate(rows, 1):
        is_new = name not in known
        known.add(name)
        if not name or not is_new or tone not in TONES or (broad and broad not in names) or not all(replies.split("|")):
            raise ValueError(f"line {number} is not a kind, a tone, a broad kind or none, and replies")
    return [Kind(name, tone, tuple(replies.split("|")), broad) for name, tone, broad, replies in rows]


def broad_of(kinds: Sequence[Kind]) -> Array:
    """[kinds + 1, kinds + 1] float32: 1 where the kind of a row counts as that of a column."""
    number_of = {kind.name: i for i, kind in enumerate(kinds)}
    found = np.zeros((len(kinds) + 1, len(kinds) + 1), np.float32)
    columns = [number_of[kind.broad or kind.name] for kind in kinds]
    found[range(len(kinds) + 1), [*columns, len(kinds)]] = 1
    return found


class Kinds:
    """Kinds of turns.

    Parameters
    ----------
    kinds : sequence of Kind
    tensors : mapping of str to ndarray
        ``words`` [n_words, D] and ``pairs`` [PAIRS, D] of int8, with ``words.scale`` [n_words] and ``pairs.scale``
        [PAIRS] of float32; ``out`` [kinds + 1, D] of float16 and ``bias`` [kinds + 1] of float32, the last one for
        turns of no kind.
    """

    def __init__(self, kinds: Sequence[Kind], tensors: dict[str, Array]) -> None:
        self.kinds = list(kinds)
        self._tones = np.array([[float(kind.tone == tone) for tone in TONES] for kind in kinds], np.float32)
        self._broad = broad_of(kinds)
        self._is_finer = np.array([bool(kind.broad) for kind in kinds] + [False])
        self._words, self._pairs = tensors["words"], tensors["pairs"]
        self._scales = tensors["words.scale"], tensors["pairs.scale"]
        self._out, self._bias = tensors["out"].astype(np.float32), tensors["bias"]

    def chances(self, meaning: Meaning, texts: Sequence[str]) -> Array:
        """[texts, kinds + 1] float32: the chance of each kind, by the words of each text alone."""
        found = bags(meaning, texts, len(self._words))
        hidden = np.zeros((len(texts), self._words.shape[1]), np.float32)
        for i, (words, pairs) in enumerate(zip(*found, strict=True)):
            parts = zip((self._words, self._pairs), (words, pairs), self._scales, strict=True)
            total = sum(scales[ids] @ vectors[ids].astype(np.float32) for vectors, ids, scales in parts)
            hidden[i] = total / np.sqrt(max(1, len(words)))
        logits = hidden @ self._out.T + self._bias
        powers = np.exp(logits - logits.max(1, keepdims=True))
        return np.asarray(powers / powers.sum(1, keepdims=True), np.float32)

    def broad(self, chances: Array) -> Array:
        """[..., kinds + 1] float32: the chance of each broad kind, its finer ones counted in; 0 of a finer one."""
        return np.asarray(chances @ self._broad, np.float32)

    def beyond_doubt(self, own: Array) -> bool:
        """Whether a turn with these chances [kinds + 1] is of a finer kind, and nothing else."""
        best = int(own.argmax())
        return bool(self._is_finer[best] and own[best] >= BEYOND_DOUBT)

    def of(self, own: Array, others: Array, scores: Sequence[float]) -> Kind | None:
        """The kind of a turn, or its tone alone; None where neither is sure, or where it is sure to be of no kind.

        Parameters
        ----------
        own : ndarray [kinds + 1]
            Its chances.
        others : ndarray [n, kinds + 1]
            Those of the exchanges that are nearest to it, the nearest first; there may be none.
        scores : sequence of float [n]
            How near they are (``Near.score``).
        """
        for tone, sure in ((PERIL, SURE_PERIL), (LASTING, SURE)):
            of_tone = own[:-1] * self._tones[:, TONES.index(tone)]
            if of_tone.sum() >= sure:
                # What is near in the bank is harmless, or has happened ("my bicycle was stolen"), and has no say.
                return self.kinds[int(of_tone.argmax())]
        if len(scores):
            weights = np.exp(NEARER * np.array(scores[:NEIGHBOURS], np.float32))
            own = np.sqrt(own * (weights @ others[:NEIGHBOURS] / weights.sum() + LEAST))
            own /= own.sum()
        best = int(own.argmax())
        if self._is_finer[best] and own[best] >= SURE_FINER:
            return self.kinds[best]
        broad = self.broad(own)
        best = int(broad.argmax())
        if broad[best] >= SURE:
            return self.kinds[best] if best < len(self.kinds) else None
        tones = own[:-1] @ self._tones
        best = int(tones.argmax())
        return Kind("", TONES[best], ()) if tones[best] >= SURE_TONE else None


def agreements(own: Array, others: Array) -> Array:
    """[n] float32: the Bhattacharyya coefficient, 0 to 1, of a turn's chances and each of ``others`` [n, kinds + 1]."""
    return np.asarray(np.sqrt(others) @ np.sqrt(own))


def read_folder(folder: Path) -> Kinds:
    """The kinds of ``kinds.tsv``, told by ``kinds.safetensors``.

    Raises
    ------
    ModelFileError
        A file is damaged or another one.
    """
    try:
        kinds = read_kinds((folder / "kinds.tsv").read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise ModelFileError(f"{folder / 'kinds.tsv'}: damaged ({exc}); install edgelm again") from None
    path = folder / "kinds.safetensors"
    tensors, metadata = tensorfile.read(path)
    n_words, width = tensors["words"].shape if "words" in tensors and tensors["words"].ndim == 2 else (0, 0)
    expected = {
        "words": (n_words, width), "pairs": (PAIRS, width), "words.scale": (n_words,), "pairs.scale": (PAIRS,),
        "out": (len(kinds) + 1, width), "bias": (len(kinds) + 1,),
    }  # fmt: skip
    if metadata.get("kind") != "edgelm kinds" or {k: a.shape for k, a in tensors.items()} != expected or not n_words:
        raise ModelFileError(f"{path}: not the kinds of turns of this edgelm; install it again")
    return Kinds(kinds, tensors)


@cache
def shipped() -> Kinds:
    """Those that come with edgelm."""
    return read_folder(Path(str(files("edgelm").joinpath("models", "talk"))))
