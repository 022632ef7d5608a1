"""The PyTorch twin of ``edgelm/model/reference.py``: same equations, same tensor names.

``forward`` works on segments [B,T] of continuing streams; the state after a segment is handed to the
next, not differentiated across.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import ModuleType

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgelm.config import CONV_WIDTH, ModelConfig
from edgelm.model.reference import slope_decays
from tools.pretrain import chunked, scan

State = dict[str, Tensor]


def recurrences(x: Tensor) -> ModuleType:
    """Whose ``decay_scan`` and ``slope_scan`` suit the device of ``x``: chunks on a GPU, else a loop by Numba."""
    return chunked if x.is_cuda else scan


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last axis, in float32."""
    x = x.float()
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight


def l2_norm(x: Tensor) -> Tensor:
    """x / sqrt(|x|^2 + 1e-6) over the last axis, in float32."""
    x = x.float()
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6)


def _first_taps(c: ModelConfig) -> Tensor:
    """Taps [F, 4] at the start: the present token, and the token before for the keys, so that a key and the value that
    is written with it describe two tokens that follow each other."""
    taps = torch.randn(c.conv_dim, CONV_WIDTH) * 0.1
    keys = slice(c.slope_dim + c.n_heads * c.key_dim, c.slope_dim + 2 * c.n_heads * c.key_dim)
    taps[:, -1] += 1.0
    taps[keys, -1] -= 1.0
    taps[keys, -2] += 1.0
    return taps


def _channel_decays(c: ModelConfig) -> Tensor:
    """Decays of the slope section [C], float32: one for each group of features that share theirs."""
    width = c.slope_dim // c.n_channels
    if c.mixer == "mcsd":
        width = math.gcd(width, c.value_dim)
    return torch.from_numpy(slope_decays(c)[::width]).float()


class Mixer(nn.Module):
    """Slope and decay sections (MODEL: mixer ``mcsd_g``)."""

    decay_scan: Callable[..., tuple[Tensor, Tensor]] | None = None
    """Another rule for the decay section."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        c = self.config = config
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
        self.w_out = nn.Parameter(torch.randn(c.mix_dim, c.d_model) / math.sqrt(c.mix_dim * 2 * c.n_layers))
        self.register_buffer("slope_decay", _channel_decays(c), persistent=False)

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of one row's state."""
        c = self.config
        return {
            "conv": (CONV_WIDTH - 1, c.conv_dim),
            "norm": (c.slope_dim,),
            "slope": (c.slope_dim,),
            "decay": (c.n_heads, c.key_dim, c.value_dim),
        }

    def forward(self, x: Tensor, starts: Tensor, same_doc: Tensor, state: State) -> tuple[Tensor, State]:
        """x [B,T,D] to the sections' contribution [B,T,D] and the state after it."""
        c, sections = self.config, recurrences(x)
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
        c, steps = self.config, x.shape[1]
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
        return l2_norm(F.silu(keys).unflatten(-1, (self.config.n_heads, self.config.key_dim)))

    def writes(self, x: Tensor, same_doc: Tensor, state: State) -> tuple[Tensor, Tensor]:
        """The keys [B,T,H,K] that x [B,T,D] writes with, and how strongly, beta [B,T,H]."""
        c = self.config
        mixed, _, _, _, b, _ = self._projections(x, same_doc, state)
        k = mixed[..., c.slope_dim + c.n_heads * c.key_dim : c.slope_dim + 2 * c.n_heads * c.key_dim]
        return self._unit(k), torch.sigmoid(b.float() + self.write_bias)


class PublishedMixer(nn.Module):
    """The published block (MODEL: mixer ``mcsd``): vector states, fixed decays, block-diagonal projections."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        c = self.config = config
        width = c.d_model // c.n_channels
        self.norm = nn.Parameter(torch.ones(c.d_model))
        w_in = torch.randn(c.n_channels, width, 2 * c.mix_dim // c.n_channels) / math.sqrt(width)
        self.w_in = nn.Parameter(w_in)
        self.w_out = nn.Parameter(torch.randn(c.mix_dim, c.d_model) / math.sqrt(c.mix_dim * 2 * c.n_layers))
        self.register_buffer("slope_decay", _channel_decays(c), persistent=False)

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of one row's state."""
        return {"norm": (self.config.mix_dim,), "slope": (self.config.mix_dim,)}

    def forward(self, x: Tensor, starts: Tensor, same_doc: Tensor, state: State) -> tuple[Tensor, State]:
        """As ``Mixer.forward``; there is no convolution, so ``same_doc`` is not read."""
        h = rms_norm(x, self.norm, self.config.norm_eps).unflatten(-1, (self.config.n_channels, -1))
        v, u = torch.einsum("btci,cij->btcj", h, self.w_in).chunk(2, -1)  # each [B,T,C,(S+H Vd)/C]
        v, u = v.float().flatten(2).contiguous(), u.float().flatten(2)
        mean, _, norm, sums = recurrences(x).slope_scan(v, self.slope_decay, starts, state["norm"], state["slope"])
        y = F.linear(mean * F.silu(u), self.w_out.t())
        return y, {"norm": norm.detach(), "slope": sums.detach()}


