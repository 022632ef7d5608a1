"""What the heads of the decay section write with: whether their keys are apart, and how strong their writes are.

Keys that lie in few directions overwrite each other, and strong writes wipe out what was written before: for random
keys an association lasts about K / beta tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgelm.bench.peers.twins.model import Model, document_masks
from edgelm.cells.gated_delta.paper import CONV_WIDTH
from edgelm.text.tokenizer import DOC_ID

KEY_FIELDS = ["step", "layer", "head", "key_rank", "key_cosine", "beta"]
MOST_TOKENS = 1024


def effective_rank(keys: Tensor) -> Tensor:
    """exp of the entropy of the squared singular values' shares, [H], of keys [T,H,K] (Roy and Vetterli 2007)."""
    values = torch.linalg.svdvals(keys.transpose(0, 1)).square()
    shares = values / values.sum(-1, keepdim=True)
    return torch.exp(-(shares * shares.clamp(min=1e-12).log()).sum(-1))


def mean_cosine(keys: Tensor) -> Tensor:
    """Mean cosine of the unit keys [T,H,K] of two different tokens, [H]."""
    n = len(keys)
    return (keys.sum(0).square().sum(-1) - n) / (n * (n - 1))


@torch.no_grad()
def key_statistics(model: Model, ids: Tensor) -> list[dict[str, float]]:
    """Of the first row of ids [B,T]: for each layer and head effective rank and mean cosine of the keys and mean beta.

    Empty for a model whose layers have no decay section.
    """
    ids = ids[:1, :MOST_TOKENS]
    carried = torch.ones(1, CONV_WIDTH - 1, dtype=torch.bool, device=ids.device)
    starts, same_doc, _ = document_masks(ids, DOC_ID, carried)
    states, rows = model.initial_state(1), []
    x = model.embedding(ids, states)
    for number, (layer, state) in enumerate(zip(model.layers, states, strict=True)):
        if writes := getattr(layer.mixer, "writes", None):
            keys, beta = writes(x, same_doc, state)
            ranks, cosines, betas = effective_rank(keys[0]), mean_cosine(keys[0]), beta[0].mean(0)
            for head, values in enumerate(torch.stack([ranks, cosines, betas], 1).tolist()):
                named = zip(KEY_FIELDS[3:], (round(value, 4) for value in values), strict=True)
                rows.append({"layer": number, "head": head} | dict(named))
        # Not through the compiled call: these few tokens are no reason to compile for another shape.
        x, _, _ = layer.forward(x, starts, same_doc, state, model.config.max_awake)
    return rows
