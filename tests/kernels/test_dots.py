"""Products of integers against exact ones, and what makes the integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgelm.kernels import dots, fused
from tests import naive
from tests.kernels.arrays import Array, blank, int8, same
from tests.kernels.integers import EPS, STRIPS, D, floats, in_strips, room


def product(x: Array, q: Array, scale: Array, n_rows: int) -> tuple[Array, Array, Array]:
    """The product, and the integers that x was made with their scales."""
    rng, n_runs = np.random.default_rng(1), x.size // 32
    codes, scales = rng.integers(0, 256, x.size).astype(np.uint8), blank(2 * n_runs, dtype=np.float32)
    out = blank(len(x), n_rows, dtype=np.float32)
    dots.integer_product(x, q, scale, codes, scales, blank(16, dtype=np.float32), out)
    made = codes.view(np.int8).reshape(x.shape).astype(np.int64)
    steps, offsets = scales.reshape(*x.shape[:-1], -1, 2).astype(np.float64).transpose(2, 0, 1)
    np.testing.assert_array_equal(offsets, -128 * made.reshape(*offsets.shape, 32).sum(-1))
    return out, made, steps


@pytest.mark.parametrize("n_tokens", [1, 3, 4, 9])
@pytest.mark.parametrize("n_rows", [1, 16, 48, 64, 85])
@pytest.mark.parametrize("width", [32, 96])
@pytest.mark.parametrize("kind", STRIPS)
def test_a_product_of_integers_is_exact(
    rng: np.random.Generator, kind: str, n_tokens: int, n_rows: int, width: int
) -> None:
    q, scale, w = STRIPS[kind](rng, n_rows, width)
    (x,) = floats(rng, (n_tokens, width))
    out, codes, steps = product(x, q, scale, n_rows)
    found, step = naive.codes(x.astype(np.float64))
    assert np.abs(codes - found).max() <= 1, "one only where a number lies between two"
    assert (codes != found).mean() < 0.01
    assert (np.abs(codes).reshape(n_tokens, -1, 32).max(-1) == 127).all()
    np.testing.assert_allclose(steps, step, rtol=1e-6)
    exact = (codes * steps.repeat(32, -1)) @ w.T
    assert (np.abs(out - exact) <= 1e-6 * (np.abs(codes * steps.repeat(32, -1)) @ np.abs(w.T))).all()
    assert np.abs(out - naive.integer_product(x.astype(np.float64), w)).max() <= 0.01 * np.abs(exact).max()


def test_the_largest_integers_do_not_overflow() -> None:
    for numbers in (0, 1, 255):
        q, scale = naive.strips(np.full((16, 64), numbers, np.uint8), np.ones((16, 2), np.float32))
        for sign in (-1, 1):
            x = np.full((4, 64), sign * 127, np.float32)
            out, _, _ = product(x, q, scale, 16)
            np.testing.assert_allclose(out, 64 * sign * 127 * (numbers - 128.0), rtol=1e-6)
    for byte in (0x00, 0x55, 0xAA, 0xFF):
        q, one = np.full((1, 2, 2, 64), byte, np.uint8), np.ones((1, 1, 1), np.float32)
        for sign in (-1, 1):
            out, _, _ = product(np.full((4, 64), sign * 127, np.float32), q, one, 16)
            np.testing.assert_allclose(out, 64 * sign * 127 * (byte % 4 - 2.0), rtol=1e-6)


@pytest.mark.parametrize("kind", STRIPS)
def test_a_tokens_product_does_not_depend_on_the_others(rng: np.random.Generator, kind: str) -> None:
    q, scale, _ = STRIPS[kind](rng, 85, 96)
    (x,) = floats(rng, (9, 96))
    together, _, _ = product(x, q, scale, 85)
    alone = [product(x[t : t + 1], q, scale, 85)[0][0] for t in range(9)]
    assert (together == np.stack(alone)).all()


@pytest.mark.parametrize("n_tokens", [1, 5])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", STRIPS)
def test_what_is_not_finite_does_not_become_a_number(
    rng: np.random.Generator, kind: str, n_tokens: int, bad: float
) -> None:
    q, scale, _ = STRIPS[kind](rng, 48, 96)
    for place in (0, 31, 40, 95):
        (x,) = floats(rng, (n_tokens, 96))
        x[n_tokens - 1, place] = bad
        with np.errstate(all="ignore"):
            out = product_alone(x, q, scale, 48)
        assert not np.isfinite(out[-1]).any()
        assert np.isfinite(out[:-1]).all()


def product_alone(x: Array, q: Array, scale: Array, n_rows: int) -> Array:
    out, codes = blank(len(x), n_rows, dtype=np.float32), np.zeros(x.size, np.uint8)
    dots.integer_product(x, q, scale, codes, blank(x.size // 16, dtype=np.float32), blank(16, dtype=np.float32), out)
    return out


def product_back(y: Array, q: Array, scale: Array, width: int) -> Array:
    """The product with the transpose, in memory that was never written."""
    n, out = len(y), blank(len(y), width, dtype=np.float32)
    codes, scales = np.full(256 * n, 7, np.uint8), blank(16 * n, dtype=np.float32)
    turned, of_turned = np.full((2, 8, 8, 64), 7, np.uint8), blank(2, 8, 16, dtype=np.float32)
    dots.integer_product_back(y, q, scale, codes, scales, turned, of_turned, blank(32, dtype=np.float32), out)
    return out


@pytest.mark.parametrize("n_tokens", [1, 4, 7])
@pytest.mark.parametrize("n_rows", [1, 16, 32, 85, 256, 300])
@pytest.mark.parametrize("width", [32, 96])
def test_a_product_with_the_transpose(rng: np.random.Generator, n_tokens: int, n_rows: int, width: int) -> None:
    q, scale, w = int8(rng, n_rows, width)
    q[0], scale[0] = 1, 0.02  # all else has a smaller scale
    (y,) = floats(rng, (n_tokens, n_rows))
    out = product_back(y, *naive.strips(q, scale), width)
    expected = naive.integer_product_back(y.astype(np.float64), q, scale)
    size = np.abs(y) @ np.abs(w)
    # A number that lies between two integers may become either, of y and of the matrix.
    assert np.median(np.abs(out - expected) / size) < 1e-6
    assert (np.abs(out - expected) <= 0.02 * size).all()
    exact = y @ ((q - 128.0) * scale.repeat(32, -1))
    assert np.sqrt(np.mean((out - exact) ** 2)) <= 0.02 * np.sqrt(np.mean(size**2))


def test_the_transpose_of_rows_without_a_scale_is_nothing(rng: np.random.Generator) -> None:
    q, scale, _ = int8(rng, 64, 32)
    scale[:32] = 0
    (y,) = floats(rng, (4, 64))
    alone = product_back(y, *naive.strips(q, scale), 32)
    y[:, :32] = 1e9
    np.testing.assert_array_equal(product_back(y, *naive.strips(q, scale), 32), alone)
    scale[:] = 0
    assert not product_back(y, *naive.strips(q, scale), 32).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_carried_back(rng: np.random.Generator, bad: float) -> None:
    q, scale, _ = in_strips(rng, 85, 64)
    for place in (0, 63, 84):
        (y,) = floats(rng, (5, 85))
        y[3, place] = bad
        with np.errstate(all="ignore"):
            out = product_back(y, q, scale, 64)
        assert not np.isfinite(out[3]).any() and np.isfinite(np.delete(out, 3, 0)).all()


def test_zeros_are_zeros(rng: np.random.Generator) -> None:
    q, scale, _ = in_strips(rng, 48, 96)
    x = np.zeros((2, 96), np.float32)
    x[1, :32] = 1e-36  # less than the least step
    assert (product_alone(x[:1], q, scale, 48) == 0).all()
    assert np.abs(product_alone(x, q, scale, 48)).max() < 1e-30


@pytest.mark.parametrize("n_rows", [1, 16, 37])
def test_strips(rng: np.random.Generator, n_rows: int) -> None:
    q, scale, _ = int8(rng, n_rows, 96)
    expected_q, expected_scale = naive.strips(q, scale)
    made_q, made_scale = np.full(expected_q.shape, 128, np.uint8), np.zeros(expected_scale.shape, np.float32)
    dots.strips(q.view(np.int32), scale, made_q.view(np.int32), made_scale)
    np.testing.assert_array_equal(made_q, expected_q)
    np.testing.assert_array_equal(made_scale, expected_scale)


def test_quantize_strips(rng: np.random.Generator) -> None:
    (weight,) = floats(rng, (4, 48, 64))
    weight[1, 3, :32], weight[2, 5, 32:] = 0, 1e-9
    used = np.array([True, True, False, True])
    before = rng.integers(0, 256, (4, 3, 2, 8, 64)).astype(np.uint8), floats(rng, (4, 3, 2, 16))[0]
    made = before[0].copy(), before[1].copy()
    codes = rng.integers(0, 256, (48, 64)).astype(np.uint8)
    dots.quantize_strips(weight, used, codes, codes.view(np.int32), made[0].view(np.int32), made[1])
    for i in range(4):
        q, scale = naive.codes(weight[i].astype(np.float64), 6e-8)
        expected = (
            naive.strips((q + 128).astype(np.uint8), scale.astype(np.float32)) if used[i] else [b[i] for b in before]
        )
        difference = made[0][i].astype(int) - expected[0]
        assert np.abs(difference).max() <= 1 and (difference != 0).mean() < 0.01
        np.testing.assert_allclose(made[1][i], expected[1], rtol=1e-6)


def test_embed(rng: np.random.Generator) -> None:
    q, scale, w = in_strips(rng, 37, D)
    ids, x = rng.integers(0, 37, 9), blank(9, D, dtype=np.float32)
    fused.embed(ids, q, scale, x)
    same(x, w[ids])


def test_embed_rows(rng: np.random.Generator) -> None:
    q, scale, w = int8(rng, 37, D)
    ids, x = rng.integers(0, 37, 9), blank(9, D, dtype=np.float32)
    fused.embed_rows(ids, q, scale, x)
    same(x, w[ids])


@pytest.mark.parametrize("first", [0, 2, 8])
def test_head(rng: np.random.Generator, first: int) -> None:
    q, scale, w = in_strips(rng, 37, D)
    x, gain = floats(rng, (9, D), (D,))
    logits = blank(9 - first, 37, dtype=np.float32)
    fused.head(x, first, gain, EPS, q, scale, room(rng, 9, D), logits)
    near(logits, naive.head(x[first:].astype(np.float64), gain, float(EPS), w))


def test_no_logits_are_made_where_none_is_wanted(rng: np.random.Generator) -> None:
    q, scale, _ = in_strips(rng, 37, D)
    x, gain = floats(rng, (3, D), (D,))
    fused.head(x, 3, gain, EPS, q, scale, room(rng, 3, D), blank(0, 37, dtype=np.float32))


def near(found: Any, expected: Array) -> None:
    """Equal but for activations that lie between two integers, and may be rounded to either."""
    error = np.abs(found - expected) / np.abs(expected).max()
    assert found.shape == expected.shape
    assert np.median(error) <= 2e-6
    assert error.max() <= 5e-3
