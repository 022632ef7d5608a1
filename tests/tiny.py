"""Models so small that every number of them can be looked at."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from edgelm.cells.retention.paper import Retention
from edgelm.cells.rwkv7_channel_mix.paper import Rwkv7ChannelMix
from edgelm.cells.rwkv7_time_mix.paper import Rwkv7TimeMix
from edgelm.cells.top_k_ffn.paper import TopKFfn
from edgelm.matrices.quantize import PRECISIONS
from edgelm.model import hub
from edgelm.model.config import ModelConfig
from edgelm.model.packing import pack
from edgelm.model.weights import Weights, random_weights, ternary_names

EVEN = {
    "d_model": 64, "key_dim": 16, "value_dim": 16, "slope_dim": 32, "n_channels": 4, "block_size": 32,
    "shared_size": 32,
}  # fmt: skip
"""Sizes that divide into runs of 32, where they are summed over."""
MIXERS = ("mcsd_g", "mcsd", "retention", "rwkv7", "top_k")
"""Kinds of mixer; the last is the first with another router in the feed-forward part."""


def tiny_config(mixer: str = "mcsd_g", **changes: Any) -> ModelConfig:
    """Two layers with an odd number of everything that may be odd."""
    sizes = {
        "vocab_size": 23, "d_model": 12, "n_layers": 2, "n_heads": 2, "key_dim": 3, "value_dim": 4, "slope_dim": 6,
        "n_channels": 3, "n_blocks": 5, "block_size": 3, "max_awake": 2, "shared_size": 5,
    }  # fmt: skip
    if mixer == "mcsd":  # its channels share the features of both sections and the width
        sizes |= {"slope_dim": 4, "n_channels": 4}
    sizes |= changes
    if mixer == "rwkv7":
        return _rwkv7(sizes)
    if mixer not in ("retention", "top_k"):
        return ModelConfig.flat(**sizes, mixer=mixer)
    config = ModelConfig.flat(**sizes)
    if mixer == "top_k":
        return dataclasses.replace(config, ffn=TopKFfn(config.d_model, config.norm_eps, **config.ffn.sizes()))
    heads = {name: sizes[name] for name in ("n_heads", "key_dim", "value_dim")}
    return dataclasses.replace(config, mixer=Retention(config.d_model, config.norm_eps, **heads))


def _rwkv7(sizes: dict[str, int]) -> ModelConfig:
    """Of as many tokens, layers and heads, and as wide; if that is even, its ranks are twice the width of a value."""
    width, heads = sizes["d_model"], sizes["n_heads"]
    ranks = {"decay_rank": 4, "rate_rank": 3, "mix_rank": 2, "gate_rank": 5}
    if width % 32 == 0:
        ranks = dict.fromkeys(ranks, 2 * sizes["value_dim"])
    mixer = Rwkv7TimeMix(width, 1e-5, heads, width // heads, **ranks)
    ffn = Rwkv7ChannelMix(width, 1e-5, 3 * width)
    return ModelConfig(sizes["vocab_size"], width, sizes["n_layers"], mixer, ffn, norm="layer", tied=False)


def random_model(
    mixer: str = "mcsd_g", seed: int = 0, dtype: type = np.float32, **changes: Any
) -> tuple[ModelConfig, Weights]:
    """A configuration and random weights for it."""
    config = tiny_config(mixer, **changes)
    return config, random_weights(config, np.random.default_rng(seed), dtype)


def in_memory(config: ModelConfig, weights: Weights, precision: str = "int8") -> hub.Model:
    """A model of these weights as a file would hold them, without a folder or a tokenizer."""
    model = hub.Model("tiny", Path(), "", config, None, {}, {})  # type: ignore[arg-type]
    ternary = ternary_names(config) if precision == "ternary" else ()
    model._packed = MappingProxyType(pack(weights, PRECISIONS["int8" if ternary else precision], ternary))
    return model


def random_ids(config: ModelConfig, n_tokens: int, seed: int = 1) -> np.ndarray:
    """Token ids [n_tokens]."""
    return np.random.default_rng(seed).integers(0, config.vocab_size, n_tokens)
