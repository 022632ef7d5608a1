"""Checkpoints as ``.safetensors``."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from edgelm.convert.checkpoint import KINDS, Array, Checkpoint, pieces
from edgelm.errors import ModelFileError
from edgelm.model.tensorfile import TensorFile


class SafetensorsCheckpoint(Checkpoint):
    """The tensors of a ``.safetensors`` file.

    Parameters
    ----------
    path : Path

    Raises
    ------
    ModelFileError
        The file is missing, truncated, no safetensors file, or has numbers of another kind than F32, F16 and BF16.
    """

    def __init__(self, path: Path) -> None:
        self._file = TensorFile(path)
        places = self._file.places
        for name, place in places.items():
            if place.kind not in KINDS:
                raise ModelFileError(
                    f"{path}: {name[:200]!r} has numbers of kind {place.kind}; {', '.join(KINDS)} are read here"
                )
        super().__init__(path, {name: place.shape for name, place in places.items()}, self._file.metadata)

    def _pieces(self, name: str, n_numbers: int) -> Iterator[Array]:
        for begin, count in pieces(math.prod(self.shape(name)), n_numbers):
            yield self._file.part(name, begin, count)
