"""An exported model: a folder that plain onnxruntime runs."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

from edgelm.errors import InputError
from edgelm.matrices.quantize import Precision
from edgelm.model.hub import Model
from edgelm.model.state import state_shapes

CARD = """# {name}, exported from edgelm

`model.onnx` is one step graph for prefill and decode, weights inside ({precision}). Inputs: `ids` [1,T] int64,
`first_logit` [1] int64 (logits are computed from this position on), and the state tensors of `config.json`, zeros at
first. Outputs: `logits` [1,N,V] and, for each state tensor, `next.` + its name, to be fed with the next tokens. A text
begins with token 0.

Largest difference of a logit from the float32 reference on a fixed text: {error:.3g}.

{source}
"""


def write_export(folder: Path, model: Model, graph: bytes, precision: Precision, error: float) -> dict[str, int]:
    """Writes ``model.onnx``, ``config.json``, ``tokenizer.json`` and ``README.md``; all of them or none.

    Returns
    -------
    dict
        Bytes of each file.

    Raises
    ------
    InputError
        ``folder`` exists and holds other things, or cannot be written.
    RuntimeError
        The package onnx, where it is installed, reads another graph than was written.
    """
    _read_back(graph)
    names = ("model.onnx", "config.json", "tokenizer.json", "README.md")
    if folder.exists() and (not folder.is_dir() or {path.name for path in folder.iterdir()} - set(names)):
        raise InputError(f"{folder}: exists and is no earlier export; choose a new folder")
    config = {
        "name": model.name,
        "base_sha256": model.sha256,
        "precision": str(precision),
        "model": model.config.to_dict(),
        "state": {name: list(shape) for name, shape in state_shapes(model.config).items()},
    }
    source = (model.folder / "README.md").read_text(encoding="utf-8") if (model.folder / "README.md").exists() else ""
    card = CARD.format(name=model.name, precision=config["precision"], error=error, source=source)
    blobs = {
        "model.onnx": graph,
        "config.json": (json.dumps(config, indent=1) + "\n").encode(),
        "tokenizer.json": (model.folder / "tokenizer.json").read_bytes(),
        "README.md": card.encode(),
    }
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            for name, blob in blobs.items():
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
    return {name: len(blob) for name, blob in blobs.items()}


def _read_back(graph: bytes) -> None:
    """Reads the file with the package onnx, as those do who will work with it; without the package nothing is read."""
    try:
        import onnx
    except ImportError:
        return
    if onnx.load_from_string(graph).SerializeToString(deterministic=True) != graph:
        raise RuntimeError("the graph is read otherwise than it was written; please report this")
