"""Readers of checkpoints from elsewhere: every container, and the tensors of RWKV-7 in them."""

from __future__ import annotations

import io
import random
import struct
import zipfile
import zlib
from collections.abc import Callable

import numpy as np

from edgelm.convert.opening import open_checkpoint
from edgelm.convert.rwkv7 import Rwkv7
from edgelm.errors import ModelFileError
from tests.convert import checkpoints as foreign
from tests.fuzz import mutations as m
from tests.fuzz.readers import Make, Reader, Room


def checkpoints(make: Callable[[dict[str, np.ndarray], str], bytes], ending: str, mutate: m.Mutation) -> Make:
    """``open_checkpoint`` of one container; every tensor of one that is accepted."""

    def made(room: Room) -> Reader:
        def read(blob: bytes) -> None:
            checkpoint = open_checkpoint(room.write("checkpoint" + ending, blob))
            for name in checkpoint.names():
                array = checkpoint.read(name)
                assert (array.dtype, array.shape) == (np.float32, checkpoint.shape(name))
                assert array.nbytes <= 4 * len(blob)
            assert all(isinstance(value, str | int | float) for value in checkpoint.metadata.values())

        rng = np.random.default_rng(1)
        some = {f"blocks.{i}.a": rng.standard_normal((2, 3 + i)).astype(np.float32) for i in range(3)}
        return Reader([make(some, kind) for kind in ("F32", "F16", "BF16")], mutate, read, ModelFileError, 100)

    return made


def mutate_pth(rng: random.Random, blob: bytes, other: bytes) -> bytes:
    """Bytes of the zip, or of its records, their checksums made right again."""
    try:
        if rng.random() < 0.3:
            raise zipfile.BadZipFile
        with zipfile.ZipFile(io.BytesIO(blob)) as one, zipfile.ZipFile(io.BytesIO(other)) as two:
            records = {name: one.read(name) for name in one.namelist()}
            table = next(name for name in records if name.endswith("/data.pkl"))
            name = table if rng.random() < 0.9 else rng.choice(list(records))
            records[name] = m.mutate_bytes(rng, records[name], two.read(table))
        return foreign.zipped(records)
    except (*ARCHIVE_DAMAGES, StopIteration):  # it was mutated before
        return m.mutate_bytes(rng, blob, other)


ARCHIVE_DAMAGES = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, LookupError, OSError, OverflowError, RuntimeError,
    ValueError,
)  # fmt: skip
"""What zipfile raises of a damaged archive."""


def rwkv7(room: Room) -> Reader:
    """``Rwkv7`` of a ``.safetensors`` file: what it makes fits the sizes that it says."""

    def read(blob: bytes) -> None:
        model = Rwkv7(open_checkpoint(room.write("rwkv7.safetensors", blob)), 20)
        found = dict(model.tensors())
        s = model.sizes
        assert all(array.dtype == np.float32 and np.isfinite(array).all() for array in found.values())
        assert found["embed"].shape == found["head"].shape == (20, s["d_model"])
        for layer in range(s["n_layers"]):
            mixer, ffn = f"layers.{layer}.mixer.", f"layers.{layer}.ffn."
            assert found[mixer + "r_k"].shape == (s["n_heads"], s["head_dim"])
            assert found[mixer + "g1"].shape == found[mixer + "g2"].shape[::-1] == (s["gate_rank"], s["d_model"])
            assert found[ffn + "key"].shape == found[ffn + "value"].shape == (s["hidden_size"], s["d_model"])
        assert len(found) == 4 + 33 * s["n_layers"] - 3

    seeds = [foreign.rwkv7(np.random.default_rng(i), 2, 4, 8, 24, head_dim) for i, head_dim in ((1, 2), (2, 4))]
    return Reader([foreign.safetensors(weights) for weights in seeds], m.mutate_tensors, read, ModelFileError, 40)
