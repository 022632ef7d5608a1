"""The learned change of the weights as tensors: its difference to the base model in float16.

For neuron blocks only those that changed are kept, with their indices (``NAME.blocks``, int32).
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from edgelm.errors import DivergenceError
from edgelm.matrices.changed import ChangedRows, blocks_at_a_time, change_of, set_change
from edgelm.matrices.matrix import Operands
from edgelm.model.config import ModelConfig
from edgelm.model.layers import BLOCKS
from edgelm.model.weights import Weights, adaptable_names, shapes, tensors

GATES, WATCH = "memory.gates", "gate.watch"
"""What a checkpoint keeps besides the change: the gates of the fast memory, and the counters of the guardrail."""
MOST = 0.9
"""Share of the blocks of a tensor from which on all are taken for changed."""


def pack_change(weights: Operands, base: Operands, config: ModelConfig, *, copy: bool = True) -> Weights:
    """The difference of ``weights`` to ``base``, tensors that did not change left out.

    Without ``copy`` some of it may be memory of ``weights``, to be used before these are written to again, and blocks
    that did not change may be there with those that did.

    Raises
    ------
    DivergenceError
        A difference does not fit float16.
    """
    changes, specs = Weights(), tensors(config)
    for name in adaptable_names(config):
        if specs[name].blocks:
            blocks, change = _changed_blocks(weights[name], base[name], copy)
            if not blocks.size:
                continue
            changes[name + BLOCKS] = blocks.astype(np.int32)
        else:
            change = _half(change_of(weights[name], base[name]))
            if not change.any():
                continue
        if not np.isfinite(change).all():
            raise DivergenceError(f"the change of {name} is too large to be kept")
        changes[name] = change
    return changes


def _changed_blocks(weight: Any, base: Any, copy: bool) -> tuple[np.ndarray, np.ndarray]:
    """The blocks of a tensor that changed, and their change in float16."""
    if isinstance(weight, ChangedRows):
        change = change_of(weight, base)
        blocks = np.flatnonzero(change.any(tuple(range(1, change.ndim))))
        if not copy and len(blocks) > MOST * len(change):
            # A copy would be nearly as large as all that was ever learned.
            return np.arange(len(change)), change
        return blocks, change[blocks]
    found, changes = [], []
    for part in blocks_at_a_time(np.arange(len(weight)), weight):
        change = change_of(weight, base, part)
        differs = change.any(tuple(range(1, change.ndim)))
        found.append(part[differs])
        changes.append(_half(change[differs]))
    return np.concatenate(found), np.concatenate(changes)


def _half(change: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return change.astype(np.float16, copy=False)


def apply_change(changes: Weights, base: Operands, weights: Operands) -> None:
    """Makes the adaptable ``weights`` those of ``base`` and the change, in place."""
    for name, array in base.items():
        set_change(weights[name], array, changes.get(name), changes.get(name + BLOCKS))


def misfit(changes: Weights, config: ModelConfig) -> str:
    """The first tensor that is no change of an adaptable one, or ``""``: kernels check no bounds."""
    return next((name for name in changes if not _fits(name, changes, config)), "")


def _fits(name: str, changes: Weights, config: ModelConfig) -> bool:
    tensor = name.removesuffix(BLOCKS)
    if tensor not in adaptable_names(config) or tensor not in changes:
        return False
    shape, blocks = shapes(config)[tensor], changes.get(tensor + BLOCKS)
    if blocks is not None:
        # Rising, so that none is there twice.
        rising = blocks.dtype == np.int32 and blocks.ndim == 1 and (np.diff(blocks) > 0).all()
        if not rising or not ((blocks >= 0) & (blocks < shape[0])).all():
            return False
        shape = (len(blocks), *shape[1:])
    change = changes[tensor]
    return bool(change.dtype == np.float16 and change.shape == shape and np.isfinite(change).all())


def is_watch(watch: np.ndarray) -> bool:
    """Whether an array can be the counters of a guardrail, as ``WATCH`` holds them."""
    fits = watch.dtype == np.float64 and watch.shape == (3,) and bool(np.isfinite(watch).all())
    return fits and bool((watch[:2] >= 0).all() and (watch[:2] < 2**53).all() and (watch[:2] == watch[:2] // 1).all())


def digest(arrays: Operands) -> str:
    """SHA-256 of arrays by name: two profiles that learned the same have the same."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        total.update(name.encode() + b"\0")
        total.update(np.ascontiguousarray(arrays[name]).data)
    return total.hexdigest()