class BlockFFN(nn.Module):
    """Block-selected feed-forward (after BlockFFN, arXiv 2507.08771)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        c = self.config = config
        out_scale = 1 / math.sqrt(2 * c.n_layers)
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

    def activations(self, h: Tensor) -> Tensor:
        """h [B,T,D] to a [B,T,M], zero for the blocks that sleep."""
        a1 = F.relu(h @ self.router + self.router_bias)
        return a1 * torch.rsqrt(a1.square().mean(-1, keepdim=True) + 1e-5) * self.log_gamma.exp()

    def forward(self, x: Tensor, max_awake: int) -> tuple[Tensor, Tensor]:
        """x [B,T,D] to the contribution [B,T,D] and the activations a [B,T,M] of the router."""
        c = self.config
        h = rms_norm(x, self.norm, c.norm_eps)
        with torch.autocast(x.device.type, enabled=False):
            a = self.activations(h)
        if max_awake < c.n_blocks:
            least = torch.topk(a.detach(), max_awake, dim=-1, sorted=True).values[..., -1:]
            a = torch.where(a.detach() >= least, a, 0.0)
        hidden = F.silu(F.linear(h, self.w1.flatten(0, 1)))
        hidden = hidden.unflatten(-1, (c.n_blocks, c.block_size)) * a.to(hidden.dtype).unsqueeze(-1)
        y = F.linear(hidden.flatten(-2), self.w2.permute(1, 0, 2).flatten(1))
        shared = F.linear(F.silu(F.linear(h, self.shared_w1.t())), self.shared_w2.t())
        return y + shared, a


class Layer(nn.Module):
    """A mixer and a feed-forward part, each added to the residual stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.mixer: nn.Module = Mixer(config) if config.mixer == "mcsd_g" else PublishedMixer(config)
        self.ffn: nn.Module = BlockFFN(config)

    def forward(
        self, x: Tensor, starts: Tensor, same_doc: Tensor, state: State, max_awake: int
    ) -> tuple[Tensor, State, Tensor]:
        y, state = self.mixer(x, starts, same_doc, state)
        x = x + y
        y, a = self.ffn(x, max_awake)
        return x + y, state, a


class Model(nn.Module):
    """Embedding, layers, final norm; the head is the embedding (tied)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Parameter(torch.randn(config.vocab_size, config.d_model) * 0.03)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.n_layers))
        self.final_norm = nn.Parameter(torch.ones(config.d_model))

    def initial_state(self, rows: int) -> list[State]:
        """Empty states of every layer for ``rows`` streams."""
        shapes = [layer.mixer.state_shapes() for layer in self.layers]
        return [{n: torch.zeros(rows, *s, device=self.embed.device) for n, s in part.items()} for part in shapes]

    def embedding(self, ids: Tensor, states: list[State]) -> Tensor:
        """ids [B,T] to x [B,T,D]; ``states`` is what was left by the tokens before, for those who look back."""
        return F.embedding(ids, self.embed)

    def forward(
        self, ids: Tensor, starts: Tensor, same_doc: Tensor, states: list[State], max_awake: int
    ) -> tuple[Tensor, list[State], list[Tensor]]:
        """ids [B,T] to normalised hidden vectors [B,T,D], the states after, and a [B,T,M] per layer.

        starts [B,T]: the token begins a document. same_doc [B,T,3]: the tokens 3, 2, 1 before belong to
        the same document (``document_masks``).
        """
        x = self.embedding(ids, states)
        new_states, activations = [], []
        for layer, state in zip(self.layers, states, strict=True):
            x, state, a = layer(x, starts, same_doc, state, max_awake)
            new_states.append(state)
            activations.append(a)
        return rms_norm(x, self.final_norm, self.config.norm_eps), new_states, activations

    def extra_loss(self) -> Tensor | float:
        """What a variant adds to the loss of the last ``forward``."""
        return 0.0


def document_masks(ids: Tensor, doc_id: int, carried: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """starts [B,T], same_doc [B,T,3], and the last three starts [B,3] to carry to the next segment.

    A document begins at its end-of-document id: ``doc_id`` ends one text and is the first input of the next.
    """
    starts = ids == doc_id
    width = CONV_WIDTH - 1
    history = torch.cat([carried, starts], 1)
    steps = ids.shape[1]
    same = []
    for back in range(width, 0, -1):
        # Position t sees t-back if none of t-back+1 .. t starts a document.
        crossed = torch.zeros_like(starts)
        for i in range(back):
            crossed |= history[:, width - i : width - i + steps]
        same.append(~crossed)
    return starts, torch.stack(same, -1).float(), history[:, -width:]
