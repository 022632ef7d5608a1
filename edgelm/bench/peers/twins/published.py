"""The PyTorch twin of ``edgelm/cells/published/paper.py``: same equations, same tensor names."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgelm.bench.peers.twins import functions
from edgelm.bench.peers.twins.functions import State, rms_norm
from edgelm.cells.published.paper import Published


class Twin(nn.Module):
    """Vector states, fixed decays, block-diagonal projections.

    Parameters
    ----------
    cell : Published
    n_layers : int
        Of the model, as of the twin of ``gated_delta``.
    """

    def __init__(self, cell: Published, n_layers: int) -> None:
        super().__init__()
        c = self.cell = cell
        width = c.d_model // c.n_channels
        self.norm = nn.Parameter(torch.ones(c.d_model))
        w_in = torch.randn(c.n_channels, width, 2 * c.mix_dim // c.n_channels) / math.sqrt(width)
        self.w_in = nn.Parameter(w_in)
        self.w_out = nn.Parameter(torch.randn(c.mix_dim, c.d_model) / math.sqrt(c.mix_dim * 2 * n_layers))
        # One decay for each of the largest groups of one size whose features share theirs.
        group = math.gcd(c.slope_dim // c.n_channels, c.value_dim)
        self.register_buffer("slope_decay", torch.from_numpy(c.decays()[::group]).float(), persistent=False)

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of one row's state: running sums, near ones before far ones, and the running counts of each."""
        return {"norm": (self.cell.mix_dim,), "slope": (self.cell.mix_dim,)}

    def forward(self, x: Tensor, starts: Tensor, same_doc: Tensor, state: State) -> tuple[Tensor, State]:
        """As of the twin of ``gated_delta``; there is no convolution, so ``same_doc`` is not read."""
        h = rms_norm(x, self.norm, self.cell.norm_eps).unflatten(-1, (self.cell.n_channels, -1))
        v, u = torch.einsum("btci,cij->btcj", h, self.w_in).chunk(2, -1)  # each [B,T,C,(S+H Vd)/C]
        v, u = v.float().flatten(2).contiguous(), u.float().flatten(2)
        slope_scan = functions.recurrences(x).slope_scan
        mean, _, norm, sums = slope_scan(v, self.slope_decay, starts, state["norm"], state["slope"])
        y = F.linear(mean * F.silu(u), self.w_out.t())
        return y, {"norm": norm.detach(), "slope": sums.detach()}
