"""Names, shapes and roles of all tensors of a model: the one table.

The same name is used in the file, in numpy, in the kernels, in the ONNX graph and in a profile. What a layer holds is
declared by its cells.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from edgelm.cells.table import CELLS
from edgelm.matrices.spec import TensorSpec
from edgelm.model.config import ModelConfig

Weights = dict[str, np.ndarray]

EMBED_SUMS = -1
"""The axis that products with the embedding, as the output matrix, sum over; and those with an own output matrix."""
MATRICES = {"embed": EMBED_SUMS, "head": EMBED_SUMS} | {
    name: axis for cell in CELLS.values() for name, axis in cell.MATRICES.items()
}
"""Last parts of the names of the matrices that a model file may hold as integers; the axis that products sum over."""


@cache
def _tensors(config: ModelConfig) -> dict[str, TensorSpec]:
    table = {"embed": TensorSpec((config.vocab_size, config.d_model), EMBED_SUMS, spread=0.5)}
    for prefix, cell in config.parts():
        table |= {prefix + name: spec for name, spec in cell.tensors().items()}
    table["final_norm"] = TensorSpec((config.d_model,), learns=True, mean=1.0, spread=0.2)
    if config.norm == "layer":
        table["final_norm_bias"] = TensorSpec((config.d_model,), learns=True, spread=0.2)
    if not config.tied:
        table["head"] = TensorSpec((config.vocab_size, config.d_model), EMBED_SUMS, spread=config.d_model**-0.5)
    return table


def tensors(config: ModelConfig) -> dict[str, TensorSpec]:
    """Every tensor by its name, in the order of use."""
    return dict(_tensors(config))


def shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor, in the order of use."""
    return {name: spec.shape for name, spec in _tensors(config).items()}


def count_parameters(config: ModelConfig) -> int:
    """Numbers in all tensors together."""
    return sum(int(np.prod(spec.shape)) for spec in _tensors(config).values())


def adaptable_names(config: ModelConfig) -> list[str]:
    """Names of the tensors that learning changes, in the order of the table.

    They stay float32 in memory, shared with the inference session.
    """
    return [name for name, spec in _tensors(config).items() if spec.learns]


def block_names(config: ModelConfig) -> list[str]:
    """Those of them whose first axis are neuron blocks."""
    return [name for name, spec in _tensors(config).items() if spec.learns and spec.blocks]


def frozen_matrices(config: ModelConfig) -> set[str]:
    """Names of the matrices and stacks of matrices that learning multiplies with and does not change, if they divide
    into runs; of an embedding that is no output matrix only rows are read."""
    found = {name for name, spec in _tensors(config).items() if spec.divides and not spec.learns}
    return found if config.tied else found - {"embed"}


def ternary_names(config: ModelConfig) -> set[str]:
    """Names of the matrices that a model file may hold as -1, 0 and 1: those of layer parts that learning does not
    change."""
    return frozen_matrices(config) - {"embed", "head"}


def is_quantizable(name: str) -> bool:
    """Whether a model file may hold this tensor as integers."""
    return name.rsplit(".", 1)[-1] in MATRICES


def sums_over_first(name: str) -> bool:
    """Whether the products of this matrix sum over its first axis."""
    return MATRICES.get(name.rsplit(".", 1)[-1]) == 0


def random_weights(config: ModelConfig, rng: np.random.Generator, dtype: type = np.float32) -> Weights:
    """Weights for tests: every tensor random, so that no term of a gradient vanishes by accident."""
    weights: Weights = {}
    for name, spec in _tensors(config).items():
        spread = spec.spread or spec.shape[-2] ** -0.5
        weights[name] = np.ascontiguousarray(spec.mean + spread * rng.standard_normal(spec.shape), dtype=dtype)
    return weights
