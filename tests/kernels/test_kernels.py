"""Every kernel against its slow twin (forward) and against differences of the twin (backward).

What a kernel says it overwrites is NaN beforehand; what it says it adds to is not zero beforehand.
"""

from __future__ import annotations

import numpy as np
import pytest

from edgelm.config import ModelConfig
from edgelm.kernels import blocks, conv, decay, dense, integers, loss, norm, optim, slope
from edgelm.model.packing import Int8Matrix
from edgelm.model.reference import activations
from tests import naive
from tests.naive import gradient

Array = np.ndarray
EPS = 1e-3
"""Large, so that a forgotten epsilon shows."""


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(params=[np.float32, np.float64])
def dtype(request: pytest.FixtureRequest) -> type:
    return request.param


def blank(*shape: int, dtype: type = np.float64) -> Array:
    """Memory that was never written."""
    return np.full(shape, np.nan, dtype)


def same(found: Array, expected: Array) -> None:
    """Equal as far as the dtype of ``found`` can tell; for gradients, as far as differences can."""
    tolerance = 2e-5 if found.dtype == np.float32 else 1e-8
    assert found.shape == np.shape(expected)
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def many(rng: np.random.Generator, *shapes: tuple[int, ...], dtype: type = np.float64) -> list[Array]:
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 9])
def test_conv_forward(rng: np.random.Generator, dtype: type, steps: int) -> None:
    u, taps, last = many(rng, (steps, 5), (4, 5), (3, 5), dtype=dtype)
    out = blank(steps, 5, dtype=dtype)
    conv.conv_forward(u, taps, last, out)
    same(out, naive.conv(u, taps, last))


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 9])
def test_conv_backward(rng: np.random.Generator, steps: int) -> None:
    dout, u, taps, last, before = many(rng, (steps, 5), (steps, 5), (4, 5), (3, 5), (4, 5))
    du, dtaps = blank(steps, 5), before.copy()
    conv.conv_backward(dout, u, taps, last, du, dtaps)
    expected = [gradient(lambda: np.sum(dout * naive.conv(u, taps, last)), x) for x in (u, taps)]
    same(du, expected[0])
    same(dtaps, before + expected[1])


@pytest.mark.parametrize("cut", [1, 7, 12])
def test_slope_forward_carries_its_state(rng: np.random.Generator, dtype: type, cut: int) -> None:
    (v,) = many(rng, (13, 4), dtype=dtype)
    decays = np.array([0.5, 0.9, 0.99, 0.3], dtype)
    first_norm, first_state = np.full(4, 2, dtype), np.full(4, -1, dtype)
    norm_, state = first_norm.copy(), first_state.copy()
    norms, out = blank(13, 4, dtype=dtype), blank(13, 4, dtype=dtype)
    for part in (slice(cut), slice(cut, None)):
        slope.slope_forward(v[part], decays, norm_, state, norms[part], out[part])
    right = naive.slope(v, decays, first_norm, first_state)
    for found, expected in zip((out, norms, norm_, state), right, strict=True):
        same(found, expected)


@pytest.mark.parametrize("steps", [1, 6])
def test_slope_backward(rng: np.random.Generator, steps: int) -> None:
    dout, v, state, after = many(rng, (steps, 4), (steps, 4), (4,), (4,))
    decays, first_norm = np.array([0.5, 0.9, 0.99, 0.3]), np.array([0.0, 1.0, 2.0, 3.0])

    def total() -> float:
        out, _, _, n = naive.slope(v, decays, first_norm, state)
        return np.sum(dout * out) + np.sum(after * n)

    _, norms, _, _ = naive.slope(v, decays, first_norm, state)
    dstate, dv = after.copy(), blank(steps, 4)
    slope.slope_backward(dout, decays, norms, dstate, dv)
    same(dv, gradient(total, v))
    same(dstate, gradient(total, state))


HEADS, KEYS, VALUES = 2, 2, 3


