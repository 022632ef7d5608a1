"""The PyTorch twin of ``edgelm/cells/rwkv7_channel_mix/paper.py``: same equations, same tensor names."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgelm.bench.peers.twins.functions import State, shifted
from edgelm.cells.rwkv7_channel_mix.paper import Rwkv7ChannelMix


class Twin(nn.Module):
    """Neurons with squared ReLU.

    Parameters
    ----------
    cell : Rwkv7ChannelMix
    n_layers : int
        Of the model, as of the twin of ``gated_delta``.
    """

    def __init__(self, cell: Rwkv7ChannelMix, n_layers: int) -> None:
        super().__init__()
        c = self.cell = cell
        self.norm, self.norm_bias = nn.Parameter(torch.ones(c.d_model)), nn.Parameter(torch.zeros(c.d_model))
        self.x_k = nn.Parameter(1 - torch.linspace(0, 1, c.d_model) ** 4)
        self.key = nn.Parameter(torch.randn(c.hidden_size, c.d_model) / math.sqrt(c.d_model))
        scale = 1 / math.sqrt(c.hidden_size * 2 * n_layers)
        self.value = nn.Parameter(torch.randn(c.hidden_size, c.d_model) * scale)

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of one row's state."""
        return {"channel_shift": (self.cell.d_model,)}

    def forward(self, x: Tensor, starts: Tensor, state: State) -> tuple[Tensor, State, Tensor]:
        """x [B,T,D] to the contribution [B,T,D], the state after it, and the activations a [B,T,F] of the neurons."""
        c = self.cell
        h = F.layer_norm(x.float(), (c.d_model,), self.norm, self.norm_bias, c.norm_eps)
        h_k = torch.addcmul(h, shifted(h, starts, state["channel_shift"]) - h, self.x_k)
        a = F.relu(F.linear(h_k, self.key)).square()
        return F.linear(a, self.value.t()), {"channel_shift": h[:, -1].detach().clone()}, a
