"""Whether a model folder is whole, and whether what answers with it computes what the reference does: ONNX Runtime, or
the kernels where it is not installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgelm.engine.opening import open_session
from edgelm.errors import ModelFileError
from edgelm.model import hub
from edgelm.model.reference import forward
from edgelm.model.state import empty_state, state_bytes

TOLERANCE, MEAN_TOLERANCE = 1e-4, 0.05
"""Largest difference of a logit in float32, and mean difference with integers, as shares of the largest logit: products
of integers round what comes in too, which now and then wakes another block."""
MAX_STATE_BYTES = 256 << 20
"""A state is copied at every turn of a conversation."""
_TEXT = "The ferry leaves at seven.\nUser: When does it leave?\nAssistant: At seven, if there is no fog.\n"


def problems(folder: Path) -> list[str]:
    """Everything that is wrong with a model folder, a line each; nothing, if it can be used.

    Every digest is computed anew, every tensor is read and checked, and on a short text the logits of both graphs
    are those of the reference within ``TOLERANCE`` or, of integers, on average within ``MEAN_TOLERANCE``.
    """
    try:
        found = list(hub.damaged(folder, hub.read_manifest(folder)))
        return found or _disagreements(hub.load(str(folder.absolute())))
    except ModelFileError as exc:
        return [str(exc)]
    except MemoryError:
        return [f"{folder}: needs more memory than there is; get a smaller model"]


def _disagreements(model: hub.Model) -> list[str]:
    n_bytes = state_bytes(model.config)
    if n_bytes > MAX_STATE_BYTES:
        return [f"{model.folder}: its state takes {n_bytes:,} bytes, more than {MAX_STATE_BYTES:,}; get another"]
    state = empty_state(model.config)
    ids = np.array(model.template.document(model.tokenizer.encode(_TEXT)))
    for precision in ("float32", "int8"):
        session = open_session(model, 1, precision)
        with np.errstate(all="ignore"):
            expected, _, _ = forward(ids, model.weights, state, model.config)
            difference = np.abs(session.run(ids, 0) - expected) / np.abs(expected).max()
        is_float = precision == "float32"
        error = float(difference.max() if is_float else difference.mean())
        if not error <= (TOLERANCE if is_float else MEAN_TOLERANCE):  # NaN is no agreement either
            off = f"is off the reference by {error:.2g} of the largest logit"
            return [f"{model.folder}: in {precision} it {off}; get the model again"]
    return []
