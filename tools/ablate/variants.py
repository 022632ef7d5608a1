"""What the model is compared with: the same harness with one part exchanged, and a Transformer.

Every variant has as many parameters as the model itself (within 2 %), unless its name says otherwise.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgelm.bench.peers.twins import chunked, gated_delta, published, retention
from edgelm.bench.peers.twins.functions import State, rms_norm
from edgelm.bench.peers.twins.model import Model
from edgelm.cells.block_ffn.paper import BlockFfn
from edgelm.cells.cell import Cell
from edgelm.cells.gated_delta.paper import GatedDelta
from edgelm.cells.published.paper import Published
from edgelm.cells.retention.paper import Retention
from edgelm.cells.top_k_ffn.paper import TopKFfn
from edgelm.model.config import ModelConfig

NGRAM_ROWS = 8192


def _without(mixer: gated_delta.Twin, features: slice) -> gated_delta.Twin:
    """The mixer with some of its features cut off from the output, for good."""
    kept = torch.ones(len(mixer.w_out), 1)
    kept[features] = 0
    with torch.no_grad():
        mixer.w_out.mul_(kept)
    mixer.w_out.register_hook(lambda gradient: gradient * kept.to(gradient.device))
    return mixer


def without_slope(cell: GatedDelta, n_layers: int) -> gated_delta.Twin:
    """The decay section with as many features as both had; what is left of the slope section is one
    feature a channel, cut off."""
    slope = cell.n_channels
    width = round((cell.mix_dim - slope) / cell.n_heads)
    sizes = dataclasses.replace(cell, slope_dim=slope, value_dim=width)
    return _without(gated_delta.Twin(sizes, n_layers), slice(0, slope))


def _mixer_weights(cell: GatedDelta) -> int:
    """Weights of the two projections."""
    return cell.d_model * (cell.conv_dim + 2 * cell.mix_dim + 2 * cell.n_heads)


def without_decay(cell: GatedDelta, n_layers: int) -> gated_delta.Twin:
    """The slope section, with its convolution and gate, widened to the parameters of both."""
    width = round(_mixer_weights(cell) / (3 * cell.d_model * cell.n_channels)) * cell.n_channels
    sizes = dataclasses.replace(cell, slope_dim=width, n_heads=1, key_dim=1, value_dim=1)
    return _without(gated_delta.Twin(sizes, n_layers), slice(width, None))


def as_published(cell: GatedDelta, n_layers: int) -> published.Twin:
    """The published block, widened to the same parameters."""
    total = _mixer_weights(cell) / (cell.d_model * (1 + 2 / cell.n_channels))
    width = round(total / 2 / cell.n_channels) * cell.n_channels
    value = round((total - width) / cell.n_heads / cell.n_channels) * cell.n_channels
    sizes = Published(cell.d_model, cell.norm_eps, cell.n_heads, value, width, cell.n_channels)
    return published.Twin(sizes, n_layers)


def as_retention(cell: GatedDelta, n_layers: int) -> retention.Twin:
    """Retention with twice as many heads, so that the slowest keeps half for 177 tokens instead of 44; their values are
    as wide as the same parameters allow."""
    heads, keys = 2 * cell.n_heads, cell.key_dim // 2
    values = round((_mixer_weights(cell) / (cell.d_model * heads) - 2 * keys) / 3)
    return retention.Twin(Retention(cell.d_model, cell.norm_eps, heads, keys, values), n_layers)


def started(
    cell: GatedDelta, n_layers: int, keys_before: bool = False, rare: bool = False, reset: bool = False
) -> gated_delta.Twin:
    """The mixer with the start of the first bundled model, but for what is asked for (decision 9): keys of the token
    before, rare writes, a gate that can reset."""
    mixer = gated_delta.Twin(cell, n_layers)
    with torch.no_grad():
        if not keys_before:
            taps = mixer.conv[gated_delta.key_features(cell)]
            taps[:, -1] += 1
            taps[:, -2] -= 1
        if not rare:
            mixer.write_bias.zero_()
        if not reset:
            # Half-lives 1 / A from 8192 tokens down to 16: exp(g) = 2^-A.
            step = math.log(8192 / 16) / max(1, cell.n_heads - 1)
            mixer.decay_bias.zero_()
            mixer.decay_base.fill_(math.log(1 / 8192) - step)
            mixer.decay_step.fill_(math.log(math.expm1(step)))
    return mixer


class GatedMixer(gated_delta.Twin):
    """Gated, but what is written does not take the old value away: S = exp(g) S + beta k v'."""

    def __init__(self, cell: GatedDelta, n_layers: int) -> None:
        super().__init__(cell, n_layers)
        self.decay_scan = chunked.gated_scan


