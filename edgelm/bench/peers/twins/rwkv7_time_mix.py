"""The PyTorch twin of ``edgelm/cells/rwkv7_time_mix/paper.py``: same equations, same tensor names."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgelm.bench.peers.twins import functions
from edgelm.bench.peers.twins.functions import State, shifted
from edgelm.cells.rwkv7_time_mix.paper import DECAY_SCALE, HEAD_EPS, LEAST_LENGTH, MIXES, Rwkv7TimeMix


class Twin(nn.Module):
    """Memories that decay by channel.

    Parameters
    ----------
    cell : Rwkv7TimeMix
    n_layers : int
        Of the model, as of the twin of ``gated_delta``.
    """

    LEAVES = ("v_first",)
    """What a layer leaves in its state for those after it, for this segment alone and with its gradient."""

    def __init__(self, cell: Rwkv7TimeMix, n_layers: int) -> None:
        super().__init__()
        c, d = cell, cell.d_model
        self.cell = c
        self.norm, self.norm_bias = nn.Parameter(torch.ones(d)), nn.Parameter(torch.zeros(d))
        # Every feature looks back by a share of its own, from 0 to 1, as do the decays: from one token to thousands.
        place = torch.linspace(0, 1, d)
        for name, power in zip(MIXES, (0.2, 0.9, 0.7, 0.7, 0.9, 0.2), strict=True):
            setattr(self, name, nn.Parameter(1 - place**power))
        self.w0 = nn.Parameter(-6.5 + 5 * place**1.35)
        self.a0, self.v0 = nn.Parameter(torch.zeros(d)), nn.Parameter(torch.zeros(d))
        ranks = {"w": c.decay_rank, "a": c.rate_rank, "v": c.mix_rank, "g": c.gate_rank}
        for name, rank in ranks.items():
            setattr(self, name + "1", nn.Parameter(torch.randn(rank, d) * 0.1 / math.sqrt(d)))
            setattr(self, name + "2", nn.Parameter(torch.randn(d, rank) * 0.5 / math.sqrt(rank)))
        self.k_k, self.k_a = nn.Parameter(torch.full((d,), 0.85)), nn.Parameter(torch.ones(d))
        self.r_k = nn.Parameter(torch.zeros(c.n_heads, c.head_dim))
        for name in ("receptance", "key", "value"):
            setattr(self, name, nn.Parameter(torch.randn(d, d) * 0.3 / math.sqrt(d)))
        self.output = nn.Parameter(torch.randn(d, d) / math.sqrt(d * 2 * n_layers))
        self.head_norm, self.head_norm_bias = nn.Parameter(torch.ones(d)), nn.Parameter(torch.zeros(d))

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of one row's state."""
        c = self.cell
        return {"time_shift": (c.d_model,), "memory": (c.n_heads, c.head_dim, c.head_dim)}

    def forward(self, x: Tensor, starts: Tensor, same_doc: Tensor, state: State) -> tuple[Tensor, State]:
        """As of the twin of ``gated_delta``; ``same_doc`` is not read. The state also holds what ``LEAVES`` names."""
        c, heads = self.cell, (self.cell.n_heads, self.cell.head_dim)
        h = F.layer_norm(x.float(), (c.d_model,), self.norm, self.norm_bias, c.norm_eps)
        change = shifted(h, starts, state["time_shift"]) - h
        h_r, h_w, h_k, h_v, h_a, h_g = (torch.addcmul(h, change, getattr(self, name)) for name in MIXES)
        r, k = F.linear(h_r, self.receptance).float(), F.linear(h_k, self.key).float()
        v = F.linear(h_v, self.value).float()
        gate = torch.sigmoid(self.w0 + F.linear(torch.tanh(F.linear(h_w, self.w1)), self.w2).float())
        keep = torch.exp(-DECAY_SCALE * gate)
        a = torch.sigmoid(self.a0 + F.linear(F.linear(h_a, self.a1), self.a2).float())
        g = F.linear(torch.sigmoid(F.linear(h_g, self.g1)), self.g2).float()
        v_first = state.get("v_first", v)
        v = v + (v_first - v) * torch.sigmoid(self.v0 + F.linear(F.linear(h_v, self.v1), self.v2).float())

        kk = F.normalize((k * self.k_k).unflatten(-1, heads), dim=-1, eps=LEAST_LENGTH).flatten(-2)
        k = k * (1 + (a - 1) * self.k_a)
        wkv_scan = functions.recurrences(x).wkv_scan
        y, memory = wkv_scan(r, keep, k, v, kk, a, starts, state["memory"])
        y = F.layer_norm(y.unflatten(-1, heads), heads[1:], eps=HEAD_EPS).flatten(-2)
        own = ((r * k).unflatten(-1, heads) * self.r_k).sum(-1, keepdim=True) * v.unflatten(-1, heads)
        y = y * self.head_norm + self.head_norm_bias + own.flatten(-2)
        # Copies: a view would keep all steps alive as long as the state.
        last = {"time_shift": h[:, -1].detach().clone(), "memory": memory.detach(), "v_first": v_first}
        return F.linear(y * g, self.output), last
