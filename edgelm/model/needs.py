"""How much memory a model will take, which is asked before it is loaded."""

from __future__ import annotations

import math
from pathlib import Path

from edgelm.model.hub import find, read_manifest
from edgelm.model.weights import tensors

FIXED_BYTES, FROZEN_BYTES, LEARNING_BYTES, ROW_BYTES = 180_000_000, 1.3, 8.5, 6.75
"""What a process takes without a model (Python, the compiler of kernels, the fast memory), for each number that is
frozen (integers and scales), for each that learns (integers, float32, and what is kept to go back to), and for each of
``ChangedRows``: 217 MB for ``small``, of which ``adapt`` was seen to take 207; 582 MB for RWKV-7 0.1B, of which a chat
was seen to take 582."""


def memory_needed(name: str | None = None, pulled: Path | None = None) -> int:
    """Bytes, about, that answering and learning will take with a model; its weights are not read for it.

    Raises
    ------
    ModelFileError
        There is no such model, or its configuration cannot be read.
    """
    needed = float(FIXED_BYTES)
    for spec in tensors(read_manifest(find(name, pulled)).config).values():
        of_learning = ROW_BYTES if spec.blocks and len(spec.shape) == 2 else LEARNING_BYTES
        needed += math.prod(spec.shape) * (of_learning if spec.learns else FROZEN_BYTES if spec.sums is not None else 8)
    return int(needed)
