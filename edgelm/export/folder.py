"""An exported model: a folder that plain onnxruntime runs, or one that edgelm does."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

from edgelm.errors import InputError, ModelFileError
from edgelm.matrices.quantize import Precision
from edgelm.model import tensorfile
from edgelm.model.hub import Model
from edgelm.model.manifest import CARD as CARD_FILE
from edgelm.model.manifest import MANIFEST, SCALES, TOKENIZER, WEIGHTS, digests_of, manifest_bytes, read_manifest
from edgelm.model.packing import narrowed
from edgelm.model.state import state_shapes
from edgelm.model.weights import Weights

CARD = """# {name}, exported from edgelm

`model.onnx` is one step graph for prefill and decode, weights inside ({precision}). Inputs: `ids` [1,T] int64,
`first_logit` [1] int64 (logits are computed from this position on), and the state tensors of `config.json`, zeros at
first. Outputs: `logits` [1,N,V] and, for each state tensor, `next.` + its name, to be fed with the next tokens. A text
begins with token 0.

Largest difference of a logit from the float32 reference on a fixed text: {error:.3g}.

{source}
"""
MODEL_CARD = """# {name}, exported from edgelm

A model folder ({precision}), for `edgelm --model`. Largest difference of a logit from the float32 reference on a fixed
text: {error:.3g}.

{source}
"""
EXPORTED_FROM = "exported_from"
"""In the card of an exported model folder: what it was made of."""


def onnx_files(model: Model, graph: bytes, precision: Precision, error: float) -> dict[str, bytes]:
    """``model.onnx``, ``config.json``, ``tokenizer.json`` and ``README.md``.

    Raises
    ------
    RuntimeError
        The package onnx, where it is installed, reads another graph than was written.
    """
    _read_back(graph)
    config = {
        "name": model.name,
        "base_sha256": model.sha256,
        "precision": str(precision),
        "model": model.config.to_dict(),
        "state": {name: list(shape) for name, shape in state_shapes(model.config).items()},
    }
    card = CARD.format(name=model.name, precision=config["precision"], error=error, source=_source(model))
    return {
        "model.onnx": graph,
        "config.json": (json.dumps(config, indent=1) + "\n").encode(),
        "tokenizer.json": (model.folder / TOKENIZER).read_bytes(),
        CARD_FILE: card.encode(),
    }


def model_files(model: Model, packed: Weights, precision: Precision, error: float) -> dict[str, bytes]:
    """Those of a model folder, to be used by ``--model``, whose tensors are ``packed``."""
    files = {
        TOKENIZER: (model.folder / TOKENIZER).read_bytes(),
        WEIGHTS: tensorfile.to_bytes(narrowed(packed)),
        SCALES: tensorfile.to_bytes(model.grad_rms, alignment=8),
    }
    card = model.card | {EXPORTED_FROM: {"sha256": model.sha256}}
    text = MODEL_CARD.format(name=model.name, precision=precision, error=error, source=_source(model))
    return files | {
        MANIFEST: manifest_bytes(model.name, model.config, digests_of(files), card, model.template),
        CARD_FILE: text.encode(),
    }


def _source(model: Model) -> str:
    """The card of the model that is exported."""
    path = model.folder / CARD_FILE
    return path.read_text(encoding="utf-8") if path.exists() else ""


def write_export(folder: Path, files: dict[str, bytes]) -> dict[str, int]:
    """Writes the files, all of them or none, in the place of an earlier export.

    Returns
    -------
    dict
        Bytes of each file.

    Raises
    ------
    InputError
        ``folder`` exists and holds other things, or cannot be written.
    """
    if folder.exists() and not _is_earlier(folder, files):
        raise InputError(f"{folder}: exists and is no earlier export; choose a new folder")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            for name, blob in files.items():
                (made / name).write_bytes(blob)
            made.chmod(0o755)
            if folder.exists():
                shutil.rmtree(folder)
            os.replace(made, folder)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise
    except OSError as exc:
        raise InputError(f"{folder}: cannot be written ({exc.strerror}); choose another folder") from None
    return {name: len(blob) for name, blob in files.items()}


def _is_earlier(folder: Path, files: dict[str, bytes]) -> bool:
    """Whether nothing is lost with the folder: it is empty, or holds what an export of this kind leaves."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else {""}
    if names - set(files):
        return False
    if WEIGHTS not in names:
        return True
    try:
        return EXPORTED_FROM in read_manifest(folder).card
    except ModelFileError:
        return False


def _read_back(graph: bytes) -> None:
    """Reads the file with the package onnx, as those do who will work with it; without the package nothing is read."""
    try:
        import onnx
    except ImportError:
        return
    if onnx.load_from_string(graph).SerializeToString(deterministic=True) != graph:
        raise RuntimeError("the graph is read otherwise than it was written; please report this")
