"""The table of tensors."""

from __future__ import annotations

import numpy as np
import pytest

from edgelm.model.config import PRESETS, ModelConfig
from edgelm.model.weights import (
    Weights,
    adaptable_names,
    count_parameters,
    is_quantizable,
    random_weights,
    shapes,
)
from tests.tiny import MIXERS, tiny_config


@pytest.fixture(params=MIXERS)
def config(request: pytest.FixtureRequest) -> ModelConfig:
    return tiny_config(request.param)


@pytest.fixture
def weights(config: ModelConfig) -> Weights:
    return random_weights(config, np.random.default_rng(0))


def test_random_weights_fit_the_table(config: ModelConfig, weights: Weights) -> None:
    assert list(weights) == list(shapes(config))
    assert {name: array.shape for name, array in weights.items()} == shapes(config)
    assert {array.dtype for array in weights.values()} == {np.dtype(np.float32)}
    assert count_parameters(config) == sum(array.size for array in weights.values())


def test_random_weights_come_from_the_seed_alone(config: ModelConfig, weights: Weights) -> None:
    again = random_weights(config, np.random.default_rng(0))
    assert all(np.array_equal(weights[name], again[name]) for name in weights)


def test_every_layer_has_the_same_tensors() -> None:
    config = tiny_config(n_layers=3)
    names = [name.split(".", 2) for name in shapes(config) if name.startswith("layers.")]
    layers = [[rest for _, layer, rest in names if layer == str(i)] for i in range(3)]
    assert layers[0] == layers[1] == layers[2]
    assert len(shapes(config)) == 3 * len(layers[0]) + 2


@pytest.mark.parametrize(("preset", "millions"), [("nano", 4), ("small", 11), ("base", 28)])
def test_presets_are_as_large_as_they_are_meant(preset: str, millions: int) -> None:
    assert count_parameters(PRESETS[preset]) == pytest.approx(millions * 1e6, rel=0.1)


def test_what_learning_changes() -> None:
    names = {name.split(".", 2)[-1] for name in adaptable_names(tiny_config())}
    assert names == {
        "ffn.w2", "ffn.norm", "ffn.router_bias", "ffn.log_gamma",
        "mixer.norm", "mixer.head_norm", "mixer.decay_bias", "mixer.write_bias", "final_norm",
    }  # fmt: skip


def test_vectors_are_never_quantised(config: ModelConfig) -> None:
    table = shapes(config)
    assert is_quantizable("embed")
    assert not any(is_quantizable(name) for name, shape in table.items() if len(shape) < 2)
    assert all(not is_quantizable(name) for name in table if name.endswith(("router", "conv")))