class DenseFFN(nn.Module):
    """SiLU neurons that are always awake, as the shared block's."""

    def __init__(self, cell: Cell, n_layers: int, size: int) -> None:
        super().__init__()
        c = self.cell = cell
        self.norm = nn.Parameter(torch.ones(c.d_model))
        self.w1 = nn.Parameter(torch.randn(c.d_model, size) / math.sqrt(c.d_model))
        self.w2 = nn.Parameter(torch.randn(size, c.d_model) / math.sqrt(size * 2 * n_layers))

    def forward(self, x: Tensor, max_awake: int) -> tuple[Tensor, Tensor]:
        """x [B,T,D] to the contribution [B,T,D] and activations [B,T,1], always awake."""
        h = rms_norm(x, self.norm, self.cell.norm_eps)
        y = F.linear(F.silu(F.linear(h, self.w1.t())), self.w2.t())
        return y, torch.ones(*x.shape[:2], 1, device=x.device)


def _ffn_weights(cell: BlockFfn, share: float = 1.0) -> float:
    """Weights of the block-selected feed-forward, of which a share of the blocks counts."""
    neurons = share * cell.n_blocks * cell.block_size + cell.shared_size
    return cell.d_model * (2 * neurons + cell.n_blocks)


class SwiGLU(nn.Module):
    """The gated feed-forward of today's Transformers (arXiv 2002.05202)."""

    def __init__(self, cell: Cell, n_layers: int, size: int) -> None:
        super().__init__()
        c = self.cell = cell
        self.norm = nn.Parameter(torch.ones(c.d_model))
        self.w1 = nn.Parameter(torch.randn(c.d_model, 2 * size) / math.sqrt(c.d_model))
        self.w2 = nn.Parameter(torch.randn(size, c.d_model) / math.sqrt(size * 2 * n_layers))

    def forward(self, x: Tensor, max_awake: int) -> tuple[Tensor, Tensor]:
        """As ``DenseFFN.forward``."""
        h = rms_norm(x, self.norm, self.cell.norm_eps)
        gate, up = F.linear(h, self.w1.t()).chunk(2, -1)
        return F.linear(F.silu(gate) * up, self.w2.t()), torch.ones(*x.shape[:2], 1, device=x.device)


