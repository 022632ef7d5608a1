"""Cross-entropy of a segment."""

from __future__ import annotations

import numpy as np

from edgelm.kernels.jit import kernel


@kernel
def cross_entropy(targets, logits, losses):  # type: ignore[no-untyped-def]
    """losses [T] = -log softmax(logits)[target] in nats; logits [T,V] become d(sum of losses)/d(logits)."""
    n_steps, vocab = logits.shape
    for t in range(n_steps):
        row = logits[t]
        top = row[0]
        for j in range(vocab):
            top = max(top, row[j])
        target = row[targets[t]] - top
        total = top * 0
        for j in range(vocab):
            row[j] = np.exp(row[j] - top)
            total += row[j]
        losses[t] = np.log(total) - target
        for j in range(vocab):
            row[j] /= total
        row[targets[t]] -= 1
