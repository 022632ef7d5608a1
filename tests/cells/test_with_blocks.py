"""A part with fewer blocks computes what the whole one does, where the others slept."""

from __future__ import annotations

import numpy as np
import pytest

from edgelm.cells.block_ffn.paper import BlockFfn
from edgelm.cells.rwkv7_channel_mix.paper import Rwkv7ChannelMix
from edgelm.cells.top_k_ffn.paper import TopKFfn
from tests.cells.test_contract import random_parts, stream


@pytest.mark.parametrize("kind", [BlockFfn, TopKFfn])
def test_blocks_that_sleep_are_not_missed(kind: type[BlockFfn]) -> None:
    cell = kind(12, 1e-5, n_blocks=7, block_size=3, max_awake=2, shared_size=5)
    weights, x = random_parts(cell), stream(cell)
    asleep, blocks = [1, 4, 5], np.array([6, 0, 2, 3])
    weights["router"][:, asleep] = 0
    # The others are far from the epsilon of the norm.
    weights["router_bias"] += 3
    weights["router_bias"][asleep] = -30
    small, kept = cell.with_blocks(weights, blocks)
    assert {name: array.shape for name, array in kept.items()} == {n: s.shape for n, s in small.tensors().items()}
    awake = cell.activations(x, weights, {})
    assert (small.n_blocks, small.max_awake) == (4, 2) and not awake[:, asleep].any()
    np.testing.assert_allclose(small.activations(x, kept, {}), awake[:, blocks], rtol=1e-4)
    np.testing.assert_allclose(small.forward(x, kept, {}, {}), cell.forward(x, weights, {}, {}), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", [BlockFfn, TopKFfn])
def test_fewer_blocks_than_may_be_awake(kind: type[BlockFfn]) -> None:
    cell = kind(12, 1e-5, n_blocks=4, block_size=3, max_awake=2, shared_size=5)
    weights = random_parts(cell)
    small, kept = cell.with_blocks(weights, np.array([2]))
    assert (small.n_blocks, small.max_awake) == (1, 1)
    assert np.isfinite(small.forward(stream(cell), kept, {}, {})).all()
    assert kept["norm"] is weights["norm"] and len(weights["w1"]) == 4


def test_neurons_that_sleep_are_not_missed() -> None:
    cell = Rwkv7ChannelMix(12, 1e-5, 17)
    weights, x = random_parts(cell), stream(cell, 3)
    state = {"channel_shift": np.ones((1, 12))}
    (neurons,) = np.nonzero((cell.activations(x, weights, state) > 0).any(0))
    assert 0 < len(neurons) < 17
    small, kept = cell.with_blocks(weights, neurons)
    assert {name: array.shape for name, array in kept.items()} == {n: s.shape for n, s in small.tensors().items()}
    expected, after = cell.forward(x, weights, dict(state), {}), dict(state)
    np.testing.assert_allclose(small.forward(x, kept, after, {}), expected, rtol=1e-12)
