"""The whole model as ONNX, and how far its logits are from the reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgelm.engine.ort_session import run_exported
from edgelm.export.folder import write_export
from edgelm.export.step import build_graph
from edgelm.matrices.quantize import PRECISIONS
from edgelm.model.hub import Model
from edgelm.model.reference import forward
from edgelm.model.state import empty_state

_SAMPLE = (
    "The river was high that morning, and the ferry did not go.\nUser: What shall we do now?\n"
    "Assistant: We can walk to the bridge. It is not far, and the rain has stopped.\n"
)


def export_model(model: Model, folder: Path, quantize: str) -> dict[str, Any]:
    """Writes a model, with what was learned, as a folder for plain onnxruntime; the fields of ``export --json``.

    ``quantize`` is one of ``edgelm.matrices.quantize.PRECISIONS``.

    ``max_abs_error`` is the largest difference of a logit to the float32 reference over a fixed text.
    """
    precision, config, weights = PRECISIONS[quantize], model.config, model.weights
    graph = build_graph(config, weights, precision)
    ids = np.array(model.template.document(model.tokenizer.encode(_SAMPLE)))
    expected, _, _ = forward(ids, weights, empty_state(config), config)
    error = float(np.abs(run_exported(graph, ids) - expected).max())
    sizes = write_export(folder, model, graph, precision, error)
    return {"files": sorted(sizes), "bytes": sum(sizes.values()), "max_abs_error": error}
