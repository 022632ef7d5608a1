"""A model as a folder, and how far its logits are from the reference."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgelm.engine.ort_session import run_exported
from edgelm.export.folder import model_files, onnx_files, write_export
from edgelm.export.step import build_graph
from edgelm.matrices.quantize import PRECISIONS, Precision
from edgelm.model.hub import Model
from edgelm.model.packing import pack, unpack
from edgelm.model.reference import forward
from edgelm.model.state import empty_state

_SAMPLE = (
    "The river was high that morning, and the ferry did not go.\nUser: What shall we do now?\n"
    "Assistant: We can walk to the bridge. It is not far, and the rain has stopped.\n"
)


def export_model(model: Model, folder: Path, quantize: str, kind: str = "onnx") -> dict[str, Any]:
    """Writes a model, with what was learned, as a folder; the fields of ``export --json``.

    ``quantize`` is one of ``edgelm.matrices.quantize.PRECISIONS``, ``kind`` one of ``KINDS``.

    ``max_abs_error`` is the largest difference of a logit to the float32 reference over a fixed text.
    """
    files, error = KINDS[kind](model, PRECISIONS[quantize])
    sizes = write_export(folder, files)
    return {"files": sorted(sizes), "bytes": sum(sizes.values()), "max_abs_error": error}


def exported_bytes(model: Model, quantize: str, kind: str = "onnx") -> int:
    """How large the folder that ``export_model`` writes would be."""
    return sum(map(len, KINDS[kind](model, PRECISIONS[quantize])[0].values()))


def _as_onnx(model: Model, precision: Precision) -> tuple[dict[str, bytes], float]:
    """For plain onnxruntime."""
    graph = build_graph(model.config, model.weights, precision)
    error = _error(model, lambda ids: run_exported(graph, ids))
    return onnx_files(model, graph, precision, error), error


def _as_model(model: Model, precision: Precision) -> tuple[dict[str, bytes], float]:
    """For edgelm."""
    packed, config = pack(model.weights, precision), model.config
    error = _error(model, lambda ids: forward(ids, unpack(packed), empty_state(config), config)[0])
    return model_files(model, packed, precision, error), error


def _error(model: Model, logits: Callable[[np.ndarray], np.ndarray]) -> float:
    """The largest difference of a logit to the float32 reference over a fixed text."""
    ids = np.array(model.template.document(model.tokenizer.encode(_SAMPLE)))
    expected, _, _ = forward(ids, model.weights, empty_state(model.config), model.config)
    return float(np.abs(logits(ids) - expected).max())


KINDS: dict[str, Callable[[Model, Precision], tuple[dict[str, bytes], float]]] = {
    "onnx": _as_onnx,
    "edgelm": _as_model,
}
"""What a folder is for: what makes its files, and how far its logits are off."""
