"""What is known of a tensor beside its numbers."""

from __future__ import annotations

from typing import NamedTuple

from edgelm.matrices.quantize import BLOCK


class TensorSpec(NamedTuple):
    """One tensor of a layer part.

    Attributes
    ----------
    shape : tuple of int
    sums : int, optional
        The axis, 0 or -1, that products with this matrix sum over; None: it is no matrix, and stays float32.
    learns : bool
        Whether learning changes it.
    blocks : bool
        Whether its first axis are neuron blocks, of which a token reads those that are awake.
    also : int
        A length that must divide into runs of 32 as well before a graph can hold the matrix as integers, because
        one operator takes it together with another matrix.
    mean, spread : float
        Of its numbers in a model made at random; a spread of 0 stands for 1 / sqrt(numbers summed).
    """

    shape: tuple[int, ...]
    sums: int | None = None
    learns: bool = False
    blocks: bool = False
    also: int = BLOCK
    mean: float = 0.0
    spread: float = 0.0

    @property
    def divides(self) -> bool:
        """Whether a graph can hold it as integers: it is a matrix, and its sums divide into runs of 32."""
        return self.sums is not None and not (self.shape[self.sums] % BLOCK or self.also % BLOCK)
