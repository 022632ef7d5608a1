"""Words of many lines at once, as numbers.

A word is a run of letters, digits and bytes above 127, with apostrophes inside it; case does not count. Its *code* is a
64-bit polynomial of its bytes. Its *stem* is the code of the word without the ending of a plural, of a verb, or of a
possessive, so that "dog's", "dogs" and "dog" have one stem.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Array = np.ndarray
LONGEST = 24
"""Bytes of a word that count."""
_FACTOR = np.uint64(0x100000001B3)
_START = np.uint64(0xCBF29CE484222325)
_LOWER = np.arange(256, dtype=np.uint8)
_LOWER[ord("A") : ord("Z") + 1] += 32
_IS_WORD = np.zeros(256, np.bool_)
_IS_WORD[[*range(ord("0"), ord("9") + 1), *range(ord("a"), ord("z") + 1), *range(128, 256)]] = True
_APOSTROPHE = ord("'")
_S = ord("s")


class Words(NamedTuple):
    """The words of some lines, in order.

    Attributes
    ----------
    codes, stems : ndarray [n] of uint64
    line : ndarray [n] of int32
        The line of each word.
    begins, ends : ndarray [n] of int64
        Where each word stands, in bytes of the lines joined by line ends.
    """

    codes: Array
    stems: Array
    line: Array
    begins: Array
    ends: Array


def words_of(lines: Sequence[str]) -> Words:
    """The words of ``lines``; a line end inside a line counts as a space."""
    text = "\n".join(line.replace("\n", " ").replace("’", "'") for line in lines).encode()
    raw = np.frombuffer(text, np.uint8)
    padded = np.zeros(len(raw) + LONGEST + 2, np.uint8)
    padded[1 : len(raw) + 1] = _LOWER[raw]
    is_word = _IS_WORD[padded]
    inside = np.zeros(len(padded), np.bool_)
    inside[1:-1] = (padded[1:-1] == _APOSTROPHE) & is_word[:-2] & is_word[2:]
    is_word |= inside
    edges = np.diff(is_word.astype(np.int8))
    begins, ends = np.flatnonzero(edges == 1) + 1, np.flatnonzero(edges == -1) + 1
    length = np.minimum(ends - begins, LONGEST)
    # Possessives first: what is before 's is a word of its own.
    owned = (length > 2) & (padded[begins + length - 1] == _S) & (padded[begins + length - 2] == _APOSTROPHE)
    bare = length - 2 * owned
    plural = (bare > 3) & (padded[begins + bare - 1] == _S) & (padded[begins + bare - 2] != _S)
    line = np.searchsorted(np.flatnonzero(raw == ord("\n")) + 1, begins, "left").astype(np.int32)
    codes, stems = _codes(padded, begins, length), _codes(padded, begins, bare - plural)
    return Words(codes, stems, line, begins - 1, ends - 1)


def _codes(padded: Array, begins: Array, length: Array) -> Array:
    """The code of so many bytes from each of ``begins`` on."""
    codes = np.full(len(begins), _START)
    for i in range(int(length.max(initial=0))):
        here = i < length
        codes[here] = (codes[here] ^ padded[begins[here] + i]) * _FACTOR
    return codes
