"""Neurons with squared ReLU against slow twins and differences of these; what sleeps is neither read nor changed."""

from __future__ import annotations

import numpy as np
import pytest

from edgelm.kernels import neurons
from tests import naive
from tests.kernels.arrays import Array, blank, int8, many, same
from tests.naive import gradient

ASLEEP = [0, 3, 6]
"""Neurons that no token wakes, of seven; of the others each sleeps for some tokens, but for the last awake."""
RATE, PULL = 0.2, 0.01


def activations(rng: np.random.Generator, steps: int, dtype: type = np.float64) -> tuple[Array, Array]:
    """a [T,7], and which neurons are awake."""
    (u,) = many(rng, (steps, 7))
    u[:, ASLEEP], u[0, 1], u[-1, 2], u[:, 5] = -1, -2, 2, abs(u[:, 5]) + 1
    _, a, awake = naive.squared_relu(u)
    assert not awake[ASLEEP].any()
    return a.astype(dtype), awake


def of_rows(dy: Array, a: Array, width: int) -> Array:
    """The gradient of what neurons write by differences, [7,D] float64."""
    w = np.zeros((7, width))
    return gradient(lambda: np.sum(dy * naive.written(a.astype(np.float64), w)), w)


@pytest.mark.parametrize("steps", [1, 2, 9])
@pytest.mark.parametrize("width", [1, 7, 64])
def test_squared_relu(rng: np.random.Generator, dtype: type, steps: int, width: int) -> None:
    (before,) = many(rng, (steps, width), dtype=dtype)
    before[:, ::3] = -np.abs(before[:, ::3])
    before[0, 0] = 0
    u, a, awake = before.copy(), blank(steps, width, dtype=dtype), np.arange(width) % 2 == 0
    neurons.squared_relu(u, a, awake)
    above, squares, woken = naive.squared_relu(before)
    same(u, above)
    same(a, squares)
    np.testing.assert_array_equal(awake, woken)


def test_squared_relu_of_no_number_is_none(dtype: type) -> None:
    u, a = np.array([[np.nan, 1.0]], dtype), blank(1, 2, dtype=dtype)
    neurons.squared_relu(u, a, np.zeros(2, bool))
    np.testing.assert_array_equal(a, [[np.nan, 1]])


@pytest.mark.parametrize("steps", [1, 2, 9])
@pytest.mark.parametrize("width", [1, 5, 48, 64])
def test_rows_gradient(rng: np.random.Generator, dtype: type, steps: int, width: int) -> None:
    a, awake = activations(rng, steps, dtype)
    (dy,) = many(rng, (steps, width), dtype=dtype)
    grad = blank(7, width, dtype=dtype)
    neurons.rows_gradient(dy, a, awake, blank(neurons.room(steps, width), dtype=dtype), grad)
    same(grad[awake], of_rows(dy, a, width)[awake])
    assert np.isnan(grad[~awake]).all()


@pytest.mark.parametrize("steps", [1, 2, 9])
@pytest.mark.parametrize("width", [1, 5, 48, 64])
def test_rows_squares(rng: np.random.Generator, dtype: type, steps: int, width: int) -> None:
    a, awake = activations(rng, steps, dtype)
    (dy,) = many(rng, (steps, width), dtype=dtype)
    squares = blank(7)
    neurons.rows_squares(dy, a, awake, blank(neurons.room(steps, width), dtype=dtype), squares)
    expected = np.sum(of_rows(dy, a, width) ** 2, 1)
    np.testing.assert_allclose(squares[awake], expected[awake], rtol=1e-5 if dtype is np.float32 else 1e-8)
    assert np.isnan(squares[~awake]).all()


@pytest.mark.parametrize("steps", [1, 2, 9])
@pytest.mark.parametrize("width", [1, 5, 48, 64])
def test_rows_step(rng: np.random.Generator, dtype: type, steps: int, width: int) -> None:
    a, awake = activations(rng, steps, dtype)
    dy, base, before = many(rng, (steps, width), (7, width), (7, width), dtype=dtype)
    rates = RATE * rng.uniform(0.5, 1, 7).astype(dtype)
    base[~awake] = np.nan
    w = before.copy()
    neurons.rows_step(dy, a, awake, base, rates, dtype(PULL), blank(neurons.room(steps, width), dtype=dtype), w)
    expected = naive.pulled_step(of_rows(dy, a, width), base, rates[:, None], PULL, before)
    same(w[awake], expected[awake])
    np.testing.assert_array_equal(w[~awake], before[~awake])


