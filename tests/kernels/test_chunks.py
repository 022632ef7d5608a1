"""The gated delta rule in chunks does what it does token by token, both ways."""

from __future__ import annotations

import numpy as np
import pytest

from edgelm.kernels import chunks, decay
from tests import naive
from tests.kernels.arrays import Array, blank, many, same

HEADS, SIZES = 2, [(32, 64), (64, 32)]


def inputs_of(rng: np.random.Generator, steps: int, keys: int, values: int, dtype: type) -> list[Array]:
    """q, k, v, g, beta and a state that is not empty."""
    q, k = many(rng, *[(steps, HEADS, keys)] * 2)
    q, k = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (q, k))
    v, state = many(rng, (steps, HEADS, values), (HEADS, keys, values))
    g, beta = -rng.uniform(0, 1, (steps, HEADS)), rng.uniform(0, 1, (steps, HEADS))
    return [x.astype(dtype) for x in (q, k, v, g, beta, state)]


def forward(inputs: list[Array], state: Array) -> tuple[Array, Array]:
    """Output and checkpoints; ``state`` moves on."""
    q, k, v, g, beta = inputs
    kind = q.dtype.type
    checkpoints = blank(-(-len(q) // decay.CHUNK), *state.shape, dtype=kind)
    out, x = blank(*v.shape, dtype=kind), blank(chunks.workspace_size(*state.shape[1:]), dtype=kind)
    chunks.chunks_forward((q, k, v), (g, beta), x, checkpoints, state, out)
    return out, checkpoints


@pytest.mark.parametrize(("keys", "values"), SIZES)
@pytest.mark.parametrize("steps", [1, 15, 16, 17, 33])
def test_forward(rng: np.random.Generator, dtype: type, steps: int, keys: int, values: int) -> None:
    *inputs, before = inputs_of(rng, steps, keys, values, dtype)
    state = before.copy()
    out, checkpoints = forward(inputs, state)
    expected, memory = naive.decay(*inputs, before)
    same(out, expected)
    same(state, memory)
    for i, checkpoint in enumerate(checkpoints):
        same(checkpoint, naive.decay(*(x[: i * decay.CHUNK] for x in inputs), before)[1])


@pytest.mark.parametrize(("keys", "values"), SIZES)
@pytest.mark.parametrize("steps", [1, 15, 16, 17, 33])
def test_backward(rng: np.random.Generator, dtype: type, steps: int, keys: int, values: int) -> None:
    *inputs, state = inputs_of(rng, steps, keys, values, dtype)
    dout, after = many(rng, inputs[2].shape, state.shape, dtype=dtype)
    state_before = state.copy()
    checkpoints = forward(inputs, state)[1]
    expected, dstate = [blank(*x.shape, dtype=dtype) for x in inputs], after.copy()
    scratch = blank(decay.CHUNK + 3, keys, values, dtype=dtype)
    decay.decay_backward(dout, *inputs, checkpoints, scratch, dstate, *expected)
    q, k, v, g, beta = inputs
    found, moved = [blank(*x.shape, dtype=dtype) for x in inputs], after.copy()
    x = blank(chunks.workspace_size(keys, values), dtype=dtype)
    chunks.chunks_backward(
        dout, (q, k, v), (g, beta), checkpoints, x, moved, (found[0], found[1], found[2]), (found[3], found[4])
    )
    for part, right in zip([*found, moved], [*expected, dstate], strict=True):
        same(part / np.abs(right).max(), right / np.abs(right).max())
    if dtype == np.float64:
        check_by_difference(rng, [*inputs, state_before], dout, after, [*found, moved])


def check_by_difference(
    rng: np.random.Generator, inputs: list[Array], dout: Array, after: Array, gradients: list[Array]
) -> None:
    """Each gradient along a random line, by a difference of the slow twin."""

    def total(position: int, step: Array) -> float:
        moved = [x + step if i == position else x for i, x in enumerate(inputs)]
        out, memory = naive.decay(*moved)
        return np.sum(dout * out) + np.sum(after * memory)

    for position, gradient in enumerate(gradients):
        line = 1e-6 * rng.standard_normal(gradient.shape)
        difference = (total(position, line) - total(position, -line)) / 2
        np.testing.assert_allclose(np.sum(gradient * line), difference, rtol=1e-4, atol=1e-11)


@pytest.mark.parametrize(("keys", "values", "fits"), [(64, 32, True), (48, 64, False), (64, 8, False)])
def test_heads_that_fit(keys: int, values: int, fits: bool) -> None:
    assert chunks.fits(keys, values) == fits
