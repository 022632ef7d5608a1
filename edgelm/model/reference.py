"""THE PAPER: the model in plain numpy. If a kernel disagrees, the kernel is wrong.

x = embed[ids]; each layer adds what its mixer and then its feed-forward part give; the logits are the products of
RMSNorm(x), or LayerNorm(x), with the rows of the embedding, or of a matrix of their own. What a part gives is said in
``edgelm/cells/*/paper.py``. Does NOT include: training (``tools/pretrain``), gradients (``edgelm.network``), batches,
dropout, position encoding (there is none).
"""

from __future__ import annotations

import numpy as np

from edgelm.cells.functions import layer_norm, rms_norm
from edgelm.model.config import ModelConfig
from edgelm.model.state import State, advance, copy_state, part_of, replace_part, shared_part
from edgelm.model.weights import Weights

Array = np.ndarray


def forward(ids: Array, weights: Weights, state: State, config: ModelConfig) -> tuple[Array, State, Array]:
    """A segment of text.

    Parameters
    ----------
    ids : ndarray [T] of int
        Token ids, T >= 1.
    weights : dict of ndarray
        The tensors of ``edgelm.model.weights.shapes``; their dtype is that of the arithmetic.
    state : dict of ndarray
        What was remembered before (``edgelm.model.state``); it is left as it is.
    config : ModelConfig

    Returns
    -------
    logits : ndarray [T, V]
        Unnormalised log-probabilities of the token after each.
    state : dict of ndarray
        What is remembered after.
    a : ndarray [L, T, M]
        Activations of the neuron blocks; a block is awake where its activation is above 0.
    """
    state = copy_state(state)
    x, activations, shared = weights["embed"][ids], [], shared_part(state)
    for prefix, cell in config.parts():
        own = {name.removeprefix(prefix): weights[name] for name in weights if name.startswith(prefix)}
        remembered = part_of(state, prefix)
        a = cell.activations(x, own, remembered)
        x = x + cell.forward(x, own, remembered, shared)
        replace_part(state, prefix, remembered)
        if prefix.endswith(".ffn."):
            activations.append(a)
    advance(state, config, len(ids))
    gain = weights["final_norm"]
    if config.norm == "rms":
        hidden = rms_norm(x, gain, config.norm_eps)
    else:
        hidden = layer_norm(x, gain, weights["final_norm_bias"], config.norm_eps)
    logits = hidden @ weights[config.head].T
    return logits, state, np.stack(activations)


def step(token_id: int, weights: Weights, state: State, config: ModelConfig) -> tuple[Array, State]:
    """One token: logits [V] and the state after. ``forward`` is this, token by token."""
    logits, state, _ = forward(np.array([token_id]), weights, state, config)
    return logits[0], state
