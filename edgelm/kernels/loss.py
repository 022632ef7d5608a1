"""Cross-entropy of a segment."""

from __future__ import annotations

import numpy as np

from edgelm.kernels.jit import entry
from edgelm.kernels.norm import ONE, ZERO, exp
from edgelm.kernels.signature import F1, F2, I1


@entry(I1, F2, F1)
def cross_entropy(targets, logits, losses):
    """losses [T] = -log softmax(logits)[target] in nats; logits [T,V] become d(sum of losses)/d(logits)."""
    n_steps, vocab = logits.shape
    for t in range(n_steps):
        row = logits[t]
        top = row[0]
        for j in range(vocab):
            top = max(top, row[j])
        target = row[targets[t]] - top
        total = ZERO
        for j in range(vocab):
            row[j] = exp(row[j] - top)
            total += row[j]
        losses[t] = np.log(total) - target
        share = ONE / total
        for j in range(vocab):
            row[j] *= share
        row[targets[t]] -= ONE
