"""What the passes of every kind of layer part offer to the network."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from edgelm.cells.cell import Array, Cell, Parts
from edgelm.matrices.matrix import Operands


class Pass(Protocol):
    """Forward and backward of one layer part over one segment of at most ``max_steps`` tokens.

    Parameters
    ----------
    cell : Cell
    weights : dict of ndarray or Matrix
        The tensors of the layer part, read at every pass, so that changed weights count at once.
    grads : dict of ndarray
        Gradients are written here; a matrix that is not in it gets none, the other tensors are all in it.
    max_steps : int
        Longest segment.
    shared_buffers : dict of ndarray
        Arrays that hold nothing between two calls, one for all passes of a network; ``workspace`` is the matrices'.
    """

    def __init__(
        self, cell: Any, weights: Operands, grads: Parts, max_steps: int, shared_buffers: Parts
    ) -> None: ...  # pragma: no cover

    def forward(self, x: Array, y: Array, state: Parts, shared: Parts) -> None:
        """x [T,D] is kept until ``backward``; y [T,D] is added to; ``state`` of the layer part is updated in place;
        ``shared``, the state of all layers before the segment, is read."""

    def backward(self, dy: Array, dx: Array) -> None:
        """Of the segment that ``forward`` saw last, once: dy [T,D] is read, dx [T,D] added to, gradients filled in.

        Gradients of neuron blocks that slept all segment are left as they are.
        """


class BlockPass(Pass, Protocol):
    """A pass of a cell with neuron blocks that sleep apart."""

    @property
    def awake(self) -> Array:
        """Which blocks the last segment woke, [M] bool."""

    @property
    def n_pairs(self) -> int:
        """Pairs of a token and a block awake for it in the last segment."""

    def step_blocks(self, name: str, base: Any, rates: Array, pull: np.floating) -> None:
        """Moves the awake blocks of the tensor ``name`` against the gradient that ``backward`` saw last, by ``rates``
        [M], and the share ``pull`` of the way to ``base``; the gradient is never whole."""


__all__ = ["BlockPass", "Cell", "Pass"]
