"""Changes of the weights from several packs, made one; and how large each part of a change is.

Two ways to merge are known here. Task arithmetic (Ilharco et al. 2022, arXiv 2212.04089) adds the changes; here each
neuron block of the sum is scaled. TIES (Yadav et al. 2023, arXiv 2306.01708) leaves out the smallest numbers of each
change, decides for every number by the larger sum which sign counts, and takes the mean of those changes that have that
sign. What was measured is in docs/experiments.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edgelm.log.change import pack_change
from edgelm.model.hub import Model
from edgelm.model.layers import BLOCKS, Layer, with_layers
from edgelm.model.weights import Weights, adaptable_names, shapes

Array = np.ndarray
KEPT = 0.5
"""Share of the numbers of a change that TIES keeps, the largest ones."""


@dataclass(frozen=True)
class Part:
    """How much of one tensor a change moves.

    Attributes
    ----------
    name : str
    blocks, of_blocks : int
        Neuron blocks that differ, and how many there are; 1 and 1 of a tensor without blocks.
    relative_norm : float
        Euclidean norm of the change divided by that of the base.
    largest_block : float
        The same of the block of which it is largest.
    """

    name: str
    blocks: int
    of_blocks: int
    relative_norm: float
    largest_block: float


def parts_of(changes: Weights, model: Model) -> list[Part]:
    """The tensors that a change moves, those that it moves most first."""
    bare, parts = model.bare(), []
    for name in (name for name in changes if not name.endswith(BLOCKS)):
        change, base = changes[name].astype(np.float64), np.asarray(bare[name], np.float64)
        blocks = changes.get(name + BLOCKS)
        own = base if blocks is None else base[blocks]
        if blocks is None:
            change, own = change[None], own[None]
        each = tuple(range(1, change.ndim))
        shares = np.sqrt(np.square(change).sum(each) / np.maximum(np.square(own).sum(each), 1e-30))
        whole = float(np.sqrt(np.square(change).sum() / max(float(np.square(base).sum()), 1e-30)))
        n_blocks = 1 if blocks is None else len(base)
        parts.append(Part(name, len(change), n_blocks, whole, float(shares.max(initial=0))))
    return sorted(parts, key=lambda part: -part.relative_norm)


def usual_weight(method: str) -> float:
    """What a merged change is multiplied by where nobody says otherwise; chosen by what two packs keep."""
    return 0.85 if method == "sum" else 1.0


def merged(changes: Sequence[Weights], model: Model, method: str, weight: float) -> Weights:
    """The changes of several packs as one, in float16; ``method`` is ``sum`` or ``ties``.

    Raises
    ------
    DivergenceError
        A number of it does not fit float16.
    """
    merge: Callable[[Sequence[Array], Sequence[float]], Array] = _sum if method == "sum" else _ties
    limits = [_limit(change) for change in changes]
    total, nothing = Weights(), Weights()
    for name in adaptable_names(model.config):
        nothing[name] = np.zeros(shapes(model.config)[name], np.float32)
        dense = [with_layers(nothing[name], name, [Layer("", "", change)]) for change in changes]
        total[name] = np.float32(weight) * merge(dense, limits)
    return pack_change(total, nothing, model.config)


def _limit(change: Weights) -> float:
    """The size from which on a number is among the largest, ``KEPT`` of all that are not 0."""
    sizes = np.concatenate([np.abs(array).ravel() for name, array in change.items() if not name.endswith(BLOCKS)])
    return float(np.quantile(sizes[sizes > 0].astype(np.float32), 1 - KEPT)) if sizes.any() else 0.0


def _sum(dense: Sequence[Array], limits: Sequence[float]) -> Array:
    """The sum, each neuron block times max |a| / sqrt(sum |a|^2) over the norms of its parts.

    Changes learned from different texts are nearly orthogonal; of orthogonal ones the block gets the largest norm.
    """
    total = np.asarray(np.sum(dense, axis=0, dtype=np.float32))
    squares = np.stack([np.square(array).sum(tuple(range(1, array.ndim)), keepdims=True) for array in dense])
    share = squares.max(0) / np.maximum(squares.sum(0), np.float32(1e-30))
    return np.asarray(np.sqrt(share) * total, np.float32)


def _ties(dense: Sequence[Array], limits: Sequence[float]) -> Array:
    kept = np.stack([np.where(np.abs(array) >= limit, array, 0) for array, limit in zip(dense, limits, strict=True)])
    agrees = (np.sign(kept) == np.sign(kept.sum(0))) & (kept != 0)
    mean = (kept * agrees).sum(0, dtype=np.float32) / np.maximum(agrees.sum(0), 1).astype(np.float32)
    return np.asarray(mean)