class Attention(nn.Module):
    """Causal attention with rotary positions over this segment and the one before (as in Transformer-XL).

    The keys and values of the segment before are its state, so that it may look back from 1 to 2 segments.
    """

    def __init__(self, cell: Cell, n_layers: int, window: int, head_dim: int = 32) -> None:
        super().__init__()
        c = self.cell = cell
        self.window, self.heads, self.head_dim = window, c.d_model // head_dim, head_dim
        self.norm = nn.Parameter(torch.ones(c.d_model))
        self.w_in = nn.Parameter(torch.randn(c.d_model, 3 * c.d_model) / math.sqrt(c.d_model))
        self.w_out = nn.Parameter(torch.randn(c.d_model, c.d_model) / math.sqrt(c.d_model * 2 * n_layers))
        frequency = 10_000.0 ** (-torch.arange(0, head_dim, 2) / head_dim)
        angle = torch.arange(2 * window).unsqueeze(-1) * frequency
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Keys and values of a segment, and which document (counted from the last) each token is of."""
        heads = (self.heads, self.window, self.head_dim)
        return {"keys": heads, "values": heads, "document": (self.window,)}

    def _rotate(self, x: Tensor, first: int) -> Tensor:
        cos, sin = (t[first : first + x.shape[2]] for t in (self.cos, self.sin))
        a, b = x.float().chunk(2, -1)
        return torch.cat([a * cos - b * sin, a * sin + b * cos], -1).to(x.dtype)

    def forward(self, x: Tensor, starts: Tensor, same_doc: Tensor, state: State) -> tuple[Tensor, State]:
        """As of the twins of mixers. A segment shorter than the window (the last of a text) is allowed."""
        h = rms_norm(x, self.norm, self.cell.norm_eps)
        parts = F.linear(h, self.w_in.t()).unflatten(-1, (3, self.heads, self.head_dim))
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        keys = torch.cat([state["keys"].to(k.dtype), k], 2)
        values = torch.cat([state["values"].to(v.dtype), v], 2)
        # Documents are numbered on from the last one seen, which is 1; 0 is what was before everything.
        document = torch.cat([state["document"], 1 + starts.cumsum(1)], 1)
        position = torch.arange(document.shape[1], device=x.device)
        causal = position[self.window :, None] >= position
        mask = causal & (document[:, self.window :, None] == document[:, None, :])
        out = F.scaled_dot_product_attention(
            self._rotate(q, self.window), self._rotate(keys, 0), values, attn_mask=mask.unsqueeze(1)
        )
        y = F.linear(out.transpose(1, 2).flatten(2), self.w_out.t())
        # The last document becomes number 1 of the next segment, those before it 0.
        last = (document[:, -self.window :] == document[:, -1:]).float()
        kept = {"keys": keys[:, :, -self.window :], "values": values[:, :, -self.window :]}
        return y, {name: tensor.detach().float().clone() for name, tensor in kept.items()} | {"document": last}


class NgramModel(Model):
    """The model with hashed rows of the last two and three tokens added to its embedding."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.tables = nn.Parameter(torch.randn(2, NGRAM_ROWS, config.d_model) * 0.003)

    def initial_state(self, rows: int) -> list[State]:
        """Also the last two ids."""
        states = super().initial_state(rows)
        states[0]["ids"] = torch.zeros(rows, 2, dtype=torch.long, device=self.embed.device)
        return states

    def embedding(self, ids: Tensor, states: list[State]) -> Tensor:
        """ids [B,T] to x [B,T,D]."""
        history = torch.cat([states[0]["ids"], ids], 1)
        pairs = history[:, 1:-1] * 1_000_003 + ids
        triples = (history[:, :-2] * 999_983 + pairs) * 10_007
        self._last = history[:, -2:]
        rows = torch.stack([pairs, triples]) % 2_147_483_647 % NGRAM_ROWS
        by_pair, by_triple = (F.embedding(rows[i], self.tables[i]) for i in (0, 1))
        return F.embedding(ids, self.embed) + by_pair + by_triple

    def forward(
        self, ids: Tensor, starts: Tensor, same_doc: Tensor, states: list[State], max_awake: int
    ) -> tuple[Tensor, list[State], list[Tensor]]:
        """As ``Model.forward``."""
        hidden, states, activations = super().forward(ids, starts, same_doc, states, max_awake)
        states[0]["ids"] = self._last
        return hidden, states, activations


Make = Callable[[Any, int], nn.Module]
"""Makes a layer part, from the cell whose place it takes and the number of layers."""


def _exchanged(config: ModelConfig, mixer: Make | None = None, ffn: Make | None = None) -> Model:
    model = Model(config)
    for layer in model.layers:
        layer.mixer = mixer(config.mixer, config.n_layers) if mixer else layer.mixer
        layer.ffn = ffn(config.ffn, config.n_layers) if ffn else layer.ffn
    return model


@dataclasses.dataclass(frozen=True)
class Variant:
    """One row of the table.

    Parameters
    ----------
    title : str
    is_sparse : bool
        Whether pressure puts its blocks to sleep.
    widening : int
        How many times as wide its blocks are.
    narrow_heads : bool
        Twice as many heads, half as wide.
    window : int
        Tokens of a training segment; 0: as of the others.
    without : tuple of str
        Sources that it does not read.
    mixer_rate : float
        By how many times the learning rate of its mixers differs.
    """

    title: str
    is_sparse: bool = True
    widening: int = 1
    narrow_heads: bool = False
    window: int = 0
    without: tuple[str, ...] = ()
    mixer_rate: float = 1.0


