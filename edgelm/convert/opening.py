"""Opens a checkpoint from elsewhere, whatever its container."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgelm.convert.checkpoint import Checkpoint
from edgelm.convert.gguf import GgufCheckpoint
from edgelm.convert.pth import PthCheckpoint
from edgelm.convert.safetensors import SafetensorsCheckpoint
from edgelm.errors import ModelFileError

CONTAINERS: dict[str, Callable[[Path], Checkpoint]] = {
    ".safetensors": SafetensorsCheckpoint,
    ".pth": PthCheckpoint,
    ".gguf": GgufCheckpoint,
}
"""By how the names of their files end."""


def open_checkpoint(path: Path) -> Checkpoint:
    """The tensors of a checkpoint, none of them read yet.

    Parameters
    ----------
    path : Path
        A ``.safetensors``, ``.pth`` or ``.gguf`` file, of 32 or 16 bits a number or, in a ``.gguf``, Q8_0.

    Raises
    ------
    ModelFileError
        The file is missing, damaged, of another kind, or holds anything else than tensors that can be read here.
    """
    container = CONTAINERS.get(path.suffix.lower())
    if container is None:
        raise ModelFileError(f"{path}: a checkpoint must be a file {', '.join(CONTAINERS)}")
    return container(path)
