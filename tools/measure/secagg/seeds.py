"""Seeds of Flower's masks, found by trying: each mask is numpy's Mersenne Twister, seeded with 32 bits at most.

``pseudo_rand_gen`` takes a key of any length, and of it the exclusive or of its groups of 4 bytes. A key that two
devices share is 44 characters of base64, and no character has the highest bit of its byte: 28 bits are left.
"""

from __future__ import annotations

import numpy as np
from numba import njit

Array = np.ndarray
PAIR_BITS = 28
"""Bits of the seed of a mask that two devices share."""
_LANES, _WORDS, _HALF = 256, 624, 397


def pair_seeds(first: int, last: int) -> Array:
    """[last - first] of uint32: of the seeds that two devices can share, in order."""
    numbers = np.arange(first, last, dtype=np.uint32)
    return sum(((numbers >> np.uint32(7 * i)) & np.uint32(0x7F)) << np.uint32(8 * i) for i in range(4))


@njit(cache=True)
def _tempered(high, low, far):  # type: ignore[no-untyped-def]
    """A number of the Mersenne Twister of three words of its state."""
    mixed = (high & np.uint32(0x80000000)) | (low & np.uint32(0x7FFFFFFF))
    word = far ^ (mixed >> np.uint32(1))
    if mixed & np.uint32(1):
        word ^= np.uint32(0x9908B0DF)
    word ^= word >> np.uint32(11)
    word ^= (word << np.uint32(7)) & np.uint32(0x9D2C5680)
    word ^= (word << np.uint32(15)) & np.uint32(0xEFC60000)
    return np.uint32(word ^ (word >> np.uint32(18)))


@njit(cache=True)
def first_numbers(seeds, found):  # type: ignore[no-untyped-def]
    """The first number of the mask of each seed, with the seed below it: ``found`` [n] of uint64, overwritten."""
    state, second = np.empty(_LANES, np.uint32), np.empty(_LANES, np.uint32)
    for start in range(0, len(seeds), _LANES):
        n = min(_LANES, len(seeds) - start)
        for j in range(n):
            state[j] = seeds[start + j]
        for i in range(1, _HALF + 1):
            for j in range(n):
                word = state[j]
                state[j] = np.uint32(1812433253) * (word ^ (word >> np.uint32(30))) + np.uint32(i)
            if i == 1:
                second[:n] = state[:n]
        for j in range(n):
            seed = seeds[start + j]
            number = _tempered(seed, second[j], state[j])
            found[start + j] = (np.uint64(number) << np.uint64(32)) | np.uint64(seed)


@njit(cache=True)
def _numbers(seed, found):  # type: ignore[no-untyped-def]
    """The first numbers of a mask: ``found`` [n] of uint32, n at most 227, overwritten."""
    state = np.empty(_WORDS, np.uint32)
    state[0] = seed
    for i in range(1, _HALF + len(found)):
        word = state[i - 1]
        state[i] = np.uint32(1812433253) * (word ^ (word >> np.uint32(30))) + np.uint32(i)
    for i in range(len(found)):
        found[i] = _tempered(state[i], state[i + 1], state[i + _HALF])


@njit(cache=True)
def _fits(seed, other, masked, most, mine, others):  # type: ignore[no-untyped-def]
    """Whether what a device sent is, without two masks, what a device may send."""
    _numbers(seed, mine)
    _numbers(other, others)
    for i in range(1, len(mine)):  # noqa: SIM110 - numba has no generators in ``all``
        if np.uint32(masked[i] + mine[i] + others[i]) > most:
            return False
    return True


@njit(cache=True)
def find_pair(table, masked, known, most):  # type: ignore[no-untyped-def]
    """Two masks whose sum, added to what a device sent, leaves what a device may send.

    Parameters
    ----------
    table : ndarray
        [n] of uint64, rising: what ``first_numbers`` found.
    masked : ndarray
        [m] of uint32: the first numbers that the device sent.
    known, most : uint32
        The first of them without masks, and what each other one is at most.

    Returns
    -------
    tuple of int
        The two seeds, or -1 and -1; how many pairs had the right first number.
    """
    wanted, tried, has_wrapped = np.uint32(known - masked[0]), 0, False
    mine, others = np.empty(len(masked), np.uint32), np.empty(len(masked), np.uint32)
    last = np.searchsorted(table, (np.uint64(wanted) + np.uint64(1)) << np.uint64(32)) - 1
    # One number rises through the table; what is missing to it falls, and falls again from above once it is passed.
    for i in range(len(table)):
        number = np.uint32(table[i] >> np.uint64(32))
        missing = np.uint32(wanted - number)
        if number > wanted and not has_wrapped:
            last, has_wrapped = len(table) - 1, True
        while last >= 0 and np.uint32(table[last] >> np.uint64(32)) > missing:
            last -= 1
        j = last
        while j >= 0 and np.uint32(table[j] >> np.uint64(32)) == missing:
            tried += 1
            one, two = np.uint32(table[i] & np.uint64(0xFFFFFFFF)), np.uint32(table[j] & np.uint64(0xFFFFFFFF))
            if _fits(one, two, masked, most, mine, others):
                return np.int64(one), np.int64(two), tried
            j -= 1
    return np.int64(-1), np.int64(-1), tried
