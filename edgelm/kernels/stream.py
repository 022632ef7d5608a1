"""Reading and nothing else: how fast this machine brings numbers to one core."""

from __future__ import annotations

import numpy as np

from edgelm.kernels.jit import kernel


@kernel
def read_words(words, repeats):  # type: ignore[no-untyped-def]
    """Reads words [N] uint64 ``repeats`` times over; what is returned keeps the compiler from leaving them out."""
    # Integers: their sums take one cycle, so that the loads set the pace. Each turn adds something else, or one
    # turn would do for all.
    total = np.uint64(0)
    for turn in range(repeats):
        salt = np.uint64(turn)
        for i in range(len(words)):
            total += words[i] ^ salt
    return total
