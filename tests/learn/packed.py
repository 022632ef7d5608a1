"""Packs of random changes, to lie beneath a log."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgelm.log.packs import Pack, Source, clipped, write_pack
from edgelm.model.hub import Model
from edgelm.model.layers import BLOCKS
from edgelm.model.weights import Weights, block_names, shapes

SHA256 = "ab" * 32


def random_changes(model: Model, seed: int, size: float = 0.002) -> Weights:
    """A small change of some neuron blocks and of the last gains."""
    rng, changes = np.random.default_rng(seed), Weights()
    for name in block_names(model.config):
        shape = shapes(model.config)[name]
        blocks = np.sort(rng.choice(shape[0], 1 + shape[0] // 2, replace=False)).astype(np.int32)
        changes[name + BLOCKS] = blocks
        changes[name] = (size * rng.standard_normal((len(blocks), *shape[1:]))).astype(np.float16)
    changes["final_norm"] = (size * rng.standard_normal(shapes(model.config)["final_norm"])).astype(np.float16)
    return changes


def make_pack(
    path: Path, model: Model, seed: int = 1, *, name: str = "sea", size: float = 0.002, text: str = ""
) -> Pack:
    """Writes a pack of random changes; the folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    changes = clipped(random_changes(model, seed, size), model)
    sources = (Source("made up", SHA256),)
    return write_pack(path, Pack(name, "CC0-1.0", "", "2026-11-27", model.sha256, model.name, sources, changes, text))
