"""What every way to hold a matrix must keep to: its products are those of its numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from edgelm.kernels import blocks as kernels
from edgelm.matrices.blocks import BlockStack, as_blocks
from edgelm.matrices.changed import ChangedRows
from edgelm.matrices.integer_products import IntegerProducts
from edgelm.matrices.matrix import Float32, Int8, Matrix, as_matrix, workspace_size
from edgelm.matrices.quantize import to_int8
from edgelm.matrices.strips import Strips
from edgelm.matrices.ternary import Ternary
from tests import naive

Array = np.ndarray
Made = tuple[Matrix, Array]


def _int8(numbers: Array) -> Int8:
    q, scale = to_int8(numbers)
    return Int8(q.view(np.uint8) ^ np.uint8(128), scale.astype(np.float32))


def _floats(n_in: int, n_out: int) -> Made:
    w = np.random.default_rng(0).standard_normal((n_in, n_out)).astype(np.float32)
    return as_matrix(w, 0), w


def _floats_turned(n_in: int, n_out: int) -> Made:
    w = np.random.default_rng(0).standard_normal((n_out, n_in)).astype(np.float32)
    return as_matrix(w, -1), w.T


def _integers(n_in: int, n_out: int) -> Made:
    w = _int8(np.random.default_rng(0).standard_normal((n_out, n_in)).astype(np.float32))
    return as_matrix(w, 0), np.asarray(w).T


def _products(n_in: int, n_out: int) -> Made:
    w = _int8(np.random.default_rng(0).standard_normal((n_out, n_in)).astype(np.float32))
    return as_matrix(IntegerProducts(Strips.of(w.q, w.scale)), 0), np.asarray(w).T


def _changed(n_in: int, n_out: int) -> Made:
    rng = np.random.default_rng(0)
    w = ChangedRows(_int8(rng.standard_normal((n_out, n_in)).astype(np.float32)))
    w.set_change((0.1 * rng.standard_normal((n_out, n_in))).astype(np.float16))
    return as_matrix(w, 0), np.asarray(w).T


def _ternary(n_in: int, n_out: int) -> Made:
    w = Ternary.of(np.random.default_rng(0).standard_normal((n_out, n_in)).astype(np.float32))
    return as_matrix(w, 0), np.asarray(w).T


KINDS: dict[str, Callable[[int, int], Made]] = {
    "float32": _floats, "float32, transposed": _floats_turned, "int8": _integers, "ternary": _ternary,
    "int8 with a change": _changed, "products of integers": _products,
}  # fmt: skip
SIZES = [(32, 5), (64, 33), (96, 64)]


def run(product: Callable[..., Array], x: Array, sizes: tuple[int, int], n_out: int) -> Array:
    """A product into memory that was never written."""
    out = np.full((len(x), n_out), np.nan, np.float32)
    assert product(x, np.full(workspace_size(len(x), sizes), np.nan, np.float32), out) is out
    return out


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("n_steps", [1, 4, 19])
@pytest.mark.parametrize("kind", KINDS)
def test_products_are_those_of_the_numbers(kind: str, n_steps: int, sizes: tuple[int, int]) -> None:
    matrix, w = KINDS[kind](*sizes)
    x, dy = (np.random.default_rng(i).standard_normal((n_steps, n)).astype(np.float32) for i, n in enumerate(sizes))
    # A product of integers has some 1 % of noise; against its exact twins it is held in tests/kernels/test_dots.py.
    error = 0.02 if isinstance(matrix, IntegerProducts) else 1e-6
    pairs = (matrix.product, x, sizes[1], w), (matrix.product_back, dy, sizes[0], w.T)
    for product, given, n_out, numbers in pairs:
        exact, found = given @ numbers, run(product, given, sizes, n_out)
        assert np.sqrt(np.mean((found - exact) ** 2)) <= error * np.sqrt(np.mean(exact**2))


@pytest.mark.parametrize("kind", KINDS)
def test_rows_and_bytes(kind: str) -> None:
    matrix, w = KINDS[kind](64, 33)
    ids = np.array([3, 0, 32, 3])
    np.testing.assert_array_equal(matrix.rows(ids), w.T[ids])
    assert matrix.dtype == np.float32
    assert np.asarray(matrix).size == w.size
    held = 64 * 48 if isinstance(matrix, IntegerProducts) else w.size  # 33 rows are three strips
    numbers = held + held // 32 * 4
    sizes = {Float32: held * 4, Ternary: held // 4 + 4, ChangedRows: numbers + held * 2}
    assert matrix.nbytes == sizes.get(type(matrix), numbers)


def test_a_changed_number_counts_at_once() -> None:
    w = np.zeros((4, 3), np.float32)
    matrix, x = as_matrix(w, 0), np.ones((1, 4), np.float32)
    before = run(matrix.product, x, (4, 3), 3).copy()
    w += 1
    assert not before.any() and (run(matrix.product, x, (4, 3), 3) == 4).all()


N_BLOCKS, WIDTH, STEPS = 5, 64, 9
SIZES = {"float32": 6, "int8": 6, "ternary": 6, "strips": 32}


def _stack(kind: str) -> tuple[BlockStack, Array]:
    numbers = np.random.default_rng(3).standard_normal((N_BLOCKS, SIZES[kind], WIDTH)).astype(np.float32) / 8
    integers = _int8(numbers)
    strips = Strips.of(integers.q, integers.scale)
    operand = {"float32": numbers, "int8": integers, "ternary": Ternary.of(numbers), "strips": strips}[kind]
    return as_blocks(operand), np.asarray(integers if kind == "strips" else operand)


@pytest.mark.parametrize("kind", SIZES)
def test_stacks_read_the_blocks_that_are_awake(kind: str) -> None:
    (stack, numbers), size = _stack(kind), SIZES[kind]
    rng = np.random.default_rng(4)
    h, a = (rng.standard_normal(shape).astype(np.float32) for shape in ((STEPS, WIDTH), (STEPS, N_BLOCKS)))
    a = np.maximum(a, 0)
    a[:, 2] = 0
    w2 = rng.standard_normal((N_BLOCKS, WIDTH, size)).astype(np.float32) / 3
    starts, tokens = np.zeros(N_BLOCKS + 1, np.int64), np.zeros(a.size, np.int64)
    kernels.group_pairs(a, starts, tokens)
    kept = np.full((2, a.size, size), np.nan, np.float32)
    workspace = np.full(kernels.workspace_size(STEPS, size, WIDTH), np.nan, np.float32)
    y, plain = np.zeros_like(h), np.full((size, WIDTH), np.nan, np.float32)
    stack.forward(h, a, plain, w2, starts, tokens, *kept, workspace, y)
    np.testing.assert_allclose(y, naive.blocks(h, a, numbers, w2), rtol=1e-4, atol=1e-4)
    awake, out = np.diff(starts) > 0, np.zeros_like(numbers)
    assert not awake[2]
    np.testing.assert_array_equal(stack.current(awake, out)[awake], numbers[awake])


@pytest.mark.parametrize("kind", SIZES)
def test_stacks_carry_gradients_back_and_pull(kind: str) -> None:
    (stack, numbers), size = _stack(kind), SIZES[kind]
    plain = as_blocks(numbers)
    rng = np.random.default_rng(5)
    dy, a = (rng.standard_normal(shape).astype(np.float32) for shape in ((STEPS, size), (STEPS, N_BLOCKS)))
    a = np.maximum(a, 0)
    starts, tokens = np.zeros(N_BLOCKS + 1, np.int64), np.zeros(a.size, np.int64)
    kernels.group_pairs(a, starts, tokens)
    hidden = rng.standard_normal((a.size, WIDTH)).astype(np.float32)
    rate, found = np.full(N_BLOCKS, 0.1, np.float32), []
    for held in (stack, plain):
        w2 = np.ones((N_BLOCKS, size * WIDTH), np.float32)
        workspace = np.full(kernels.workspace_size(STEPS, WIDTH, size), np.nan, np.float32)
        held.pull(dy, a, starts, tokens, hidden, rate, np.float32(0.2), workspace, w2)
        found.append(w2)
    np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-5)
    assert (found[0] != 1).any()
    dy, w2 = dy @ rng.standard_normal((size, WIDTH)).astype(np.float32), rng.standard_normal((N_BLOCKS, WIDTH, size))
    slope, hidden = (rng.standard_normal((a.size, size)).astype(np.float32) for _ in range(2))
    found = []
    for held in (stack, plain):
        da, dh = np.full_like(a, np.nan), np.zeros((STEPS, WIDTH), np.float32)
        workspace = np.full(kernels.workspace_size(STEPS, size, WIDTH), np.nan, np.float32)
        kept = slope.copy(), hidden.copy()
        held.backward(dy, a, w2.astype(np.float32), starts, tokens, *kept, workspace, da, dh)
        found.append(dh)
    np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-4)
    assert found[0].any()
