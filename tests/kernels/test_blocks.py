"""Router, neuron blocks and their update against slow twins (forward) and differences of the twins (backward)."""

from __future__ import annotations

import numpy as np
import pytest

from edgelm.cells.block_ffn.paper import BlockFfn
from edgelm.kernels import blocks, integers, strip_blocks
from edgelm.matrices.matrix import Int8
from edgelm.matrices.strips import Strips
from tests import naive
from tests.kernels.arrays import EPS, Array, blank, in_double, int8, many, same
from tests.naive import gradient


@pytest.mark.parametrize("max_awake", [1, 3, 6])
def test_route(rng: np.random.Generator, dtype: type, max_awake: int) -> None:
    a0, bias, log_gamma = many(rng, (9, 6), (6,), (6,), dtype=dtype)
    a0[0] = -10  # all asleep
    a1, inverse, a = (blank(*shape, dtype=dtype) for shape in ((9, 6), (9,), (9, 6)))
    blocks.route_forward(a0, bias, log_gamma, max_awake, dtype(EPS), a1, inverse, a)
    same(a, naive.route(a0, bias, log_gamma, max_awake, EPS))
    same(a1, np.maximum(a0 + bias, 0))
    assert (a > 0).sum(1).max() == max_awake and not a[0].any()


def test_route_of_equals_the_last_sleep(dtype: type) -> None:
    a0 = np.array([[1.0, 2, 1, 2, 1], [3, 3, 3, 3, 3], [0, 0, 1, 0, 1]], dtype)
    a1, inverse, a = (blank(*shape, dtype=dtype) for shape in ((3, 5), (3,), (3, 5)))
    blocks.route_forward(a0, np.zeros(5, dtype), np.zeros(5, dtype), 3, 1e-5, a1, inverse, a)
    assert [np.flatnonzero(row).tolist() for row in a] == [[0, 1, 3], [0, 1, 2], [2, 4]]
    cell = BlockFfn(5, 1e-5, n_blocks=5, block_size=1, max_awake=3, shared_size=1)
    # Rows of one length, so that the norm before the router leaves their order as it is.
    w = {"norm": np.ones(5), "router": np.eye(5), "router_bias": np.zeros(5), "log_gamma": np.zeros(5)}
    assert ((cell.activations(a0, w, {}) > 0) == (a > 0)).all()


@in_double
@pytest.mark.parametrize("max_awake", [2, 6])
def test_route_backward(rng: np.random.Generator, max_awake: int) -> None:
    da, a0, bias, log_gamma, before = many(rng, (9, 6), (9, 6), (6,), (6,), (6,))
    a0[0] = -10  # all asleep
    a1, inverse, a = blank(9, 6), blank(9), blank(9, 6)
    blocks.route_forward(a0, bias, log_gamma, max_awake, EPS, a1, inverse, a)
    da[a == 0] = 0

    def total() -> float:
        return np.sum(da * naive.route(a0, bias, log_gamma, max_awake, EPS))

    da0, dlog_gamma = blank(9, 6), before.copy()
    blocks.route_backward(da, a1, log_gamma, inverse, a, da0, dlog_gamma)
    same(da0, gradient(total, a0))
    same(da0.sum(0), gradient(total, bias))
    same(dlog_gamma, before + gradient(total, log_gamma))


WIDTHS = [(5, 3), (19, 6), (37, 18), (32, 32)]
"""D and B of blocks: less than a tile of each, and more, and more than a strip; a whole panel."""


def block_inputs(rng: np.random.Generator, steps: int, width: int, size: int, dtype: type = np.float64) -> list[Array]:
    """h, a, w1, w2 of seven blocks; at most three wake, block 4 never does."""
    h, a0, w1, w2 = many(rng, (steps, width), (steps, 7), (7, size, width), (7, width, size))
    a0[:, 4] = -10
    a = naive.route(a0, np.zeros(7), np.zeros(7), 3, EPS)
    # Sums that do not grow with the width: a derivative by differences has few digits.
    return [x.astype(dtype) for x in (h, a, w1 / np.sqrt(width), w2 / np.sqrt(size))]


def pairs_of(a: Array, size: int) -> list[Array]:
    """starts, tokens, and what is kept of slope and hidden."""
    starts, tokens = np.full(a.shape[1] + 1, -1), np.full(a.size, -1)
    blocks.group_pairs(a, starts, tokens)
    return [starts, tokens, *blank(2, a.size, size, dtype=a.dtype.type)]


