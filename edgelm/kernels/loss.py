"""Cross-entropy of a segment."""

from __future__ import annotations

import numpy as np

from edgelm.kernels.jit import entry
from edgelm.kernels.norm import ONE, ZERO, exps
from edgelm.kernels.signature import F1, F2, I1


@entry(I1, F2, F1)
def cross_entropy(targets, logits, losses):
    """losses [T] = -log softmax(logits)[target] in nats; logits [T,V] become d(sum of losses)/d(logits)."""
    n_steps, vocab = logits.shape
    for t in range(n_steps):
        row = logits[t]
        # Four at a time, or each would wait for the one before.
        top = m1 = m2 = m3 = row[0]
        for j in range(0, vocab - 3, 4):
            x0, x1, x2, x3 = row[j], row[j + 1], row[j + 2], row[j + 3]
            top, m1 = x0 if x0 > top else top, x1 if x1 > m1 else m1
            m2, m3 = x2 if x2 > m2 else m2, x3 if x3 > m3 else m3
        for j in range(vocab - vocab % 4, vocab):
            m1 = row[j] if row[j] > m1 else m1
        top = max(max(top, m1), max(m2, m3))
        target = row[targets[t]] - top
        total = ZERO
        for j in range(vocab):
            row[j] -= top
        exps(logits, t * vocab, logits, t * vocab, vocab)
        for j in range(vocab):
            total += row[j]
        losses[t] = np.log(total) - target
        share = ONE / total
        for j in range(vocab):
            row[j] *= share
        row[targets[t]] -= ONE
