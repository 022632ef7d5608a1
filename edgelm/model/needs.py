"""How much memory a model will take, which is asked before it is loaded."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

from edgelm.model.hub import find, read_manifest
from edgelm.model.weights import tensors

LAYER_BYTES = 3.0
"""What a layer takes for each byte of its file, in which a number has two: the base of what it changes becomes float32,
and where neurons' output weights were a change of integers, so do they."""
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


def memory_of_layers(paths: Iterable[Path]) -> int:
    """Bytes, about, that the layers in these files take beside the model; a file that is missing counts nothing."""
    return int(LAYER_BYTES * sum(path.stat().st_size for path in paths if path.is_file()))
