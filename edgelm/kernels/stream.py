"""Reading and nothing else: how fast this machine brings numbers to one core."""

from __future__ import annotations

from edgelm.kernels.jit import entry
from edgelm.kernels.signature import I1, I


@entry(I1, I, returns=(I,))
def read_words(words, repeats):
    """Reads words [N] int64 ``repeats`` times over; what is returned keeps the compiler from leaving them out."""
    # Integers: their sums take one cycle, so that the loads set the pace. Each turn adds something else, or one
    # turn would do for all.
    total = 0
    for turn in range(repeats):
        for i in range(len(words)):
            total += words[i] ^ turn
    return total
