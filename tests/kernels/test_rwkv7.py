"""RWKV-7's kernels against slow twins of its equations (forward) and differences of the twins (backward)."""

from __future__ import annotations

import numpy as np
import pytest

from edgelm.kernels import shift, wkv
from tests import naive
from tests.kernels.arrays import EPS, Array, blank, in_double, many, same
from tests.naive import gradient

SIZES = [(1, 1), (2, 3), (3, 8), (2, 16)]
"""Heads and features of one."""
LEAST = 1e-12


@pytest.mark.parametrize("steps", [1, 6])
@pytest.mark.parametrize("width", [1, 5, 32])
def test_layer_forward(rng: np.random.Generator, dtype: type, steps: int, width: int) -> None:
    x, gain, bias = many(rng, (steps, width), (width,), (width,), dtype=dtype)
    inverse, plain, out = blank(steps, dtype=dtype), *blank(2, steps, width, dtype=dtype)
    shift.layer_forward(x, gain, bias, dtype(EPS), inverse, plain, out)
    same(out, naive.layer_norm(x, gain, bias, EPS))
    same(plain, naive.layer_norm(x, np.ones(width), np.zeros(width), EPS))
    same(inverse, (np.var(x, 1) + EPS) ** -0.5)


@in_double
@pytest.mark.parametrize("steps", [1, 6])
@pytest.mark.parametrize("width", [1, 5, 32])
def test_layer_backward(rng: np.random.Generator, steps: int, width: int) -> None:
    dout, x, gain, bias = many(rng, (steps, width), (steps, width), (width,), (width,))
    before = many(rng, (steps, width), (width,), (width,))
    plain, inverse = naive.layer_norm(x, np.ones(width), np.zeros(width), EPS), (np.var(x, 1) + EPS) ** -0.5
    found = [start.copy() for start in before]
    shift.layer_backward(dout, plain, gain, inverse, *found)
    for made, start, given in zip(found, before, (x, gain, bias), strict=True):
        same(made, start + gradient(lambda: np.sum(dout * naive.layer_norm(x, gain, bias, EPS)), given))


@pytest.mark.parametrize("steps", [1, 2, 6])
@pytest.mark.parametrize("width", [1, 5, 32])
def test_mix_forward(rng: np.random.Generator, dtype: type, steps: int, width: int) -> None:
    h, before, share = many(rng, (steps, width), (width,), (width,), dtype=dtype)
    out = blank(steps, width, dtype=dtype)
    shift.mix_forward(h, before, share, out)
    same(out, naive.mix(h, before, share))


@in_double
@pytest.mark.parametrize("steps", [1, 2, 6])
@pytest.mark.parametrize("width", [1, 5, 32])
def test_mix_backward(rng: np.random.Generator, steps: int, width: int) -> None:
    dout, h, before, share = many(rng, (steps, width), (steps, width), (width,), (width,))
    started = many(rng, (steps, width), (width,))
    found = [start.copy() for start in started]
    shift.mix_backward(dout, h, before, share, *found)
    for made, start, given in zip(found, started, (h, share), strict=True):
        same(made, start + gradient(lambda: np.sum(dout * naive.mix(h, before, share)), given))


@pytest.mark.parametrize("steps", [1, 6])
@pytest.mark.parametrize("width", [1, 5, 32])
def test_functions_of_each_number(rng: np.random.Generator, dtype: type, steps: int, width: int) -> None:
    raw, bias = many(rng, (steps, width), (width,), dtype=dtype)
    u, v, out, gate, keep = raw.copy(), raw.copy(), *blank(3, steps, width, dtype=dtype)
    wkv.tanh_forward(u)
    wkv.sigmoid_forward(v)
    wkv.biased_sigmoid(raw, bias, out)
    wkv.decay_forward(raw, bias, dtype(0.6), gate, keep)
    same(u, naive.tanh(raw))
    same(v, naive.sigmoid(raw))
    same(out, naive.sigmoid(bias + raw))
    same(gate, naive.sigmoid(bias + raw))
    same(keep, naive.kept(raw, bias, 0.6))


def test_functions_far_out(dtype: type) -> None:
    raw, none = np.array([[-1000, -50, 50, 1000]], dtype), np.zeros(4, dtype)
    u, v, out, gate, keep = raw.copy(), raw.copy(), *blank(3, 1, 4, dtype=dtype)
    with np.errstate(over="ignore"):
        wkv.tanh_forward(u)
        wkv.sigmoid_forward(v)
        wkv.biased_sigmoid(raw, none, out)
        wkv.decay_forward(raw, none, dtype(0.6), gate, keep)
    same(u, np.array([[-1.0, -1, 1, 1]]))
    for found in (v, out, gate):
        same(found, np.array([[0.0, 0, 1, 1]]))
    same(keep, np.exp([[0.0, 0, -0.6, -0.6]]))


