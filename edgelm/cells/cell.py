"""What every kind of layer part declares about itself.

A cell holds its sizes and nothing else; weights and state are arguments, and results are returned. From what a cell
declares derive the file's table of tensors, the state of a session, the inputs of the graph, what learning may change
and what a token costs; no other place knows the tensors of a kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import numpy as np

from edgelm.config import check_sizes
from edgelm.matrices.spec import TensorSpec

Array = np.ndarray
Shapes = dict[str, tuple[int, ...]]
Parts = dict[str, Array]
"""Arrays of one layer part by their names within it."""


@dataclass(frozen=True)
class Cell:
    """One kind of layer part, with its sizes in a model; the base class of all kinds.

    A kind defines ``tensors`` and ``forward``. It also defines ``state``, ``shared_state`` and ``advance`` if it
    carries something from token to token, and ``activations`` and ``share_awake`` if it has neuron blocks.

    Parameters
    ----------
    d_model : int
        D, width of the residual stream.
    norm_eps : float
        Epsilon of its RMSNorms.

    Raises
    ------
    ConfigError
        A size is not an integer from 1 up, or ``norm_eps`` is not between 0 and 1.
    """

    KIND: ClassVar[str]
    """Its name in ``config.json``, and of its folder."""
    MATRICES: ClassVar[Mapping[str, int]] = {}
    """Names of its matrices, and the axis that their products sum over (``TensorSpec.sums``). A name means the same in
    all cells."""

    STEPS: ClassVar[int | None] = None
    """How many tokens its graph takes at a time, if not any number."""

    d_model: int
    norm_eps: float

    def __post_init__(self) -> None:
        check_sizes(self)

    def sizes(self) -> dict[str, Any]:
        """Its own fields, without those that all cells have, as ``config.json`` holds them."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name not in _COMMON}

    def tensors(self) -> dict[str, TensorSpec]:
        """Every tensor of one layer by its name within the layer part, in the order of use."""
        raise NotImplementedError

    def state(self) -> Shapes:
        """Names and shapes of what one layer carries from token to token; zeros before the first token.

        The shapes are those of the graph's inputs, and begin with a batch axis of 1. No name may be one of the other
        part of the layer.
        """
        return {}

    def shared_state(self) -> Shapes:
        """Names and shapes of what all layers share, because it depends on the number of tokens alone; as ``state``."""
        return {}

    def advance(self, shared: Parts, n_steps: int) -> None:
        """Updates ``shared``, the arrays of ``shared_state``, in place to what they are ``n_steps`` tokens later."""

    def forward(self, x: Array, weights: Parts, state: Parts, shared: Parts) -> Array:
        """The equations of the cell over a segment of T tokens, in plain numpy.

        Parameters
        ----------
        x : ndarray [T,D]
            The residual stream, before the norm of this part. Read.
        weights : dict of ndarray
            The tensors of the layer part. Read; their dtype is that of the arithmetic.
        state : dict of ndarray
            The arrays of ``state`` before the segment. The dict is updated with new arrays, those after the segment;
            the arrays that it held are not written to.
        shared : dict of ndarray
            The arrays of ``shared_state`` before the segment. Read; ``advance`` updates them after all layers are done.
            What a layer leaves for those after it, and for this segment alone, is added to the dict.

        Returns
        -------
        ndarray [T,D]
            What is to be added to the residual stream.
        """
        raise NotImplementedError

    def activations(self, x: Array, weights: Parts, state: Parts) -> Array:
        """Activations [T,M] of the neuron blocks: above 0 where a block is awake, 0 where it sleeps.

        ``x`` [T,D] is the residual stream before the norm of this part, ``state`` that before the segment, which is
        read. [T,0] for a cell without neuron blocks.
        """
        return np.zeros((len(x), 0), x.dtype)

    def share_awake(self, n_awake: float) -> float:
        """The share of the part's neurons, from 0 to 1, that compute for a token which wakes ``n_awake`` blocks."""
        return 1.0

    def narrowed(self, width: int) -> Cell:
        """A cell with as many heads, channels and blocks, each as narrow as a stream of ``width`` allows.

        It serves to time the nodes of a graph when they have next to nothing to compute. ``width`` is a multiple of
        ``grain``.
        """
        return replace(self, d_model=width)

    @property
    def grain(self) -> int:
        """The number that the width of the stream must be a multiple of."""
        return 1


_COMMON = {field.name for field in fields(Cell)}
