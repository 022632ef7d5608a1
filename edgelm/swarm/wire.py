"""What messages between server and devices hold, as bytes: tensors in safetensors, and how many bytes there may be.

A round has two messages for each device. The server's says the number of the round, the SHA-256 of the model, and the
shared layer as the file of a pack (``edgelm.log.packs``). The device's answer is an update (``edgelm.swarm.update``).
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from edgelm.errors import InputError, ModelFileError
from edgelm.log.packs import MOST_HEAD
from edgelm.model import tensorfile
from edgelm.model.config import ModelConfig
from edgelm.model.weights import adaptable_names, shapes

LAYER = "swarm"
"""Name of the shared layer beneath a log."""
RECORD = "swarm"
"""Name of the one record of a message."""
ROUND, MODEL, PACK, UPDATE = "round", "model", "pack", "update"
"""What the record holds: a number, a SHA-256, and bytes."""
DECLINED = 100
"""Code of Flower's ``Error`` with which a device says, and nothing more, that it takes no part in a round."""
MOST_FRAME = 1 << 12
"""Bytes that a message may have besides what it carries."""
MOST_UPDATE = 1 << 19
"""Bytes of an update, of whatever model."""
MOST_OBJECTS = 8
"""Parts in which Flower carries a message: itself, its records, their record."""


def most_bytes(config: ModelConfig, per_number: int) -> int:
    """How many bytes a change of a whole model may have with ``per_number`` bytes for a number."""
    sizes = shapes(config)
    numbers = sum(int(np.prod(sizes[name])) for name in adaptable_names(config))
    rows = sum(sizes[name][0] for name in adaptable_names(config))
    return MOST_HEAD + per_number * numbers + 8 * rows


def to_blob(arrays: dict[str, np.ndarray]) -> bytes:
    """Tensors as the bytes of a safetensors file."""
    return tensorfile.to_bytes(arrays, None, 8)


def from_blob(blob: bytes, most: int) -> dict[str, np.ndarray]:
    """The tensors of bytes that came from outside; of ``most`` bytes at most.

    Raises
    ------
    InputError
        They are no safetensors file, or a longer one.
    """
    if len(blob) > most:
        raise InputError(f"an update of {len(blob):,} bytes, {most:,} may be")
    stream = io.BytesIO(blob)
    try:
        head = tensorfile.read_head(stream.read, len(blob), Path("an update"))
        return {
            name: place.numbers(np.frombuffer(bytearray(stream.read(place.size)), np.uint8))
            for name, place in head.places.items()
        }
    except ModelFileError as exc:
        raise InputError(str(exc)) from None