def given_keys(rng: np.random.Generator, steps: int, width: int, dtype: type = np.float64) -> list[Array]:
    """k, a, k_k and k_a."""
    k, k_k, k_a = many(rng, (steps, width), (width,), (width,), dtype=dtype)
    return [k, rng.uniform(0, 1, (steps, width)).astype(dtype), k_k, k_a]


def run_keys(given: list[Array], heads: int) -> tuple[Array, Array, Array]:
    """inverse, kk and the keys that are written."""
    steps, width, dtype = *given[0].shape, given[0].dtype.type
    inverse, kk, written = blank(steps, heads, dtype=dtype), *blank(2, steps, width, dtype=dtype)
    wkv.keys_forward(*given, dtype(LEAST), inverse, kk, written)
    return inverse, kk, written


@pytest.mark.parametrize("steps", [1, 6])
@pytest.mark.parametrize(("heads", "size"), SIZES)
def test_keys_forward(rng: np.random.Generator, dtype: type, steps: int, heads: int, size: int) -> None:
    given = given_keys(rng, steps, heads * size, dtype)
    inverse, kk, written = run_keys(given, heads)
    for found, expected in zip((kk, written), naive.keys(*given, heads, LEAST), strict=True):
        same(found, expected)
    lengths = np.linalg.norm((given[0] * given[2]).reshape(steps, heads, size), axis=-1)
    same(inverse * lengths, np.ones((steps, heads)))


def test_a_key_without_length_removes_nothing(rng: np.random.Generator, dtype: type) -> None:
    given = given_keys(rng, 2, 6, dtype)
    given[0][1, 3:] = 0
    _, kk, written = run_keys(given, 2)
    for found, expected in zip((kk, written), naive.keys(*given, 2, LEAST), strict=True):
        same(found, expected)
    assert (kk[1, 3:] == 0).all()


@in_double
@pytest.mark.parametrize("steps", [1, 6])
@pytest.mark.parametrize(("heads", "size"), SIZES)
def test_keys_backward(rng: np.random.Generator, steps: int, heads: int, size: int) -> None:
    width = heads * size
    given = given_keys(rng, steps, width)
    if size > 1:
        # By differences a short key would not be told as exactly as all else.
        given[2] += np.sign(given[2])
    inverse, kk, _ = run_keys(given, heads)
    dkk, dwritten, before_a, *before = many(rng, *[(steps, width)] * 3, (width,), (width,))
    dk, da, small = blank(steps, width), before_a.copy(), [start.copy() for start in before]
    k, a, k_k, k_a = given
    wkv.keys_backward((dkk.copy(), dwritten.copy()), (k, a), (k_k, k_a), (inverse, kk), (dk, da), tuple(small))

    def total() -> float:
        removed, written = naive.keys(*given, heads, LEAST)
        return np.sum(dkk * removed) + np.sum(dwritten * written)

    same(dk, gradient(total, k))
    same(da, before_a + gradient(total, a))
    for found, start, x in zip(small, before, (k_k, k_a), strict=True):
        same(found, start + gradient(total, x))


def given_memory(rng: np.random.Generator, steps: int, heads: int, size: int, dtype: type) -> tuple[list[Array], Array]:
    """r, keep, k, v, kk and a, and memories that are not empty."""
    r, k, v, kk = many(rng, *[(steps, heads * size)] * 4)
    keep, a = rng.uniform(0.1, 0.9, (2, steps, heads * size))
    of_heads = kk.reshape(steps, heads, size)
    kk = (of_heads / np.linalg.norm(of_heads, axis=-1, keepdims=True)).reshape(kk.shape)
    (memory,) = many(rng, (heads, size, size), dtype=dtype)
    return [x.astype(dtype) for x in (r, keep, k, v, kk, a)], memory


@pytest.mark.parametrize("steps", [1, 2, 9])
@pytest.mark.parametrize(("heads", "size"), [*SIZES, (2, 64)])
def test_wkv_forward(rng: np.random.Generator, dtype: type, steps: int, heads: int, size: int) -> None:
    given, before = given_memory(rng, steps, heads, size, dtype)
    memory, y = before.copy(), blank(steps, heads * size, dtype=dtype)
    wkv.wkv_forward(tuple(given), memory, y)
    expected, after = naive.wkv(given, before)
    same(y, expected)
    same(memory, after)


