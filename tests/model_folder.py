"""A whole model folder, small enough to be made for a test."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from edgelm.model import tensorfile
from edgelm.model.hub import FILES, WEIGHTS, write_model
from edgelm.model.packing import pack
from edgelm.model.weights import random_weights, shapes
from tests.tiny import tiny_config
from tools.pretrain.tokenizer import train

TEXT = """\
The ferry leaves the island at seven in the morning, and the baker is always the first on board. She brings warm
rolls in a basket, and the captain, who has had no breakfast, buys two of them before the rope is untied. On some
mornings there is fog, and then the captain sounds the horn and the ferry waits.
User: When does the ferry leave?
Assistant: It leaves at seven in the morning, if there is no fog.
User: And who is the first on board?
Assistant: The baker is, with a basket of warm rolls.
<|doc|>
In the evening the lamps along the harbour are lit one by one. The man who lights them has done so for thirty years;
he knows the name of every boat, and which of them will not come back before the winter. He says that the sea is a
good neighbour: it is loud at night, but it never borrows anything.
"""


def write_tiny_model(
    folder: Path, seed: int = 0, name: str = "tiny", vocab_size: int = 300, block_size: int = 32, mixer: str = "mcsd_g"
) -> Path:
    """Writes a model with random weights and a tokenizer of its own; returns its folder."""
    tokenizer = train(iter([TEXT]), vocab_size)
    config = tiny_config(
        mixer, vocab_size=len(json.loads(tokenizer)["model"]["vocab"]), d_model=32, n_layers=2, n_heads=2, key_dim=8,
        value_dim=8, slope_dim=16, n_channels=4, n_blocks=4, block_size=block_size, max_awake=2, shared_size=32,
    )  # fmt: skip
    weights = random_weights(config, np.random.default_rng(seed))
    # A modest embedding, tied with the output: the model begins near the uniform guess.
    weights["embed"] *= np.float32(0.2)
    files = {
        "tokenizer.json": tokenizer.encode(),
        "weights.safetensors": tensorfile.to_bytes(pack(weights)),
        "learning.safetensors": save({tensor: np.ones(1, np.float32) for tensor in shapes(config)}),
    }
    write_model(folder, name, config, files, {})
    return folder


def make_format_1(folder: Path) -> Path:
    """Makes a model folder what the first format of model files would have it, in place; returns it."""
    tensors = load((folder / WEIGHTS).read_bytes())
    names = [name for name in tensors if not name.startswith(tensorfile.PADDING)]
    old = {name: tensors[name] for name in names}
    for name in names:
        plain, _, part = name.rpartition(".")
        if part in ("q", "scale") and plain + ".zero" not in tensors:
            old[name] = (old[name] ^ np.uint8(128)).view(np.int8) if part == "q" else old[name].astype(np.float16)
    (folder / WEIGHTS).write_bytes(save(old))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))["config"]
    flat = {key: value for key, value in config.items() if key not in ("mixer", "ffn")}
    flat |= config["mixer"] | config["ffn"] | {"mixer": "mcsd_g"}
    edit_manifest(folder, format=1, config={key: value for key, value in flat.items() if key != "kind"})
    sign(folder)
    return folder


def edit_manifest(folder: Path, **changes: Any) -> None:
    """Replaces fields of ``config.json``; None deletes."""
    path = folder / "config.json"
    manifest = json.loads(path.read_text(encoding="utf-8")) | changes
    manifest = {key: value for key, value in manifest.items() if value is not None}
    path.write_text(json.dumps(manifest), encoding="utf-8")


def sign(folder: Path) -> None:
    """Makes the digests of ``config.json`` those of the files, as somebody hostile would."""
    edit_manifest(folder, sha256={file: hashlib.sha256((folder / file).read_bytes()).hexdigest() for file in FILES})


def contents(*folders: Path) -> dict[Path, bytes]:
    """Every file below ``folders`` and its bytes, lock files left out."""
    files = (path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file())
    return {path: path.read_bytes() for path in files if path.suffix != ".lock"}
