"""Whether a model folder is whole, and whether ONNX Runtime computes with it what the reference does."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgelm.engine.graphfile import check_graph
from edgelm.engine.session import OrtSession
from edgelm.errors import ModelFileError
from edgelm.model import hub
from edgelm.model.reference import State, forward
from edgelm.text.tokenizer import DOC_ID

TOLERANCE = 1e-4
"""Largest difference of a logit, as a share of the largest logit."""
MAX_STATE_BYTES = 256 << 20
"""A state is copied at every turn of a conversation."""
_TEXT = "The ferry leaves at seven.\nUser: When does it leave?\nAssistant: At seven, if there is no fog.\n"


def problems(folder: Path) -> list[str]:
    """Everything that is wrong with a model folder, a line each; nothing, if it can be used.

    Every digest is computed anew, every tensor is read and checked, the graph is one that edgelm may have written,
    and on a short text its logits are those of the reference within ``TOLERANCE``.
    """
    try:
        found = list(hub.damaged(folder, hub.read_manifest(folder)))
        return found or _disagreements(hub.load(str(folder.absolute())))
    except ModelFileError as exc:
        return [str(exc)]
    except MemoryError:
        return [f"{folder}: needs more memory than there is; get a smaller model"]


def _disagreements(model: hub.Model) -> list[str]:
    state = State.empty(model.config)
    if state.nbytes > MAX_STATE_BYTES:
        return [f"{model.folder}: its state takes {state.nbytes:,} bytes, more than {MAX_STATE_BYTES:,}; get another"]
    check_graph(model.graph)
    session = OrtSession(model.graph, model.weights)
    n_logits, advice = session.vocab_size, "get the model again"
    if n_logits != model.config.vocab_size:
        return [f"{model.folder}: step.onnx gives {n_logits} logits, not {model.config.vocab_size}; {advice}"]
    ids = np.array([DOC_ID, *model.tokenizer.encode(_TEXT)])
    with np.errstate(all="ignore"):
        expected, _, _ = forward(ids, model.weights, state, model.config)
        error = float(np.abs(session.run(ids, 0) - expected).max() / np.abs(expected).max())
    if not error <= TOLERANCE:  # NaN is no agreement either
        return [f"{model.folder}: step.onnx is off the reference by {error:.2g} of the largest logit; {advice}"]
    return []