def work(h: Array, size: int) -> Array:
    """What the kernels of blocks work in."""
    return blank(blocks.workspace_size(len(h), size, h.shape[1]), dtype=h.dtype.type)


def test_group_pairs(rng: np.random.Generator, dtype: type) -> None:
    a = block_inputs(rng, 9, 5, 3, dtype)[1]
    starts, tokens, _, _ = pairs_of(a, 3)
    expected_starts, expected_tokens = naive.group(a)
    assert starts.tolist() == expected_starts
    assert tokens[: starts[-1]].tolist() == expected_tokens


@pytest.mark.parametrize(("width", "size"), WIDTHS)
@pytest.mark.parametrize("steps", [1, 9])
def test_blocks_forward_reads_no_block_that_sleeps(
    rng: np.random.Generator, dtype: type, steps: int, width: int, size: int
) -> None:
    h, a, w1, w2 = block_inputs(rng, steps, width, size, dtype)
    asleep = ~(a > 0).any(0)
    assert asleep[4]
    w1[asleep] = w2[asleep] = np.nan
    before = rng.standard_normal((steps, width)).astype(dtype)
    y = before.copy()
    blocks.blocks_forward(h, a, w1, w2, *pairs_of(a, size), work(h, size), y)
    same(y, before + naive.blocks(h, a, w1, w2))


@in_double
@pytest.mark.parametrize(("width", "size"), WIDTHS)
@pytest.mark.parametrize("steps", [1, 9])
def test_blocks_backward(rng: np.random.Generator, steps: int, width: int, size: int) -> None:
    h, a, w1, w2 = block_inputs(rng, steps, width, size)
    dy, before = many(rng, (steps, width), (steps, width))
    awake = a > 0
    expected = [gradient(lambda: np.sum(dy * naive.blocks(h, a, w1, w2)), x) for x in (a, h, w1, w2)]
    pairs, asleep = pairs_of(a, size), ~awake.any(0)
    w1[asleep] = w2[asleep] = np.nan
    blocks.blocks_forward(h, a, w1, w2, *pairs, work(h, size), np.zeros_like(h))
    da, dh, dw1, dw2 = blank(*a.shape), before.copy(), blank(*w1.shape), blank(*w2.shape)
    blocks.blocks_backward(dy, a, w1, w2, *pairs, work(h, size), da, dh)
    blocks.blocks_w1_backward(h, *pairs[:3], dw1)
    blocks.blocks_w2_backward(dy, a, *pairs[:2], pairs[3], work(h, size), dw2)
    same(da, np.where(awake, expected[0], 0))
    same(dh, before + expected[1])
    same(dw1[~asleep], expected[2][~asleep])
    same(dw2[~asleep], expected[3][~asleep])
    assert np.isnan(dw1[asleep]).all() and np.isnan(dw2[asleep]).all(), "left as they were"


