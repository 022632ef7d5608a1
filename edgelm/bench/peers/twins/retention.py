"""The PyTorch twin of ``edgelm/cells/retention/paper.py``: same equations, same tensor names."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgelm.bench.peers.twins import chunked
from edgelm.bench.peers.twins.functions import State, rms_norm
from edgelm.cells.retention.paper import HEAD_EPS, Retention


class Twin(nn.Module):
    """Matrix memories with fixed decays.

    Parameters
    ----------
    cell : Retention
    n_layers : int
        Of the model, as of the twin of ``gated_delta``.
    """

    def __init__(self, cell: Retention, n_layers: int) -> None:
        super().__init__()
        c = self.cell = cell
        self.norm = nn.Parameter(torch.ones(c.d_model))
        self.w_in = nn.Parameter(torch.randn(c.d_model, 2 * (c.keys + c.values)) / math.sqrt(c.d_model))
        self.w_out = nn.Parameter(torch.randn(c.values, c.d_model) / math.sqrt(c.values * 2 * n_layers))
        self.register_buffer("log_decay", torch.from_numpy(c.decays()).log().float(), persistent=False)

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of one row's state."""
        return {"memory": (self.cell.n_heads, self.cell.key_dim, self.cell.value_dim)}

    def forward(self, x: Tensor, starts: Tensor, same_doc: Tensor, state: State) -> tuple[Tensor, State]:
        """As of the twin of ``gated_delta``; there is no convolution, so ``same_doc`` is not read."""
        c = self.cell
        p = F.linear(rms_norm(x, self.norm, c.norm_eps), self.w_in.t())
        q, k, v, u = p.split([c.keys, c.keys, c.values, c.values], -1)
        q, k, v = (part.unflatten(-1, (c.n_heads, -1)) for part in (q, k, v))
        log_decay = self.log_decay.expand(*x.shape[:2], -1)
        strength = torch.ones_like(log_decay)
        # The gated rule is retention where every write has strength 1.
        o, memory = chunked.gated_scan(q, k, v, log_decay, strength, starts, state["memory"])
        o = F.layer_norm(o / math.sqrt(c.key_dim), (c.value_dim,), eps=HEAD_EPS)
        y = F.linear(o.flatten(2) * F.silu(u.float()), self.w_out.t())
        return y, {"memory": memory.detach()}
