"""The PyTorch twin of ``edgelm/cells/block_ffn/paper.py``: same equations, same tensor names."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgelm.bench.peers.twins.functions import rms_norm
from edgelm.cells.block_ffn.paper import ROUTER_EPS, BlockFfn


class Twin(nn.Module):
    """Router, neuron blocks, and a block that is always awake.

    Parameters
    ----------
    cell : BlockFfn
    n_layers : int
        Of the model, as of the twin of ``gated_delta``.
    """

    def __init__(self, cell: BlockFfn, n_layers: int) -> None:
        super().__init__()
        c = self.cell = cell
        out_scale = 1 / math.sqrt(2 * n_layers)
        self.norm = nn.Parameter(torch.ones(c.d_model))
        self.router = nn.Parameter(torch.randn(c.d_model, c.n_blocks) * 0.5 / math.sqrt(c.d_model))
        self.router_bias = nn.Parameter(torch.ones(c.n_blocks))
        self.log_gamma = nn.Parameter(torch.zeros(c.n_blocks))
        self.w1 = nn.Parameter(torch.randn(c.n_blocks, c.block_size, c.d_model) / math.sqrt(c.d_model))
        fan = c.n_blocks * c.block_size
        self.w2 = nn.Parameter(torch.randn(c.n_blocks, c.d_model, c.block_size) * out_scale / math.sqrt(fan))
        self.shared_w1 = nn.Parameter(torch.randn(c.d_model, c.shared_size) / math.sqrt(c.d_model))
        shared = torch.randn(c.shared_size, c.d_model) * out_scale / math.sqrt(c.shared_size)
        self.shared_w2 = nn.Parameter(shared)

    def activations(self, h: Tensor, max_awake: int) -> Tensor:
        """h [B,T,D] to a [B,T,M], zero for the blocks that sleep."""
        a1 = F.relu(h @ self.router + self.router_bias)
        a = a1 * torch.rsqrt(a1.square().mean(-1, keepdim=True) + ROUTER_EPS) * self.log_gamma.exp()
        if max_awake < self.cell.n_blocks:
            least = torch.topk(a.detach(), max_awake, dim=-1, sorted=True).values[..., -1:]
            a = torch.where(a.detach() >= least, a, 0.0)
        return a

    def forward(self, x: Tensor, max_awake: int) -> tuple[Tensor, Tensor]:
        """x [B,T,D] to the contribution [B,T,D] and the activations a [B,T,M] of the router.

        ``max_awake`` takes the place of the cell's: training begins with all blocks awake.
        """
        c = self.cell
        h = rms_norm(x, self.norm, c.norm_eps)
        with torch.autocast(x.device.type, enabled=False):
            a = self.activations(h, max_awake)
        hidden = F.silu(F.linear(h, self.w1.flatten(0, 1)))
        hidden = hidden.unflatten(-1, (c.n_blocks, c.block_size)) * a.to(hidden.dtype).unsqueeze(-1)
        y = F.linear(hidden.flatten(-2), self.w2.permute(1, 0, 2).flatten(1))
        shared = F.linear(F.silu(F.linear(h, self.shared_w1.t())), self.shared_w2.t())
        return y + shared, a