@pytest.mark.parametrize("size", [6, 32, 64])
@pytest.mark.parametrize("steps", [1, 16, 21])
def test_blocks_of_integers(rng: np.random.Generator, steps: int, size: int) -> None:
    width = 64
    h, a, _, w2 = block_inputs(rng, steps, width, size, np.float32)
    q, scale, w1 = int8(rng, 7, size, width)
    found = []
    of_floats = (blocks.blocks_forward, blocks.blocks_backward, (w1.astype(np.float32),))
    of_integers = (blocks.blocks_forward_int8, blocks.blocks_backward_int8, (q, scale))
    plain = blank(size, width, dtype=np.float32)
    for (forward, backward, given), spare in ((of_integers, [plain]), (of_floats, [])):
        pairs, out = pairs_of(a, size), [blank(*x.shape, dtype=np.float32) for x in (a, h)]
        out[1][:] = 0
        y = np.zeros_like(h)
        forward(h, a, *given, w2, *pairs, *spare, work(h, size), y)
        backward(h, a, *given, w2, *pairs, work(h, size), *out)
        found.append([y, *out])
    same(found[0][0], naive.blocks(h, a, w1, w2))
    for integers_, floats in zip(*found, strict=True):
        np.testing.assert_allclose(integers_, floats, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("steps", [1, 16, 21])
def test_blocks_in_strips_are_those_of_integers_to_the_last_bit(
    rng: np.random.Generator, steps: int, size: int
) -> None:
    width = 64
    h, a, _, w2 = block_inputs(rng, steps, width, size, np.float32)
    q, scale, w1 = int8(rng, 7, size, width)
    strips = Strips.of(q, scale)
    np.testing.assert_array_equal(np.asarray(strips), np.asarray(Int8(q, scale)))
    in_strips = (strip_blocks.blocks_forward_strips, strip_blocks.blocks_backward_strips, strips)
    found = []
    for forward, backward, held in (
        in_strips,
        (blocks.blocks_forward_int8, blocks.blocks_backward_int8, Int8(q, scale)),
    ):
        pairs, out = pairs_of(a, size), [blank(*x.shape, dtype=np.float32) for x in (a, h)]
        out[1][:] = 0
        y, plain = np.zeros_like(h), blank(size, width, dtype=np.float32)
        forward(h, a, held.q, held.scale, w2, *pairs, plain, work(h, size), y)
        backward(h, a, held.q, held.scale, w2, *pairs, work(h, size), *out)
        found.append([y, *out, *pairs])
    same(found[0][0], naive.blocks(h, a, w1, w2))
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("width", "size"), [(19, 32), (64, 32), (32, 64)])
@pytest.mark.parametrize("steps", [1, 9])
def test_blocks_w2_step(rng: np.random.Generator, dtype: type, steps: int, width: int, size: int) -> None:
    h, a, w1, before = block_inputs(rng, steps, width, size, dtype)
    (dy,), rates, pull = many(rng, (steps, width), dtype=dtype), rng.random(7).astype(dtype), dtype(0.01)
    q, scale, _ = int8(rng, 7, width, size)
    # As in files: a product with such a scale is exact.
    scale = scale.astype(np.float16).astype(np.float32)
    base = (q - 128.0) * scale.repeat(32, -1)
    asleep, (starts, tokens, slope, hidden) = ~(a > 0).any(0), pairs_of(a, size)
    blocks.blocks_forward(h, a, w1, before, starts, tokens, slope, hidden, work(h, size), np.zeros_like(h))
    dw2, workspace = blank(*before.shape, dtype=dtype), work(h, size)
    blocks.blocks_w2_backward(dy, a, starts, tokens, hidden, workspace, dw2)
    before[asleep] = np.nan
    scale = scale.astype(dtype)
    widened = (q.astype(dtype) - 128) * scale.repeat(32, -1)
    of_floats = (blocks.blocks_w2_step, (widened.reshape(7, -1),))
    of_integers = (blocks.blocks_w2_step_int8, (q.reshape(7, -1), scale.reshape(7, -1)))
    found = []
    for step, given in (of_floats, of_integers):
        w2 = before.copy()
        step(dy, a, starts, tokens, hidden, *given, rates, pull, workspace, w2.reshape(7, -1))
        same(w2, naive.pulled_step(dw2, base, rates[:, None, None], 0.01, before))
        assert np.isnan(w2[asleep]).all() and not np.isnan(w2[~asleep]).any()
        found.append(w2[~asleep])
    assert (found[0] == found[1]).all(), "to the last bit"


def test_widen_blocks(rng: np.random.Generator) -> None:
    q, scale, w = int8(rng, 4, 3, 64)
    out, used = np.zeros((4, 3, 64), np.float32), np.array([True, False, True, True])
    integers.widen_blocks(q, scale, used, out)
    np.testing.assert_allclose(out, np.where(used[:, None, None], w, 0), rtol=1e-6)
    assert (np.asarray(Int8(q, scale))[used] == out[used]).all(), "to the last bit"


@pytest.mark.parametrize("size", [0, 1e-12, 1e-3, 1, 1e6])
def test_quantize_blocks(rng: np.random.Generator, size: float) -> None:
    weight = (size * rng.standard_normal((4, 6, 32))).astype(np.float32)
    used = np.array([True, False, True, True])
    q, scale = np.full(weight.shape, 7, np.uint8), blank(4, 6, dtype=np.float32)
    integers.quantize_blocks(weight, used, q, scale)
    assert (q[1] == 7).all() and np.isnan(scale[1]).all()
    steps = np.maximum(np.abs(weight[used]).max(-1) / np.float32(127), np.float32(6e-8))
    np.testing.assert_allclose(scale[used], steps, rtol=1e-6)
    off = (q[used].astype(np.float32) - 128) * scale[used][..., None] - weight[used]
    assert (np.abs(off) <= steps[..., None] * 0.501).all()
    assert size < 1e-6 or (np.abs(q[used].astype(int) - 128).max(-1) == 127).all(), "all steps are used"
