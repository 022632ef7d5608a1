"""The PyTorch twin of ``edgelm/cells/top_k_ffn/paper.py``: same equations, same tensor names."""

from __future__ import annotations

import torch
from torch import Tensor

from edgelm.bench.peers.twins import block_ffn
from edgelm.cells.top_k_ffn.paper import TopKFfn

BALANCE = 0.01
"""Weight of the loss that keeps blocks equally used (Switch, arXiv 2101.03961)."""


class Twin(block_ffn.Twin):
    """Router, neuron blocks, and a block that is always awake. Parameters: as of the twin of ``block_ffn``."""

    cell: TopKFfn

    def __init__(self, cell: TopKFfn, n_layers: int) -> None:
        super().__init__(cell, n_layers)
        self.balance: Tensor | float = 0.0

    def activations(self, h: Tensor, max_awake: int) -> Tensor:
        """As of the twin of ``block_ffn``, but that training too wakes no more blocks than the cell says."""
        c = self.cell
        p = torch.softmax(h @ self.router + self.router_bias, -1)
        strength = (p * self.log_gamma.exp()).detach()
        awake = torch.topk(strength, c.max_awake, dim=-1).indices
        chosen = torch.zeros_like(p).scatter(-1, awake, 1.0)
        self.balance = c.n_blocks * (chosen.mean((0, 1)) / c.max_awake * p.mean((0, 1))).sum()
        kept = p * chosen
        return c.size * self.log_gamma.exp() * kept / kept.sum(-1, keepdim=True)

    def extra_loss(self) -> Tensor | float:
        """What the last ``forward`` adds to the loss: 1 if blocks are equally used, times ``BALANCE``."""
        return BALANCE * self.balance
