"""Layers of shared knowledge: changes of the weights that lie between a base model and what was learned on this device.

A layer is the change of some adaptable tensors, in float16, as ``edgelm.log.change`` keeps what was learned. A model
with layers is another base: its adaptable weights before any learning are those of the file and the sum of the layers'
changes in float32, added in the order of the layers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

BLOCKS = ".blocks"
"""How the name ends of the indices of the neuron blocks that a change has."""


@dataclass(frozen=True)
class Layer:
    """A change that lies beneath what is learned.

    Attributes
    ----------
    name : str
    sha256 : str
        Of the file that it comes from; its identity.
    changes : dict of ndarray
        Of float16, those of neuron blocks with ``NAME.blocks``; read. They must fit the model.
    text : str
        What the fast memory knows before the log: texts with which the layer was made, or nothing.
    """

    name: str
    sha256: str
    changes: dict[str, np.ndarray] = field(default_factory=dict, compare=False, repr=False)
    text: str = field(default="", compare=False, repr=False)


def identity(base: str, layers: Sequence[Layer]) -> str:
    """What tells bases apart: the SHA-256 of the model alone, or one of it and of its layers in their order."""
    if not layers:
        return base
    return hashlib.sha256("\n".join([base, *(layer.sha256 for layer in layers)]).encode()).hexdigest()


def with_layers(operand: Any, name: str, layers: Iterable[Layer]) -> Any:
    """A tensor with the changes of all layers: a new array of float32, or ``operand`` itself if none changes it."""
    total: Any = operand
    for layer in layers:
        change, blocks = layer.changes.get(name), layer.changes.get(name + BLOCKS)
        if change is None:
            continue
        if total is operand:
            total = np.array(operand, np.float32)
        total[slice(None) if blocks is None else blocks] += change.astype(np.float32)
    return total