VARIANTS = {
    "mcsd-g": Variant("MCSD-G: slope and gated-delta decay, blocks by ReLU router"),
    "mcsd": Variant("the published block: fixed decays, vector states"),
    "retention": Variant("retention: fixed decays, matrix states (RetNet)"),
    "no-slope": Variant("without slope section"),
    "no-decay": Variant("without decay section"),
    "no-delta": Variant("gated, without delta rule"),
    "all-awake": Variant("no pressure on the router", is_sparse=False),
    "dense": Variant("dense feed-forward, same total size", is_sparse=False),
    "dense-awake": Variant("dense feed-forward of the awake size (fewer parameters)", is_sparse=False),
    "top-k": Variant("top-k softmax router, as many blocks awake", is_sparse=False),
    "wide-blocks": Variant("blocks twice as wide, half as many", widening=2),
    "n-gram": Variant("hashed n-gram rows added (more parameters)"),
    "first-mixer": Variant("the mixer as it first was", narrow_heads=True),
    "keys-before": Variant("first mixer, keys of the token before", narrow_heads=True),
    "rare-wide": Variant("first mixer, half as many heads twice as wide, rare writes"),
    "reset": Variant("first mixer, a gate that can reset", narrow_heads=True),
    "short-windows": Variant("windows of 128", window=128),
    "no-repeats": Variant("no text that pays for recall", without=("again", "reminded", "talk_memory")),
    "slow-mixer": Variant("mixer's rate halved", mixer_rate=0.5),
    "fast-mixer": Variant("mixer's rate doubled", mixer_rate=2.0),
    "transformer": Variant("Transformer: RoPE, SwiGLU, RMSNorm", is_sparse=False),
}


OWN_MIXER = ("mcsd-g", "all-awake", "wide-blocks", "short-windows", "no-repeats", "slow-mixer", "fast-mixer")
"""These differ in sizes or in how they are trained."""


def sized(name: str, config: ModelConfig) -> ModelConfig:
    """The sizes of a variant, where those of its blocks differ from ``config``."""
    wider, mixer = VARIANTS[name].widening, config.mixer
    if VARIANTS[name].narrow_heads:
        config = config.resized(n_heads=2 * mixer.n_heads, key_dim=mixer.key_dim // 2, value_dim=mixer.value_dim // 2)
    return config.resized(
        block_size=wider * config.ffn.block_size, n_blocks=config.n_blocks // wider,
        max_awake=math.ceil(config.max_awake / wider),
    )  # fmt: skip


def build(name: str, config: ModelConfig, window: int, share: float) -> Model:
    """The model of a variant.

    Parameters
    ----------
    name : str
        A key of ``VARIANTS``.
    config : ModelConfig
        What ``sized`` gives for ``mcsd-g``; the others take theirs from its number of parameters.
    window : int
        Tokens of a segment.
    share : float
        Share of the blocks that is to be awake.
    """
    mixers: dict[str, Make] = {
        "mcsd": as_published,
        "retention": as_retention,
        "no-slope": without_slope,
        "no-decay": without_decay,
        "no-delta": GatedMixer,
        "first-mixer": started,
        "keys-before": functools.partial(started, keys_before=True),
        "rare-wide": functools.partial(started, rare=True),
        "reset": functools.partial(started, reset=True),
    }
    if name in OWN_MIXER:
        return Model(config)
    if name in mixers:
        return _exchanged(config, mixers[name])
    if name.startswith("dense"):
        size = round(_ffn_weights(config.ffn, share if name == "dense-awake" else 1.0) / (2 * config.d_model))
        return _exchanged(config, ffn=functools.partial(DenseFFN, size=size))
    if name == "top-k":
        ffn = config.ffn
        cell = TopKFfn(ffn.d_model, ffn.norm_eps, **ffn.sizes() | {"max_awake": round(share * config.n_blocks)})
        return Model(dataclasses.replace(config, ffn=cell))
    if name == "n-gram":
        return NgramModel(config)
    n_weights = _mixer_weights(config.mixer) + _ffn_weights(config.ffn) - 4 * config.d_model**2
    size = round(n_weights / (3 * config.d_model))
    return _exchanged(config, functools.partial(Attention, window=window), functools.partial(SwiGLU, size=size))
