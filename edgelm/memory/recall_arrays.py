"""The arrays that the kernels of recall (``edgelm.kernels.recall``) read and write.

They are plain tuples of arrays, because a compiled kernel takes nothing else. H is ``KEYS``, S is ``SENTENCES``.

The *position* of a token is the number of tokens that were stored before it. The *row* of a word, from 0 to H - 1, is
its key modulo H; the key is made of its spelling. Words that have the same row are taken for the same word.
"""

from __future__ import annotations

import numpy as np

from edgelm.kernels import recall, sentences
from edgelm.kernels.recall import WINDOW
from edgelm.matrices.pages import untouched

Array = np.ndarray
KEYS = 1 << 16
"""Rows of the tables of words: as many words recall can tell apart."""
SENTENCES = 1 << 13
"""Rows of the hash table of sentences. At most half are used: so many sentences are compared with one question."""


def make_store(n_tokens: int) -> tuple[Array, ...]:
    """An empty store for the last ``n_tokens`` tokens, a power of two.

    Returns
    -------
    ring : ndarray [n_tokens] of uint16
        The tokens; that of position t stands at t modulo n_tokens.
    places : ndarray [n_tokens] of uint8
        Of each token, as in ``ring``: how many tokens of its sentence stand before it.
    before : ndarray [n_tokens] of int32
        Of each token that was stored, as in ``ring``: the last position before it at which the same word stood, or
        -1. For a word of several tokens each of them has its own chain, for the word as far as it has come by then.
    heads : ndarray [H] of int32
        By row, the position at which the word was stored last, or -1: where its chain begins.
    seen : ndarray [H] of int32
        By row, how often the word was stored.
    cursor : ndarray [3] of int64
        The number of tokens stored so far; the place in its sentence that the next token has; the key of the word so
        far, 0 where there is none.
    """
    return (
        untouched((n_tokens,), np.uint16),
        untouched((n_tokens,), np.uint8),
        untouched((n_tokens,), np.int32),
        np.full(KEYS, -1, np.int32),
        np.zeros(KEYS, np.int32),
        np.zeros(3, np.int64),
    )


def make_workspace() -> tuple[Array, ...]:
    """The arrays that a call overwrites; none of it has to be kept from one call to the next.

    When a call begins, ``marks`` and ``asked`` must be 0 and ``starts`` must be -1 throughout. The call leaves them so.

    Returns
    -------
    marks : ndarray [H] of float64
        By row, the weight of a word of the question, 0 for other words. It is negative while a sentence is read in
        which the word was found already.
    asked : ndarray [H] of bool
        By row, whether the word stands in the line before the present one.
    words, weights : ndarray [WINDOW] of int64 and float64
        The rows of the words of the question, and their weights.
    starts, masses : ndarray [S] of int64 and float64
        A hash table of sentences: the position at which a sentence starts, or -1, and the sum of the weights of the
        words that it shares with the question.
    slots : ndarray [S] of int64
        The indices into ``starts`` that are in use.
    top : ndarray [ATTENDED, 4] of int64
        Of each sentence attended to: the position of its first token; the position after its last; the length of the
        longest match, -1 if it predicts nothing; the position of the token after that match.
    best : ndarray [ATTENDED, 2] of float64
        Of each sentence attended to: the sum of the weights of the words that it shares with the question, and its own
        weight in the prediction.
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
    """What recall knows of each id, worked out from its spelling and its rank; the kernels read it and never write it.

    Parameters
    ----------
    spelled : list of bytes
        The spelling of each id, in the order of the vocabulary, which must be about that of falling frequency; at most
        65,536. Id 0 begins an entry, and its spelling is not looked at.

    Returns
    -------
    folds : ndarray [V] of uint16
        Ids that differ only in capitals, or in the s of a plural or a verb, have the same number.
    kinds : ndarray [V] of uint8
        What a token does: the flags ``WORDY``, ``BEGINS``, ``ENDS`` and so on of ``edgelm.kernels.sentences``.
    shares : ndarray [V] of float64
        Estimated frequency of the word in the language at large, from the rank of its id; those of ids with the same
        fold are added.
    values, powers : ndarray [V] of int64
        The spelling as a polynomial of its bytes, and the power of the base that its length stands for, both modulo
        2^31. The key of a word is made from them, and is the same however the word is cut into tokens.
    """
    n = len(spelled)
    folds, kinds, first = np.arange(n, dtype=np.uint16), np.zeros(n, np.uint8), dict[bytes, int]()
    values, powers = np.zeros(n, np.int64), np.ones(n, np.int64)
    for i, text in enumerate(spelled[1:], 1):
        kinds[i] = _kind(text)
        if kinds[i] & sentences.WORDY:
            folded = _folded(text)
            folds[i] = first.setdefault(folded, i)
            for byte in folded.strip():
                values[i] = (int(values[i]) * _BASE + byte) & 0x7FFFFFFF
                powers[i] = (int(powers[i]) * _BASE) & 0x7FFFFFFF
    kinds[0] = sentences.LINE | sentences.ENDS
    # Ids are in the order in which the vocabulary was merged, which is about that of frequency; bytes come first.
    ranks = np.maximum(np.arange(n) - 256, 0) + 10
    shares = np.minimum(0.03, 0.004 * (300 / ranks) ** 1.5)
    shares[:257] = 0.003
    return folds, kinds, np.bincount(folds, shares, n)[folds], values, powers


def _folded(text: bytes) -> bytes:
    """The spelling without capitals or the s of a plural or a verb. A capital begins a word as a space does."""
    word, begins = text.strip().lower(), text[:1] == b" " or text[:1].isupper()
    has_s = len(word) >= 3 + begins and word.endswith(b"s") and not word.endswith(b"ss")
    return b" " * begins + (word[:-1] if has_s else word)


def _kind(text: bytes) -> int:
    """The flags of a token that is spelled so (``edgelm.kernels.sentences``)."""
    word, kind = text.strip(b" "), 0
    if word and all(byte >= 128 or bytes([byte]).isalnum() for byte in word):
        kind = (
            sentences.WORDY | (sentences.BEGINS if text[:1] == b" " else 0) | (sentences.PLURAL if text == b"s" else 0)
        )
    elif b"\n" in text:
        kind = sentences.LINE | sentences.ENDS
    elif word.rstrip(_SIGNS_AFTER).endswith((b".", b"!", b"?", b";")):
        kind = sentences.ENDS | (sentences.QUESTION if b"?" in word else 0)
    elif word == b":":
        kind = sentences.LABEL
    return kind | (sentences.NEGATES if word.lower() in _DENIALS else 0)