@pytest.mark.parametrize("steps", [1, 2, 9])
@pytest.mark.parametrize("width", [32, 64, 96])
def test_rows_step_of_integers(rng: np.random.Generator, steps: int, width: int) -> None:
    a, awake = activations(rng, steps, np.float32)
    dy, before = many(rng, (steps, width), (7, width), dtype=np.float32)
    rates = (RATE * rng.uniform(0.5, 1, 7)).astype(np.float32)
    q, scale, base = int8(rng, 7, width)
    scale[~awake] = np.nan
    w, of_numbers = before.copy(), before.copy()
    rest = rates, np.float32(PULL)
    neurons.rows_step_int8(dy, a, awake, q, scale, *rest, blank(neurons.room(steps, width), dtype=np.float32), w)
    expected = naive.pulled_step(of_rows(dy, a, width), base, rates[:, None], PULL, before)
    same(w[awake], expected[awake])
    np.testing.assert_array_equal(w[~awake], before[~awake])
    numbers = (q.astype(np.float32) - np.float32(128)) * scale.repeat(32, -1)
    neurons.rows_step(dy, a, awake, numbers, *rest, blank(neurons.room(steps, width), dtype=np.float32), of_numbers)
    np.testing.assert_array_equal(w, of_numbers)


def halves(numbers: Array) -> Array:
    """The bits of numbers, rounded to 16."""
    with np.errstate(over="ignore"):
        return numbers.astype(np.float16).view(np.uint16)


def floats(bits: Array) -> Array:
    """The numbers of such bits, as float64."""
    return bits.view(np.float16).astype(np.float64)


@pytest.mark.parametrize("steps", [1, 2, 9])
@pytest.mark.parametrize("width", [1, 5, 48, 64])
def test_rows_step_halves(rng: np.random.Generator, steps: int, width: int) -> None:
    a, awake = activations(rng, steps, np.float32)
    (dy,) = many(rng, (steps, width), dtype=np.float32)
    rates = (RATE * rng.uniform(0.5, 1, 7)).astype(np.float32)
    before = halves(rng.standard_normal((7, width)))
    change, rows = before.copy(), blank(neurons.room(steps, width), dtype=np.float32)
    neurons.rows_step_halves(dy, a, awake, rates, np.float32(PULL), rows, change)
    grad = of_rows(dy, a, width)
    expected = naive.pulled_step(grad, np.zeros((7, width)), rates[:, None], PULL, floats(before))
    np.testing.assert_allclose(floats(change)[awake], expected[awake], rtol=2**-11 + 1e-6, atol=1e-5)
    np.testing.assert_array_equal(change[~awake], before[~awake])


def narrowed(numbers: Array) -> Array:
    """What the kernel rounds float32 [N] to: a step of 1 from nothing."""
    change, rows = np.zeros((1, len(numbers)), np.uint16), blank(neurons.room(1, len(numbers)), dtype=np.float32)
    one, rest = np.ones(1, np.float32), (np.float32(0), rows)
    neurons.rows_step_halves(numbers[None], one[None], np.ones(1, bool), -one, *rest, change)
    return change[0]


def test_numbers_become_the_nearest_of_16_bits(rng: np.random.Generator) -> None:
    numbers = rng.standard_normal(4000) * 10.0 ** rng.uniform(-9, 5.5, 4000)
    edges = [0, 1, 65504, 65519, 65520, 1e9, np.inf, 2.0**-14, 2.0**-14 - 2.0**-26, 2.0**-24, 2.9e-8]
    given = np.concatenate([numbers, edges, np.negative(edges[1:])]).astype(np.float32)
    np.testing.assert_array_equal(narrowed(given), halves(given))
    assert np.isnan(narrowed(np.array([np.nan], np.float32)).view(np.float16)).all()


def test_every_number_of_16_bits_is_read(rng: np.random.Generator) -> None:
    bits = np.arange(1 << 16).astype(np.uint16).reshape(64, 1024)
    q, scale = np.full(bits.shape, 128, np.uint8), np.ones((64, 32), np.float32)
    out, ids = blank(64, 1024, dtype=np.float32), rng.permutation(64)
    with np.errstate(invalid="ignore"):  # of what is no number
        neurons.changed_rows(q, scale, bits, ids, out)
    np.testing.assert_array_equal(out, bits.view(np.float16).astype(np.float32)[ids])


@pytest.mark.parametrize("width", [32, 64, 96])
def test_changed_rows(rng: np.random.Generator, width: int) -> None:
    q, scale, w = int8(rng, 7, width)
    change = halves(0.01 * rng.standard_normal((7, width)))
    out, ids = blank(4, width, dtype=np.float32), np.array([6, 0, 3, 0])
    neurons.changed_rows(q, scale, change, ids, out)
    same(out, naive.written(np.eye(7), w + floats(change))[ids])


@pytest.mark.parametrize("steps", [1, 2])
def test_nothing_happens_while_all_sleep(rng: np.random.Generator, steps: int) -> None:
    a, awake, rows = (
        np.zeros((steps, 7), np.float32),
        np.zeros(7, bool),
        blank(neurons.room(steps, 32), dtype=np.float32),
    )
    dy, before = many(rng, (steps, 32), (7, 32), dtype=np.float32)
    q, scale, _ = int8(rng, 7, 32)
    w, rest = before.copy(), (np.full(7, np.float32(RATE)), np.float32(PULL), rows)
    neurons.rows_step(dy, a, awake, np.zeros_like(w), *rest, w)
    neurons.rows_step_int8(dy, a, awake, q, scale, *rest, w)
    np.testing.assert_array_equal(w, before)
    change = halves(before)
    neurons.rows_step_halves(dy, a, awake, *rest, change)
    np.testing.assert_array_equal(change, halves(before))
