"""Cross-entropy through the head, a chunk of tokens at a time.

The logits of a batch (tokens x V) are the largest array of a training step; here a chunk of them is
made, used and overwritten while it is still in cache, forward and backward together.
"""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK_TOKENS = {"cpu": 1024, "cuda": 16384}
"""Tokens of a chunk: few fit into a processor's cache; on a GPU every chunk costs the start of its kernels."""


class HeadLoss(torch.autograd.Function):
    """Mean negative log-likelihood in nats of targets [N] given hidden vectors [N,D] and ``embed`` [V,D], the output
    matrix."""

    @staticmethod
    def forward(ctx, hidden: Tensor, embed: Tensor, targets: Tensor) -> Tensor:  # type: ignore[no-untyped-def,override]
        n_tokens = len(hidden)
        low = torch.bfloat16 if torch.is_autocast_enabled(hidden.device.type) else hidden.dtype
        chunk_tokens = CHUNK_TOKENS[hidden.device.type]
        embed_low, loss = embed.to(low), hidden.new_zeros(())
        dhidden, dembed = torch.empty_like(hidden), torch.zeros_like(embed)
        with torch.autocast(hidden.device.type, enabled=False):
            for start in range(0, n_tokens, chunk_tokens):
                chunk = slice(start, min(start + chunk_tokens, n_tokens))
                # Logits keep float32: their rounding would be an error of the loss itself.
                logits = hidden[chunk] @ embed.t()
                log_z = torch.logsumexp(logits, -1, keepdim=True)
                target = targets[chunk].unsqueeze(-1)
                loss += (log_z - logits.gather(-1, target)).sum()
                probabilities = logits.sub_(log_z).exp_()
                probabilities.scatter_add_(-1, target, probabilities.new_full(target.shape, -1.0))
                delta = probabilities.to(low)
                dhidden[chunk] = (delta @ embed_low).float() / n_tokens
                dembed += (delta.t() @ hidden[chunk].to(low)).float()
        ctx.save_for_backward(dhidden, dembed.div_(n_tokens))
        return loss / n_tokens

    @staticmethod
    def backward(ctx, dloss: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[no-untyped-def,override]
        dhidden, dembed = ctx.saved_tensors
        return dhidden * dloss, dembed * dloss, None


def head_loss(hidden: Tensor, embed: Tensor, targets: Tensor) -> Tensor:
    """Mean loss in nats of hidden [B,T,D] against targets [B,T]."""
    return HeadLoss.apply(hidden.flatten(0, -2), embed, targets.flatten())  # type: ignore[no-any-return]
