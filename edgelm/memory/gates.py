"""The gates of the fast memory: the weights of its mixture, and their values before anything is learned.

A gate is a number from 0 to 1. There is one set for plain text and one for replies of the assistant. A set holds, in
this order, the gates of counts (by the length of the context, how often it was seen, and how many ids followed it), of
recall (by the kind of match, the share of the question that is covered, and the weight shared), and of trust (by the
two decayed sums of gains). ``edgelm.memory.fast_memory`` says where each stands in the mixture.
"""

from __future__ import annotations

import numpy as np

from edgelm.kernels import recall
from edgelm.kernels.memory import BUCKETS, COUNTED, LONGEST, TRUSTS
from edgelm.kernels.recall import RECALL_BUCKETS

Array = np.ndarray
GATES = (2, COUNTED + RECALL_BUCKETS + TRUSTS, 2)
"""Shape of the gates: plain text and replies; gates of counts, of recall, of trust; weight and predictions seen."""
GUESSES = 2 * RECALL_BUCKETS // recall.KINDS
"""Gates of recall whose index among them is below this are for sentences that do not match the end of the text."""


def first_gates() -> Array:
    """The gates before anything is learned, a new array [2, 271, 2] of float64, whose shape is ``GATES``.

    The first axis is plain text and replies, the second the gates, the third the weight of a gate and the number of
    predictions that it counts as learned from: the larger it is, the less a new prediction moves the weight.
    """
    gates = np.zeros(GATES)
    gates[..., 1] = 8
    counts = gates[:, :COUNTED, 0].reshape(2, LONGEST + 1, BUCKETS)
    # A context that was always followed by the same id is trusted more, the more often it was seen.
    counts[:, 1:, 0::3] = 0.15 + 0.12 * np.arange(BUCKETS // 3)
    counts[:, 1:, 1::3], counts[:, 1:, 2::3] = 0.2, 0.1
    counts[:, 0] = 0.02
    counts[1] *= 0.3
    # By kind of match (none; none at the beginning of a line; within a word; by length), by coverage, by weight.
    plain, reply = gates[:, COUNTED : COUNTED + RECALL_BUCKETS].reshape(2, recall.KINDS, 4, 4, 2)
    plain[..., 0] = np.array([0, 0.02, 0.3, 0.05, 0.15, 0.3, 0.5, 0.7, 0.8])[:, None, None]
    plain[2, 2:, 1:, 0] = 0.7
    # A long match that covers everything is seldom put to the test: many other facts must not close its gate.
    plain[5:, 3, 1:] = 0.95, 50
    by_match = np.array([0.1, 0.6, 0.95, 0.5, 0.7, 0.9, 0.9, 0.9, 0.9])
    by_cover, by_mass = np.array([0.05, 0.7, 1.0, 1.0]), np.array([0.05, 0.7, 0.9, 1.0])
    reply[..., 0] = by_match[:, None, None] * by_cover[:, None] * by_mass
    by_long, by_late = np.array([0.1, 0.4, 0.9, 0.95, 0.99, 0.99]), np.array([0.4, 0.7, 0.95, 0.95, 0.98, 0.98])
    # Whoever begins a text may be somebody else: that gate is not learned, however well this person's begin.
    gates[:, -TRUSTS:, 0] = [0.75, *(by_long[:, None] * by_late).ravel()]
    return gates
