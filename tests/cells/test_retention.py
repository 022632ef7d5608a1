"""Retention has three forms, and they are one: token by token, all tokens at once, and chunk by chunk."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgelm.cells.cell import Array, Parts
from edgelm.cells.retention.paper import Retention, head_norm, retain
from edgelm.cells.retention.passes import Pass
from edgelm.matrices.matrix import workspace_size

STEPS = 96


@pytest.fixture
def cell() -> Retention:
    return Retention(12, 1e-5, n_heads=3, key_dim=5, value_dim=7)


def parts(cell: Retention) -> tuple[Array, Array, Array]:
    """q, k [T,H,K] and v [T,H,V]."""
    rng = np.random.default_rng(0)
    shapes = [(STEPS, cell.n_heads, width) for width in (cell.key_dim, cell.key_dim, cell.value_dim)]
    q, k, v = (rng.standard_normal(shape) for shape in shapes)
    return q, k, v


def parallel(q: Array, k: Array, v: Array, gamma: Array) -> Array:
    """o [T,H,V] of tokens that come first: (q k' / sqrt(K) * D) v for each head, D being gamma^(t-i) where i <= t."""
    out = np.empty_like(v)
    for h, share in enumerate(gamma):
        d = np.array([[share ** (t - i) if i <= t else 0.0 for i in range(len(q))] for t in range(len(q))])
        out[:, h] = (q[:, h] @ k[:, h].T / np.sqrt(q.shape[-1]) * d) @ v[:, h]
    return out


def none(cell: Retention) -> Array:
    return np.zeros((cell.n_heads, cell.key_dim, cell.value_dim))


def test_the_decays_are_those_of_the_source(cell: Retention) -> None:
    assert cell.decays().tolist() == [1 - 1 / 32, 1 - 1 / 64, 1 - 1 / 128]


def test_token_by_token_is_all_at_once(cell: Retention) -> None:
    q, k, v = parts(cell)
    found, _ = retain(q, k, v, cell.decays(), none(cell))
    np.testing.assert_allclose(found, parallel(q, k, v, cell.decays()), rtol=1e-12, atol=1e-12)


def by_chunks(cell: Retention, weights: Parts, x: Array, lengths: list[int]) -> tuple[Array, Array, Array]:
    """What the passes give for segments of these lengths, o before the norm of heads among it, and the memory after."""
    most = max(lengths)
    room = max(workspace_size(most, weights[name].shape) for name in ("w_in", "w_out"))
    made: Any = Pass(cell, weights, {}, most, {"workspace": np.full(room, np.nan)})
    state, y, o = {"memory": none(cell)[None]}, np.zeros_like(x), np.empty((len(x), cell.values))
    for end, length in zip(np.cumsum(lengths), lengths, strict=True):
        part = slice(end - length, end)
        made.forward(x[part], y[part], state, {})
        o[part] = made.b["o"]
    return y, o.reshape(len(x), cell.n_heads, -1), state["memory"][0]


@pytest.mark.once  # in float64
@pytest.mark.parametrize("lengths", [[STEPS], [1] * STEPS, [32, 32, 32], [5, 1, 60, 30]])
def test_chunk_by_chunk_is_token_by_token(cell: Retention, lengths: list[int]) -> None:
    rng = np.random.default_rng(1)
    weights = {
        name: spec.mean + (spec.spread or spec.shape[0] ** -0.5) * rng.standard_normal(spec.shape)
        for name, spec in cell.tensors().items()
    }
    x, state = rng.standard_normal((STEPS, cell.d_model)), {"memory": none(cell)[None]}
    y, o, memory = by_chunks(cell, weights, x, lengths)
    expected = cell.forward(x, weights, state, {})
    np.testing.assert_allclose(y, expected, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(memory, state["memory"][0], rtol=1e-11, atol=1e-11)
    # What the passes normed is the parallel form, less the mean of its head.
    h = x / np.sqrt(np.mean(x * x, -1, keepdims=True) + cell.norm_eps) * weights["norm"]
    q, k, v, _ = np.split(h @ weights["w_in"], np.cumsum([cell.keys, cell.keys, cell.values]), -1)
    once = parallel(*(part.reshape(STEPS, cell.n_heads, -1) for part in (q, k, v)), cell.decays())
    np.testing.assert_allclose(o, once - once.mean(-1, keepdims=True), rtol=1e-11, atol=1e-11)


def test_a_factor_of_a_head_does_not_count(cell: Retention) -> None:
    """So the source may divide by what keeps numbers small, and the paper here need not."""
    o = np.random.default_rng(2).standard_normal((4, cell.n_heads, cell.value_dim))
    normed = head_norm(o, 0.0)
    np.testing.assert_allclose(head_norm(17 * o, 0.0), normed, rtol=1e-12)
    np.testing.assert_allclose(normed.mean(-1), 0, atol=1e-12)
    np.testing.assert_allclose(normed.var(-1), 1, rtol=1e-12)
