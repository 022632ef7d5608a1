"""What is called of each kind of layer part, with kernels: a pass forward and backward over a segment, for learning,
and one forward alone over tokens, for answering."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from edgelm.cells.cell import Array, Parts
from edgelm.matrices.matrix import Operands


class Pass(Protocol):
    """Forward and backward of one layer part over one segment of at most ``max_steps`` tokens.

    ``backward`` uses what the last ``forward`` left in the buffers of the pass. So each ``forward`` may be followed by
    one ``backward``, before the next segment.

    Parameters
    ----------
    cell : Cell
    weights : dict of ndarray or Matrix
        The tensors of the layer part. The arrays are kept, not copied: what is written into them counts from the next
        pass on.
    grads : dict of ndarray
        ``backward`` overwrites these arrays. They are those of all tensors that are no matrices, and of the matrices
        whose gradient is wanted.
    max_steps : int
        Tokens of the longest segment.
    shared_buffers : dict of ndarray
        Arrays that all passes of a network share, because nothing in them has to be kept between two calls. A pass adds
        those it needs; ``workspace``, that of the products of matrices, is there before.
    """

    def __init__(
        self, cell: Any, weights: Operands, grads: Parts, max_steps: int, shared_buffers: Parts
    ) -> None: ...  # pragma: no cover

    def forward(self, x: Array, y: Array, state: Parts, shared: Parts) -> None:
        """Adds the part's output for a segment to the residual stream.

        Parameters
        ----------
        x : ndarray [T,D]
            The residual stream before this part. It is kept by reference, so it must not change until ``backward`` is
            done.
        y : ndarray [T,D]
            The output is added to it, in place. The caller has copied x into it before.
        state : dict of ndarray
            That of the layer, its arrays updated in place.
        shared : dict of ndarray
            What all layers share, as it was before the segment. Read.
        """

    def backward(self, dy: Array, dx: Array) -> None:
        """The gradients of the segment that ``forward`` saw last. It can be called once for each ``forward``.

        The arrays of ``grads`` are overwritten, but for neuron blocks that slept all segment, whose gradients are left
        as they are.

        Parameters
        ----------
        dy : ndarray [T,D]
            Gradient of the loss with respect to the part's output. Read.
        dx : ndarray [T,D]
            The gradient with respect to x is added to it, in place. It must not be the same array as dy.
        """


class CalledPass(Pass, Protocol):
    """A pass whose two methods may do nothing but call kernels, with the same arrays for segments of the same length:
    such calls are recorded, and made again without it (``edgelm.kernels.jit.record``).

    Attributes
    ----------
    are_calls : bool
        Whether they do, with these weights.
    """

    are_calls: bool

    def take(self, x: Array) -> None:
        """What ``forward`` of x [T,D] does beside its calls; to be done before these are made again."""


class BlockPass(Pass, Protocol):
    """A pass of a cell with neuron blocks, M of them, of which a token wakes a few."""

    @property
    def awake(self) -> Array:
        """Whether any token of the last segment woke the block, [M] bool."""

    @property
    def n_pairs(self) -> int:
        """In how many pairs of a token and a block of the last segment the token woke the block."""

    def step_blocks(self, name: str, base: Any, rates: Array, pull: np.floating) -> None:
        """Takes a gradient step on the blocks that the last segment woke: w <- w - rate g + pull (base - w), in place.

        It follows ``backward`` of that segment, before the next ``forward``. The gradient g, of the segment's summed
        loss, is computed block by block from what these two left, so that there is never an array of all of it.

        Parameters
        ----------
        name : str
            The tensor w, within the layer part. It must be floating-point.
        base : ndarray or Int8
            What the weights are pulled towards; of the shape of w. Read.
        rates : ndarray [M]
            The rate of each block.
        pull : floating
            The share of the way to ``base``, from 0 to 1.
        """


class Answer(Protocol):
    """One layer part over some tokens, or one: nothing is kept for learning, and nothing allocated.

    A kind has one in its ``passes.py`` if kernels compute all of it in one call. ``forward`` does nothing but call
    them, with the same arrays and numbers whenever it is given the same ``x``: such calls are recorded, and made again
    without it (``edgelm.kernels.jit.record``). It is used where all matrices are integers as its kernel takes them;
    where they are not, or a kind has none, its ``Pass`` answers. With it comes a function::

        begin(cell, shared, n_steps, buffers)

    which is called once for all layers before so many tokens. It moves ``shared``, the arrays of ``shared_state``, on
    by them, and leaves in ``buffers`` what the layers need of it. If a layer leaves something for those after it, the
    module's ``LEAVES`` names these buffers.

    Parameters
    ----------
    cell : Cell
    weights : dict of ndarray or Strips
        The tensors of the layer part. The arrays are kept, not copied: what is written into them counts from the next
        call on.
    state : dict of ndarray
        That of the layer, which each call updates in place.
    max_steps : int
        Tokens of the longest call.
    buffers : dict of ndarray
        Arrays that all parts of a model share, because nothing in them has to be kept between two calls. A part adds
        those it needs.
    """

    def __init__(
        self, cell: Any, weights: Operands, state: Parts, max_steps: int, buffers: Parts
    ) -> None: ...  # pragma: no cover

    def forward(self, x: Array) -> None:
        """Adds the part's output to the residual stream x [T,D], in place."""


class BlockAnswer(Answer, Protocol):
    """That of a cell with neuron blocks."""

    @property
    def activations(self) -> Array:
        """Those of the last call, [T,M], before the weakest blocks were put to sleep; the next call overwrites them."""
