"""The arrays that the kernels of recall (``edgelm.kernels.recall``) read and write.

They are plain tuples of arrays, because a compiled kernel takes nothing else. H is ``KEYS``, S is ``SENTENCES``.
"""

from __future__ import annotations

import numpy as np

from edgelm.kernels import recall
from edgelm.kernels.recall import WINDOW

Array = np.ndarray
KEYS = 1 << 16
"""Words that recall tells apart."""
SENTENCES = 1 << 13
"""Twice the sentences that are compared with one question."""


def make_store(n_tokens: int) -> tuple[Array, ...]:
    """An empty store for the last ``n_tokens`` tokens, a power of two.

    Returns
    -------
    ring : ndarray [n_tokens] of uint16
        The tokens; that of position t stands at t modulo n_tokens.
    places : ndarray [n_tokens] of uint8
        The place of each token in its sentence, from 0.
    before : ndarray [n_tokens] of int32
        The position at which the word so far stood before, or -1: the chain of the sightings of a word.
    heads : ndarray [H] of int32
        By word, the position of its newest sighting, or -1.
    seen : ndarray [H] of int32
        By word, its sightings.
    cursor : ndarray [3] of int64
        Tokens stored so far; the place of the next in its sentence; the key of the word so far, 0 in no word.
    """
    return (
        np.zeros(n_tokens, np.uint16),
        np.zeros(n_tokens, np.uint8),
        np.full(n_tokens, -1, np.int32),
        np.full(KEYS, -1, np.int32),
        np.zeros(KEYS, np.int32),
        np.zeros(3, np.int64),
    )


def make_workspace() -> tuple[Array, ...]:
    """What a call writes in; nothing of it has to be kept from one call to the next.

    A call expects ``marks`` and ``asked`` to be 0 and ``starts`` to be -1, and leaves them so.

    Returns
    -------
    marks : ndarray [H] of float64
        By word, its weight if it is one of the question.
    asked : ndarray [H] of bool
        By word, whether it stands in the line before the present one.
    words, weights : ndarray [WINDOW] of int64 and float64
        The words of the question, and their weights.
    starts, masses : ndarray [S] of int64 and float64
        A hash table: the position at which a sentence begins, and the weights that it shares with the question.
    slots : ndarray [S] of int64
        The rows of that table that are used.
    top : ndarray [ATTENDED, 4] of int64
        Of each sentence attended to: start, end, length of the longest match or -1, position of what follows it.
    best : ndarray [ATTENDED, 2] of float64
        Of each sentence attended to: the weights that it shares, and its weight in the prediction.
    found, shares : ndarray [ATTENDED * SENTENCE] of int64 and float64
        The ids predicted, an id perhaps several times, and their probabilities: the result of ``recall_read``.
    """
    attended, n_found = recall.ATTENDED, recall.ATTENDED * recall.SENTENCE
    return (
        np.zeros(KEYS),
        np.zeros(KEYS, np.bool_),
        np.zeros(WINDOW, np.int64),
        np.zeros(WINDOW),
        np.full(SENTENCES, -1, np.int64),
        np.zeros(SENTENCES),
        np.zeros(SENTENCES, np.int64),
        np.zeros((attended, 4), np.int64),
        np.zeros((attended, 2)),
        np.zeros(n_found, np.int64),
        np.zeros(n_found),
    )


_SIGNS_AFTER = "\"')]*”’".encode()
_BASE = 1000003
_DENIALS = frozenset(b"not never neither nor n't 't cannot".split())


def describe_vocabulary(spelled: list[bytes]) -> tuple[Array, ...]:
    """What recall knows of each id, from the bytes that it is spelled with; read by the kernels, never written.

    Returns
    -------
    folds : ndarray [V] of uint16
        Ids that differ in capitals, or in the s of a plural or a verb, have the same number.
    kinds : ndarray [V] of uint8
        Flags: ``WORDY``, ``BEGINS``, ``ENDS`` and so on.
    shares : ndarray [V] of float64
        How frequent the word is in the language at large.
    values, powers : ndarray [V] of int64
        The spelling as digits of a polynomial, and the power that its length stands for. From both the key of a word
        is made, the same however the word is cut into tokens.
    """
    n = len(spelled)
    folds, kinds, first = np.arange(n, dtype=np.uint16), np.zeros(n, np.uint8), dict[bytes, int]()
    values, powers = np.zeros(n, np.int64), np.ones(n, np.int64)
    for i, text in enumerate(spelled[1:], 1):
        kinds[i] = _kind(text)
        if kinds[i] & recall.WORDY:
            folded = _folded(text)
            folds[i] = first.setdefault(folded, i)
            for byte in folded.strip():
                values[i] = (int(values[i]) * _BASE + byte) & 0x7FFFFFFF
                powers[i] = (int(powers[i]) * _BASE) & 0x7FFFFFFF
    kinds[0] = recall.LINE | recall.ENDS
    # Ids are in the order in which the vocabulary was merged, which is about that of frequency; bytes come first.
    ranks = np.maximum(np.arange(n) - 256, 0) + 10
    shares = np.minimum(0.03, 0.004 * (300 / ranks) ** 1.5)
    shares[:257] = 0.003
    return folds, kinds, np.bincount(folds, shares, n)[folds], values, powers


def _folded(text: bytes) -> bytes:
    """Without capitals, and without the s of a plural or a verb; a capital begins a word as a space does."""
    word, begins = text.strip().lower(), text[:1] == b" " or text[:1].isupper()
    has_s = len(word) >= 3 + begins and word.endswith(b"s") and not word.endswith(b"ss")
    return b" " * begins + (word[:-1] if has_s else word)


def _kind(text: bytes) -> int:
    """Flags of a token."""
    word, kind = text.strip(b" "), 0
    if word and all(byte >= 128 or bytes([byte]).isalnum() for byte in word):
        kind = recall.WORDY | (recall.BEGINS if text[:1] == b" " else 0) | (recall.PLURAL if text == b"s" else 0)
    elif b"\n" in text:
        kind = recall.LINE | recall.ENDS
    elif word.rstrip(_SIGNS_AFTER).endswith((b".", b"!", b"?", b";")):
        kind = recall.ENDS | (recall.QUESTION if b"?" in word else 0)
    elif word == b":":
        kind = recall.LABEL
    return kind | (recall.NEGATES if word.lower() in _DENIALS else 0)
