"""The PyTorch twin of ``edgelm/cells/gated_delta/paper.py``: same equations, same tensor names."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgelm.bench.peers.twins import functions
from edgelm.bench.peers.twins.functions import State, l2_norm, rms_norm
from edgelm.cells.gated_delta.paper import CONV_WIDTH, GatedDelta


def _first_taps(c: GatedDelta) -> Tensor:
    """Taps [F, 4] at the start: the present token, and the token before for the keys, so that a key and the value that
    is written with it describe two tokens that follow each other."""
    taps = torch.randn(c.conv_dim, CONV_WIDTH) * 0.1
    keys = key_features(c)
    taps[:, -1] += 1.0
    taps[keys, -1] -= 1.0
    taps[keys, -2] += 1.0
    return taps


def key_features(c: GatedDelta) -> slice:
    """Which of the features that pass the convolution are keys."""
    return slice(c.slope_dim + c.n_heads * c.key_dim, c.slope_dim + 2 * c.n_heads * c.key_dim)


class Twin(nn.Module):
    """Slope and decay section.

    Parameters
    ----------
    cell : GatedDelta
    n_layers : int
        Of the model: what the part adds to the stream is the smaller at the start, the more layers there are.
    """

    decay_scan: Callable[..., tuple[Tensor, Tensor]] | None = None
    """Another rule for the decay section."""

    def __init__(self, cell: GatedDelta, n_layers: int) -> None:
        super().__init__()
        c = self.cell = cell
        projected = c.conv_dim + c.mix_dim + 2 * c.n_heads
        self.norm = nn.Parameter(torch.ones(c.d_model))
        self.w_in = nn.Parameter(torch.randn(c.d_model, projected) / math.sqrt(c.d_model))
        self.conv = nn.Parameter(_first_taps(c))
        # Decision 9: a write is rare, so that what was written lasts; the gate can empty a head within a token, and
        # keeps half of what it holds for 32 to 512 tokens at the start. exp(g) = exp(-rate softplus(bias)).
        rates, half_lives = np.geomspace(2, 8, c.n_heads), np.geomspace(512, 32, c.n_heads)
        step = math.log(4) / max(1, c.n_heads - 1)
        self.decay_bias = nn.Parameter(torch.from_numpy(np.log(np.expm1(math.log(2) / half_lives / rates))).float())
        self.write_bias = nn.Parameter(torch.full((c.n_heads,), -2.0))
        self.decay_base = nn.Parameter(torch.tensor([math.log(2) - step]))
        self.decay_step = nn.Parameter(torch.full((c.n_heads,), math.log(math.expm1(step))))
        self.head_norm = nn.Parameter(torch.ones(c.value_dim))
        self.w_out = nn.Parameter(torch.randn(c.mix_dim, c.d_model) / math.sqrt(c.mix_dim * 2 * n_layers))
        self.register_buffer("slope_decay", torch.from_numpy(c.channel_decays()).float(), persistent=False)

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of one row's state: that of the cell, and ``norm``, the running count of each feature, because every
        row has documents of its own."""
        c = self.cell
        return {
            "conv": (CONV_WIDTH - 1, c.conv_dim),
            "norm": (c.slope_dim,),
            "slope": (c.slope_dim,),
            "decay": (c.n_heads, c.key_dim, c.value_dim),
        }

    def forward(self, x: Tensor, starts: Tensor, same_doc: Tensor, state: State) -> tuple[Tensor, State]:
        """x [B,T,D] to the sections' contribution [B,T,D] and the state after it."""
        c, sections = self.cell, functions.recurrences(x)
        decay_scan = self.decay_scan or sections.decay_scan
        mixed, us, ud, g, b, padded = self._projections(x, same_doc, state)
        vs, q, k, vd = mixed.split([c.slope_dim, c.n_heads * c.key_dim, c.n_heads * c.key_dim, c.decay_dim], -1)

        slope, _, norm, slope_state = sections.slope_scan(
            vs.contiguous(), self.slope_decay, starts, state["norm"], state["slope"]
        )
        ys = slope * F.silu(us.float())

        q, k = self._unit(q), self._unit(k)
        vd = F.silu(vd).unflatten(-1, (c.n_heads, c.value_dim)).contiguous()
        rate = torch.exp(self.decay_base + torch.cumsum(F.softplus(self.decay_step), 0))
        g = -rate * F.softplus(g.float() + self.decay_bias)
        beta = torch.sigmoid(b.float() + self.write_bias)
        out, decay_state = decay_scan(q, k, vd, g, beta, starts, state["decay"])
        yd = rms_norm(out, self.head_norm, c.norm_eps).flatten(2) * F.silu(ud.float())

        y = F.linear(torch.cat([ys, yd], -1), self.w_out.t())
        conv = padded[:, -(CONV_WIDTH - 1) :].clone()  # a view would take the whole segment into the checkpoint
        last = {"conv": conv, "norm": norm, "slope": slope_state, "decay": decay_state}
        return y, {name: tensor.detach() for name, tensor in last.items()}

    def _projections(self, x: Tensor, same_doc: Tensor, state: State) -> tuple[Tensor, ...]:
        """Of x [B,T,D]: what passed the convolution [B,T,conv_dim], us, ud, g and b, and the convolution's input."""
        c, steps = self.cell, x.shape[1]
        p = F.linear(rms_norm(x, self.norm, c.norm_eps), self.w_in.t())
        u, us, ud, g, b = p.split([c.conv_dim, c.slope_dim, c.decay_dim, c.n_heads, c.n_heads], -1)
        # Causal depthwise convolution; taps that reach into another document are cut.
        u = u.float()
        padded = torch.cat([state["conv"], u], 1)
        mixed = u * self.conv[:, -1]
        for tap in range(CONV_WIDTH - 1):
            mixed = mixed + padded[:, tap : tap + steps] * self.conv[:, tap] * same_doc[:, :, tap, None]
        return mixed, us, ud, g, b, padded

    def _unit(self, keys: Tensor) -> Tensor:
        """Queries or keys [B,T,H K] as unit vectors [B,T,H,K]."""
        return l2_norm(F.silu(keys).unflatten(-1, (self.cell.n_heads, self.cell.key_dim)))

    def writes(self, x: Tensor, same_doc: Tensor, state: State) -> tuple[Tensor, Tensor]:
        """The keys [B,T,H,K] that x [B,T,D] writes with, and how strongly, beta [B,T,H]."""
        mixed, _, _, _, b, _ = self._projections(x, same_doc, state)
        return self._unit(mixed[..., key_features(self.cell)]), torch.sigmoid(b.float() + self.write_bias)