def decay_inputs(rng: np.random.Generator, steps: int, dtype: type = np.float64) -> list[Array]:
    """q, k, v, g, beta and a state that is not empty."""
    q, k = many(rng, (steps, HEADS, KEYS), (steps, HEADS, KEYS))
    q, k = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (q, k))
    v, state = many(rng, (steps, HEADS, VALUES), (HEADS, KEYS, VALUES))
    g, beta = -rng.uniform(0, 1, (steps, HEADS)), rng.uniform(0, 1, (steps, HEADS))
    return [x.astype(dtype) for x in (q, k, v, g, beta, state)]


def run_decay(q: Array, k: Array, v: Array, g: Array, beta: Array, state: Array) -> tuple[Array, Array]:
    """Output and checkpoints; ``state`` moves on."""
    n_chunks = -(-len(q) // decay.CHUNK)
    checkpoints, out = blank(n_chunks, *state.shape, dtype=q.dtype.type), blank(*v.shape, dtype=q.dtype.type)
    decay.decay_forward(q, k, v, g, beta, blank(VALUES, dtype=q.dtype.type), checkpoints, state, out)
    return out, checkpoints


@pytest.mark.parametrize("steps", [1, 15, 16, 17, 33])
def test_decay_forward(rng: np.random.Generator, dtype: type, steps: int) -> None:
    *inputs, before = decay_inputs(rng, steps, dtype)
    state = before.copy()
    out, checkpoints = run_decay(*inputs, state)
    expected, memory = naive.decay(*inputs, before)
    same(out, expected)
    same(state, memory)
    for i, checkpoint in enumerate(checkpoints):
        same(checkpoint, naive.decay(*(x[: i * decay.CHUNK] for x in inputs), before)[1])


@pytest.mark.parametrize("cut", [1, 16, 20])
def test_decay_forward_carries_its_state(rng: np.random.Generator, cut: int) -> None:
    *inputs, state = decay_inputs(rng, 33)
    expected, memory = naive.decay(*inputs, state)
    parts = [run_decay(*(x[part] for x in inputs), state)[0] for part in (slice(cut), slice(cut, None))]
    same(np.concatenate(parts), expected)
    same(state, memory)


@pytest.mark.parametrize("steps", [1, 15, 16, 17, 33])
def test_decay_backward(rng: np.random.Generator, steps: int) -> None:
    inputs = decay_inputs(rng, steps)
    dout, after = many(rng, inputs[2].shape, inputs[5].shape)
    _, checkpoints = run_decay(*inputs[:5], inputs[5].copy())
    dstate, scratch = after.copy(), blank(decay.CHUNK + 3, KEYS, VALUES)
    found = [blank(*x.shape) for x in inputs[:5]]
    decay.decay_backward(dout, *inputs[:5], checkpoints, scratch, dstate, *found)

    def total() -> float:
        out, memory = naive.decay(*inputs)
        return np.sum(dout * out) + np.sum(after * memory)

    for given, x in zip([*found, dstate], inputs, strict=True):
        same(given, gradient(total, x))


def test_gates(rng: np.random.Generator, dtype: type) -> None:
    raw, decay_bias, write_bias = many(rng, (7, 2 * HEADS), (HEADS,), (HEADS,), dtype=dtype)
    rate, found = np.array([0.3, 2.0], dtype), blank(2, 7, HEADS, dtype=dtype)
    decay.gates_forward(raw, decay_bias, write_bias, rate, *found)
    same(found, np.stack(naive.gates(raw, decay_bias, write_bias, rate)))


def test_gates_far_out() -> None:
    raw, none, found = np.array([[1000.0, 1000], [-1000, -1000]]), np.zeros(1), blank(2, 2, 1)
    with np.errstate(over="ignore"):
        decay.gates_forward(raw, none, none, np.ones(1), *found)
    same(found[..., 0], np.array([[-1000.0, 0], [1, 0]]))


def test_gates_backward(rng: np.random.Generator) -> None:
    raw, decay_bias, write_bias, *cotangents = many(rng, (7, 2 * HEADS), (HEADS,), (HEADS,), (7, HEADS), (7, HEADS))
    rate, before = np.array([0.3, 2.0]), many(rng, *[(HEADS,)] * 3)
    draw, small = blank(7, 2 * HEADS), [x.copy() for x in before]
    g, beta = naive.gates(raw, decay_bias, write_bias, rate)
    decay.gates_backward(*cotangents, raw, decay_bias, rate, g, beta, draw, *small)

    def total() -> float:
        return np.sum(np.stack(cotangents) * np.stack(naive.gates(raw, decay_bias, write_bias, rate)))

    same(draw, gradient(total, raw))
    for found, start, x in zip(small, before, (decay_bias, write_bias, rate), strict=True):
        same(found, start + gradient(total, x))


def test_exp_is_exact_to_the_last_bits(dtype: type) -> None:
    x = np.linspace(-87, 88, 4001).astype(dtype)
    found, expected = np.array([norm.exp(number) for number in x]), np.exp(x.astype(np.float64))
    assert np.abs(found / expected - 1).max() < 1.5 * np.finfo(dtype).eps
    assert norm.exp(dtype(0)) == norm.exp(dtype(-0.0)) == 1


def test_exp_far_out(dtype: type) -> None:
    with np.errstate(over="ignore"):
        assert np.isnan(norm.exp(dtype(np.nan)))
        assert norm.exp(dtype(np.inf)) == norm.exp(dtype(1000)) == np.inf
        assert 0 <= norm.exp(dtype(-np.inf)) <= norm.exp(dtype(-1000)) < 2e-38


@pytest.mark.parametrize("width", [1, 5])
def test_rms(rng: np.random.Generator, dtype: type, width: int) -> None:
    x, gain = many(rng, (6, width), (width,), dtype=dtype)
    inverse, out = blank(6, dtype=dtype), blank(6, width, dtype=dtype)
    norm.rms_forward(x, gain, dtype(EPS), inverse, out)
    same(out, naive.rms(x, gain, EPS))
    same(inverse, (np.mean(x**2, 1) + EPS) ** -0.5)


def test_rms_backward(rng: np.random.Generator) -> None:
    dout, x, gain, dx_before, dgain_before = many(rng, (6, 5), (6, 5), (5,), (6, 5), (5,))
    dx, dgain = dx_before.copy(), dgain_before.copy()
    norm.rms_backward(dout, x, gain, (np.mean(x**2, 1) + EPS) ** -0.5, dx, dgain)

    def total() -> float:
        return np.sum(dout * naive.rms(x, gain, EPS))

    same(dx, dx_before + gradient(total, x))
    same(dgain, dgain_before + gradient(total, gain))


def test_silu_l2(rng: np.random.Generator, dtype: type) -> None:
    (u,) = many(rng, (6, 9), dtype=dtype)
    inverse, out = blank(6, 3, dtype=dtype), blank(6, 9, dtype=dtype)
    norm.silu_l2_forward(u, 3, dtype(EPS), inverse, out)
    same(out, naive.silu_l2(u, 3, EPS))


@pytest.mark.parametrize("in_place", [False, True])
def test_silu_l2_backward(rng: np.random.Generator, in_place: bool) -> None:
    dout, u = many(rng, (6, 9), (6, 9))
    inverse, out = blank(6, 3), blank(6, 9)
    norm.silu_l2_forward(u, 3, EPS, inverse, out)
    expected = gradient(lambda: np.sum(dout * naive.silu_l2(u, 3, EPS)), u)
    du = dout if in_place else blank(6, 9)
    norm.silu_l2_backward(dout, u, 3, out, inverse, du)
    same(du, expected)


def test_silu_and_gate(rng: np.random.Generator, dtype: type) -> None:
    m, u = many(rng, (6, 5), (6, 5), dtype=dtype)
    out, gated = blank(2, 6, 5, dtype=dtype)
    norm.silu_forward(u, out)
    norm.gate_forward(m, u, gated)
    same(out, naive.silu(u))
    same(gated, m * naive.silu(u))


@pytest.mark.parametrize("in_place", [False, True])
def test_silu_and_gate_backward(rng: np.random.Generator, in_place: bool) -> None:
    dout, m, u = many(rng, (6, 5), (6, 5), (6, 5))
    plain = gradient(lambda: np.sum(dout * naive.silu(u)), u)
    gated = [gradient(lambda: np.sum(dout * m * naive.silu(u)), x) for x in (m, u)]
    dplain, (dm, du) = (dout.copy(), (m, u)) if in_place else (blank(6, 5), blank(2, 6, 5))
    norm.silu_backward(dplain if in_place else dout, u, dplain)
    norm.gate_backward(dout, m, u, dm, du)
    for found, expected in zip((dplain, dm, du), (plain, *gated), strict=True):
        same(found, expected)


def test_gated_norm(rng: np.random.Generator, dtype: type) -> None:
    o, gain, u = many(rng, (6, 8), (4,), (6, 8), dtype=dtype)
    inverse, out = blank(6, 2, dtype=dtype), blank(6, 8, dtype=dtype)
    norm.gated_norm_forward(o, gain, u, dtype(EPS), inverse, out)
    same(out, naive.gated_norm(o, gain, u, EPS))


@pytest.mark.parametrize("in_place", [False, True])
def test_gated_norm_backward(rng: np.random.Generator, in_place: bool) -> None:
    dout, o, gain, u, before = many(rng, (6, 8), (6, 8), (4,), (6, 8), (4,))
    inverse, out = blank(6, 2), blank(6, 8)
    norm.gated_norm_forward(o, gain, u, EPS, inverse, out)
    expected = [gradient(lambda: np.sum(dout * naive.gated_norm(o, gain, u, EPS)), x) for x in (o, u, gain)]
    do, dgain = blank(6, 8), before.copy()
    du = u if in_place else blank(6, 8)
    norm.gated_norm_backward(dout, o, gain, u, inverse, do, du, dgain)
    same(do, expected[0])
    same(du, expected[1])
    same(dgain, before + expected[2])


@pytest.mark.parametrize("max_awake", [1, 3, 6])
def test_route(rng: np.random.Generator, dtype: type, max_awake: int) -> None:
    a0, bias, log_gamma = many(rng, (9, 6), (6,), (6,), dtype=dtype)
    a0[0] = -10  # all asleep
    a1, inverse, a = (blank(*shape, dtype=dtype) for shape in ((9, 6), (9,), (9, 6)))
    blocks.route_forward(a0, bias, log_gamma, max_awake, dtype(EPS), a1, inverse, a)
    same(a, naive.route(a0, bias, log_gamma, max_awake, EPS))
    same(a1, np.maximum(a0 + bias, 0))
    assert (a > 0).sum(1).max() == max_awake and not a[0].any()


def test_route_of_equals_the_last_sleep() -> None:
    a0 = np.array([[1.0, 2, 1, 2, 1], [3, 3, 3, 3, 3], [0, 0, 1, 0, 1]])
    a1, inverse, a = blank(3, 5), blank(3), blank(3, 5)
    blocks.route_forward(a0, np.zeros(5), np.zeros(5), 3, 1e-5, a1, inverse, a)
    assert [np.flatnonzero(row).tolist() for row in a] == [[0, 1, 3], [0, 1, 2], [2, 4]]
    config = ModelConfig(1, 5, 1, 1, 1, 1, 1, 5, 1, 3, 1, n_channels=1)
    w = {"router": np.eye(5), "router_bias": np.zeros(5), "log_gamma": np.zeros(5)}
    same(a, activations(a0, w, "", config))


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


WIDTHS = [(5, 3), (19, 6), (37, 18)]
"""D and B of blocks: less than a tile of each, and more, and more than a strip."""


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


def plain(w1: Array) -> tuple[Array, Array, Array]:
    """As the kernels take a w1 that is not of integers."""
    return w1, np.zeros((0, *w1.shape[1:]), np.uint8), w1[:0]


def work(h: Array, size: int) -> list[Array]:
    """What the kernels of blocks work in."""
    room = blank(blocks.room_for(len(h), size, h.shape[1]), dtype=h.dtype.type)
    return [blank(size, h.shape[1], dtype=h.dtype.type), room]


def test_group_pairs(rng: np.random.Generator) -> None:
    a = block_inputs(rng, 9, 5, 3)[1]
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
    blocks.blocks_forward(h, a, plain(w1), w2, *pairs_of(a, size), *work(h, size), y)
    same(y, before + naive.blocks(h, a, w1, w2))


@pytest.mark.parametrize(("width", "size"), WIDTHS)
@pytest.mark.parametrize("steps", [1, 9])
def test_blocks_backward(rng: np.random.Generator, steps: int, width: int, size: int) -> None:
    h, a, w1, w2 = block_inputs(rng, steps, width, size)
    dy, before = many(rng, (steps, width), (steps, width))
    awake = a > 0
    expected = [gradient(lambda: np.sum(dy * naive.blocks(h, a, w1, w2)), x) for x in (a, h, w1, w2)]
    pairs, asleep = pairs_of(a, size), ~awake.any(0)
    w1[asleep] = w2[asleep] = np.nan
    blocks.blocks_forward(h, a, plain(w1), w2, *pairs, *work(h, size), np.zeros_like(h))
    da, dh, dw1, dw2 = blank(*a.shape), before.copy(), blank(*w1.shape), blank(*w2.shape)
    blocks.blocks_backward(dy, a, plain(w1), w2, *pairs, work(h, size)[1], da, dh, dw2)
    blocks.blocks_w1_backward(h, *pairs[:3], dw1)
    same(da, np.where(awake, expected[0], 0))
    same(dh, before + expected[1])
    same(dw1[~asleep], expected[2][~asleep])
    same(dw2[~asleep], expected[3][~asleep])
    assert np.isnan(dw1[asleep]).all() and np.isnan(dw2[asleep]).all(), "left as they were"


def int8(rng: np.random.Generator, *shape: int) -> tuple[Array, Array, Array]:
    """Numbers around 128, their scales, and the float64 that they mean."""
    q = rng.integers(1, 256, shape).astype(np.uint8)
    scale = rng.uniform(0.001, 0.01, (*shape[:-1], shape[-1] // 32)).astype(np.float32)
    return q, scale, (q - 128.0) * scale.repeat(32, -1)


@pytest.mark.parametrize("steps", [1, 16, 21])
def test_blocks_of_integers(rng: np.random.Generator, steps: int) -> None:
    size, width = 6, 64
    h, a, _, w2 = block_inputs(rng, steps, width, size, np.float32)
    q, scale, w1 = int8(rng, 7, size, width)
    found = []
    for given in ((np.zeros((0, size, width), np.float32), q, scale), plain(w1.astype(np.float32))):
        pairs, out = pairs_of(a, size), [blank(*x.shape, dtype=np.float32) for x in (a, h, w2)]
        out[1][:] = 0
        y = np.zeros_like(h)
        blocks.blocks_forward(h, a, given, w2, *pairs, *work(h, size), y)
        blocks.blocks_backward(h, a, given, w2, *pairs, work(h, size)[1], *out)
        found.append([y, *out])
    for integers_, floats in zip(*found, strict=True):
        np.testing.assert_allclose(integers_, floats, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("steps", [1, 16, 21])
@pytest.mark.parametrize(("rows", "width"), [(5, 32), (35, 96), (80, 64)])
def test_products_with_integers(rng: np.random.Generator, steps: int, rows: int, width: int) -> None:
    q, scale, w = int8(rng, rows, width)
    x, y = many(rng, (steps, width), (steps, rows), dtype=np.float32)
    room = np.full(dense.room_for(steps, width), np.nan, np.float32)
    along, over = blank(steps, rows, dtype=np.float32), blank(steps, width, dtype=np.float32)
    dense.product_along_rows(x, q, scale, room, along)
    dense.product_over_rows(y, q, scale, room, over)
    np.testing.assert_allclose(along, x @ w.T, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(over, y @ w, rtol=1e-4, atol=1e-4)


def test_widen_blocks(rng: np.random.Generator) -> None:
    q, scale, w = int8(rng, 4, 3, 64)
    out, used = np.zeros((4, 3, 64), np.float32), np.array([True, False, True, True])
    integers.widen_blocks(q, scale, used, out)
    np.testing.assert_allclose(out, np.where(used[:, None, None], w, 0), rtol=1e-6)
    assert (np.asarray(Int8Matrix(q, scale))[used] == out[used]).all(), "to the last bit"


@pytest.mark.parametrize("size", [1, 1000])
def test_cross_entropy(rng: np.random.Generator, dtype: type, size: float) -> None:
    (logits,) = many(rng, (6, 9), dtype=dtype)
    logits[1:] *= size
    targets, losses = rng.integers(0, 9, 6), blank(6, dtype=dtype)
    expected = naive.cross_entropy(targets, logits)
    loss.cross_entropy(targets, logits, losses)
    same(losses, expected)
    assert np.isfinite(logits).all()


def test_cross_entropy_leaves_the_gradient(rng: np.random.Generator) -> None:
    (logits,) = many(rng, (6, 9))
    targets = rng.integers(0, 9, 6)
    expected = gradient(lambda: np.sum(naive.cross_entropy(targets, logits)), logits)
    loss.cross_entropy(targets, logits, blank(6))
    same(logits, expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("place", [0, 3, 8])
def test_cross_entropy_of_a_broken_logit_is_no_number(bad: float, place: int) -> None:
    logits, losses = np.zeros((1, 9)), blank(1)
    logits[0, place] = bad
    with np.errstate(invalid="ignore"):
        loss.cross_entropy(np.array([2]), logits, losses)
    assert not np.isfinite(losses).any()


def test_sum_of_squares(rng: np.random.Generator, dtype: type) -> None:
    (grad,) = many(rng, (3, 101), dtype=dtype)
    used = np.array([True, False, True])
    grad[1] = np.nan
    same(np.asarray(optim.sum_of_squares(grad, used), dtype), np.sum(grad[used] ** 2))
    for bad in (np.nan, np.inf, -np.inf):
        grad[2, 50] = bad
        assert not np.isfinite(optim.sum_of_squares(grad, used))


def test_pulled_step(rng: np.random.Generator, dtype: type) -> None:
    grad, base, before = many(rng, (3, 101), (3, 101), (3, 101), dtype=dtype)
    used, rates, weight = np.array([True, False, True]), np.array([0.1, 0.2, 0.3], dtype), before.copy()
    grad[1] = base[1] = np.nan
    optim.pulled_step(grad, base, used, rates, dtype(0.01), weight)
    expected = naive.pulled_step(grad, base, rates[:, None], 0.01, before)
    same(weight, np.where(used[:, None], expected, before))


def test_pulled_step_to_a_base_of_integers(rng: np.random.Generator) -> None:
    (grad, weight), (q, scale, _) = many(rng, (3, 96), (3, 96), dtype=np.float32), int8(rng, 3, 96)
    used, rates, pull = np.array([True, False, True]), rng.random(3).astype(np.float32), np.float32(0.01)
    expected = weight.copy()
    optim.pulled_step(grad, np.asarray(Int8Matrix(q, scale)), used, rates, pull, expected)
    optim.pulled_step_int8(grad, q, scale, blank(96, dtype=np.float32), used, rates, pull, weight)
    assert (weight == expected).all(), "to the last bit"


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
