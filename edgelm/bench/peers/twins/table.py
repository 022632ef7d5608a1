"""The twins of all kinds of layer part: a new one is a file and a line here."""

from __future__ import annotations

from torch import nn

from edgelm.bench.peers.twins import (
    block_ffn,
    gated_delta,
    published,
    retention,
    rwkv7_channel_mix,
    rwkv7_time_mix,
    top_k_ffn,
)
from edgelm.cells.block_ffn.paper import BlockFfn
from edgelm.cells.cell import Cell
from edgelm.cells.gated_delta.paper import GatedDelta
from edgelm.cells.published.paper import Published
from edgelm.cells.retention.paper import Retention
from edgelm.cells.rwkv7_channel_mix.paper import Rwkv7ChannelMix
from edgelm.cells.rwkv7_time_mix.paper import Rwkv7TimeMix
from edgelm.cells.top_k_ffn.paper import TopKFfn

TWINS: dict[str, type[nn.Module]] = {
    GatedDelta.KIND: gated_delta.Twin,
    Published.KIND: published.Twin,
    Retention.KIND: retention.Twin,
    BlockFfn.KIND: block_ffn.Twin,
    TopKFfn.KIND: top_k_ffn.Twin,
    Rwkv7TimeMix.KIND: rwkv7_time_mix.Twin,
    Rwkv7ChannelMix.KIND: rwkv7_channel_mix.Twin,
}


def twin_of(cell: Cell, n_layers: int) -> nn.Module:
    """The cell in PyTorch, with weights drawn at random, for a model of so many layers.

    Raises
    ------
    ValueError
        The kind has no twin.
    """
    if cell.KIND not in TWINS:
        known = ", ".join(TWINS)
        raise ValueError(
            f"{cell.KIND} cannot be trained, it has no twin in edgelm/bench/peers/twins; these have: {known}"
        )
    return TWINS[cell.KIND](cell, n_layers)
