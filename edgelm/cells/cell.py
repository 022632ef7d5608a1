"""What every kind of layer part declares about itself.

Weights and state are handed in and handed back; a cell holds its sizes and nothing else. From what it declares derive
the file's table of tensors, the state of a session, the inputs of the graph, what learning may change and what a token
costs; no other place knows the tensors of a kind.
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
    """One kind of layer part, as it stands in a model.

    Parameters
    ----------
    d_model : int
        D, width of the residual stream.
    norm_eps : float
        Epsilon of its RMSNorms.
    """

    KIND: ClassVar[str]
    """Its name in ``config.json``, and of its folder."""
    MATRICES: ClassVar[Mapping[str, int]] = {}
    """Names of its matrices, and the axis that their products sum over (``TensorSpec.sums``). A name means the same in
    all cells."""

    d_model: int
    norm_eps: float

    def __post_init__(self) -> None:
        check_sizes(self)

    def sizes(self) -> dict[str, Any]:
        """Its own fields, for ``config.json``."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name not in _COMMON}

    def tensors(self) -> dict[str, TensorSpec]:
        """Every tensor of one layer by its name within it, in the order of use."""
        raise NotImplementedError

    def state(self) -> Shapes:
        """What one layer carries from token to token, as a graph holds it; names differ from those of the layer's
        other part."""
        return {}

    def shared_state(self) -> Shapes:
        """What all layers carry from token to token together, because it depends on the position alone."""
        return {}

    def advance(self, shared: Parts, n_steps: int) -> None:
        """Moves ``shared``, arrays of ``shared_state``, on by so many tokens, in place."""

    def forward(self, x: Array, weights: Parts, state: Parts, shared: Parts) -> Array:
        """The equations, in plain numpy.

        Parameters
        ----------
        x : ndarray [T,D]
            The residual stream.
        weights : dict of ndarray
            The tensors of the layer; their dtype is that of the arithmetic.
        state : dict of ndarray
            Of the layer before the segment; its arrays are replaced by those after it.
        shared : dict of ndarray
            ``shared_state`` before the segment; read only.

        Returns
        -------
        ndarray [T,D]
            What the part adds to the stream.
        """
        raise NotImplementedError

    def activations(self, x: Array, weights: Parts) -> Array:
        """How strongly each neuron block wakes, [T,M], 0 where it sleeps; [T,0] for a cell that has none."""
        return np.zeros((len(x), 0), x.dtype)

    def share_awake(self, n_awake: float) -> float:
        """Share of the part's neurons that compute for a token, of which it wakes so many blocks."""
        return 1.0

    def narrowed(self, width: int) -> Cell:
        """The same heads, channels and blocks, each as narrow as a stream of ``width`` allows: to time a graph's nodes
        without their work. ``width`` is a multiple of ``grain``."""
        return replace(self, d_model=width)

    @property
    def grain(self) -> int:
        """What the width of the stream must be a multiple of."""
        return 1


_COMMON = {field.name for field in fields(Cell)}
