"""Names, shapes and roles of all tensors of a model: the one table.

The same name is used in the file, in numpy, in the kernels, in the ONNX graph and in a profile.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

import numpy as np

from edgelm.config import CONV_WIDTH, ModelConfig

Weights = dict[str, np.ndarray]

ADAPTABLE = (
    "layers.*.ffn.w2",
    "layers.*.norm",
    "layers.*.router_bias",
    "layers.*.log_gamma",
    "layers.*.head_norm",
    "layers.*.decay_bias",
    "layers.*.write_bias",
    "final_norm",
)
"""Patterns of the tensors that learning changes: what the neurons write (w2; what they read, w1, is frozen), the
gains and the biases. They stay float32 in memory, shared with the inference session."""

QUANTIZABLE = ("embed", "w_in", "w_out", "w1", "w2", "shared_w1", "shared_w2")
"""Last parts of the names of the matrices that a model file may hold as integers."""


def shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor, in the order of use."""
    c = config
    table: dict[str, tuple[int, ...]] = {"embed": (c.vocab_size, c.d_model)}
    for i in range(c.n_layers):
        mixer = _mcsd_g(c) if c.mixer == "mcsd_g" else _mcsd(c)
        table |= {f"layers.{i}.mixer.{name}": shape for name, shape in mixer.items()}
        table |= {f"layers.{i}.ffn.{name}": shape for name, shape in _ffn(c).items()}
    table["final_norm"] = (c.d_model,)
    return table


def _mcsd_g(c: ModelConfig) -> dict[str, tuple[int, ...]]:
    return {
        "norm": (c.d_model,),
        "w_in": (c.d_model, c.conv_dim + c.mix_dim + 2 * c.n_heads),
        "conv": (c.conv_dim, CONV_WIDTH),
        "decay_bias": (c.n_heads,),
        "write_bias": (c.n_heads,),
        "decay_base": (1,),
        "decay_step": (c.n_heads,),
        "head_norm": (c.value_dim,),
        "w_out": (c.mix_dim, c.d_model),
    }


def _mcsd(c: ModelConfig) -> dict[str, tuple[int, ...]]:
    return {
        "norm": (c.d_model,),
        "w_in": (c.n_channels, c.d_model // c.n_channels, 2 * c.mix_dim // c.n_channels),
        "w_out": (c.mix_dim, c.d_model),
    }


def _ffn(c: ModelConfig) -> dict[str, tuple[int, ...]]:
    return {
        "norm": (c.d_model,),
        "router": (c.d_model, c.n_blocks),
        "router_bias": (c.n_blocks,),
        "log_gamma": (c.n_blocks,),
        "w1": (c.n_blocks, c.block_size, c.d_model),
        "w2": (c.n_blocks, c.d_model, c.block_size),
        "shared_w1": (c.d_model, c.shared_size),
        "shared_w2": (c.shared_size, c.d_model),
    }


def count_parameters(config: ModelConfig) -> int:
    """Numbers in all tensors together."""
    return sum(int(np.prod(shape)) for shape in shapes(config).values())


def adaptable_names(config: ModelConfig) -> list[str]:
    """Names of the tensors that learning changes, in the order of the table."""
    return [name for name in shapes(config) if any(fnmatchcase(name, pattern) for pattern in ADAPTABLE)]


def is_quantizable(name: str) -> bool:
    """Whether a model file may hold this tensor as integers."""
    return name.rsplit(".", 1)[-1] in QUANTIZABLE


def random_weights(config: ModelConfig, rng: np.random.Generator, dtype: type = np.float32) -> Weights:
    """Weights for tests: every tensor random, so that no term of a gradient vanishes by accident."""
    weights: Weights = {}
    for name, shape in shapes(config).items():
        kind = name.rsplit(".", 1)[-1]
        fan_in = {"w1": config.d_model, "w2": 4 * config.block_size}.get(kind, shape[-2] if len(shape) > 1 else 1)
        noise = rng.standard_normal(shape)
        if kind in ("norm", "head_norm", "final_norm"):
            weights[name] = 1 + 0.2 * noise
        elif kind == "decay_base":
            weights[name] = -4 + 0.2 * noise
        elif len(shape) == 1:
            weights[name] = 0.3 * noise
        elif kind == "embed":
            weights[name] = 0.5 * noise
        else:
            weights[name] = noise / np.sqrt(fan_in)
    return {name: np.ascontiguousarray(array, dtype=dtype) for name, array in weights.items()}
