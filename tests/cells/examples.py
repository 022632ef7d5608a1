"""One small cell of every kind, for the suite that runs over all of them."""

from __future__ import annotations

from typing import Any

from edgelm.cells.cell import Cell
from edgelm.cells.table import CELLS

SIZES: dict[str, dict[str, Any]] = {
    "gated_delta": {"n_heads": 2, "key_dim": 3, "value_dim": 4, "slope_dim": 6, "n_channels": 3},
    "published": {"n_heads": 2, "value_dim": 4, "slope_dim": 4, "n_channels": 4},
    "retention": {"n_heads": 3, "key_dim": 5, "value_dim": 7},
    "rwkv7_time_mix": {
        "n_heads": 3,
        "head_dim": 4,
        "decay_rank": 2,
        "rate_rank": 3,
        "mix_rank": 2,
        "gate_rank": 5,
    },
    "rwkv7_channel_mix": {"hidden_size": 17},
    "block_ffn": {"n_blocks": 5, "block_size": 3, "max_awake": 2, "shared_size": 5},
    "top_k_ffn": {"n_blocks": 5, "block_size": 3, "max_awake": 2, "shared_size": 5},
}
"""Sizes of a part of width 12: odd, where they may be odd."""
EVEN: dict[str, dict[str, Any]] = {
    "gated_delta": {"n_heads": 2, "key_dim": 16, "value_dim": 16, "slope_dim": 32, "n_channels": 4},
    "published": {"n_heads": 2, "value_dim": 16, "slope_dim": 32, "n_channels": 4},
    "retention": {"n_heads": 2, "key_dim": 16, "value_dim": 32},
    "rwkv7_time_mix": {
        "n_heads": 2,
        "head_dim": 32,
        "decay_rank": 32,
        "rate_rank": 32,
        "mix_rank": 32,
        "gate_rank": 64,
    },
    "rwkv7_channel_mix": {"hidden_size": 96},
    "block_ffn": {"n_blocks": 5, "block_size": 32, "max_awake": 2, "shared_size": 32},
    "top_k_ffn": {"n_blocks": 5, "block_size": 32, "max_awake": 2, "shared_size": 32},
}
"""Sizes of a part of width 64 whose matrices divide into runs of 32."""


def example(kind: str, *, even: bool = False) -> Cell:
    """A cell of that kind."""
    return CELLS[kind](64 if even else 12, 1e-5, **(EVEN if even else SIZES)[kind])