@pytest.mark.parametrize("cut", [1, 4])
def test_wkv_forward_carries_its_memory(rng: np.random.Generator, dtype: type, cut: int) -> None:
    given, before = given_memory(rng, 9, 2, 3, dtype)
    memory, y = before.copy(), blank(9, 6, dtype=dtype)
    for part in (slice(cut), slice(cut, None)):
        wkv.wkv_forward(tuple(x[part] for x in given), memory, y[part])
    expected, after = naive.wkv(given, before)
    same(y, expected)
    same(memory, after)


@in_double
@pytest.mark.parametrize(("steps", "room"), [(1, 1), (2, 5), (5, 5)])
@pytest.mark.parametrize(("heads", "size"), SIZES)
def test_wkv_backward(rng: np.random.Generator, steps: int, room: int, heads: int, size: int) -> None:
    given, memory = given_memory(rng, steps, heads, size, np.float64)
    (dy,) = many(rng, (steps, heads * size))
    before, found = memory.copy(), [blank(steps, heads * size) for _ in given]
    workspace = blank(room + 1, size, size), blank(room, size), blank(size), blank(size, size)
    wkv.wkv_backward(dy, tuple(given), memory, workspace, tuple(found))
    np.testing.assert_array_equal(memory, before)
    for made, x in zip(found, given, strict=True):
        same(made, gradient(lambda: np.sum(dy * naive.wkv(given, memory)[0]), x))


def given_heads(rng: np.random.Generator, steps: int, heads: int, size: int, dtype: type) -> list[Array]:
    """y, r, k, v and g, gain and bias of the norm, and r_k."""
    width = heads * size
    return many(rng, *[(steps, width)] * 5, (width,), (width,), (heads, size), dtype=dtype)


def run_read(of_heads: list[Array]) -> tuple[tuple[Array, Array, Array], Array]:
    """inverse, y without mean and scale, what the gate is put on; and what is read."""
    y, *given, gain, bias, r_k = of_heads
    dtype = y.dtype.type
    made = blank(len(y), len(r_k), dtype=dtype), blank(*y.shape, dtype=dtype), blank(*y.shape, dtype=dtype)
    mix = blank(*y.shape, dtype=dtype)
    wkv.read_forward(y, tuple(given), (gain, bias, r_k), dtype(EPS), made, mix)
    return made, mix


@pytest.mark.parametrize("steps", [1, 6])
@pytest.mark.parametrize(("heads", "size"), SIZES)
def test_read_forward(rng: np.random.Generator, dtype: type, steps: int, heads: int, size: int) -> None:
    of_heads = given_heads(rng, steps, heads, size, dtype)
    y, *given, gain, bias, r_k = of_heads
    (inverse, plain, before_gate), mix = run_read(of_heads)
    same(mix, naive.read(y, given, gain, bias, r_k, EPS))
    same(before_gate, naive.read(y, [*given[:3], np.ones_like(y)], gain, bias, r_k, EPS))
    ones, zeros = np.ones_like(y), np.zeros_like(y)
    same(plain, naive.read(y, [zeros, zeros, zeros, ones], ones[0], zeros[0], r_k, EPS))
    same(inverse, (np.var(y.reshape(steps, heads, size), -1) + EPS) ** -0.5)


@in_double
@pytest.mark.parametrize("steps", [1, 6])
@pytest.mark.parametrize(("heads", "size"), SIZES)
def test_read_backward(rng: np.random.Generator, steps: int, heads: int, size: int) -> None:
    of_heads = given_heads(rng, steps, heads, size, np.float64)
    y, *given, gain, bias, r_k = of_heads
    made, _ = run_read(of_heads)
    dmix, *before = many(rng, y.shape, gain.shape, bias.shape, r_k.shape)
    found, small = [blank(*y.shape) for _ in range(5)], [start.copy() for start in before]
    wkv.read_backward(dmix, tuple(given), (gain, r_k), made, tuple(found), tuple(small))

    def total() -> float:
        return np.sum(dmix * naive.read(y, given, gain, bias, r_k, EPS))

    for of_one, x in zip(found, (y, *given), strict=True):
        same(of_one, gradient(total, x))
    for of_one, start, x in zip(small, before, (gain, bias, r_k), strict=True):
        same(of_one, start + gradient(total, x))
