"""Every kernel but those of neuron blocks against its slow twin (forward) and differences of the twin (backward)."""

from __future__ import annotations

import numpy as np
import pytest

from edgelm.kernels import conv, decay, dense, loss, norm, optim, slope
from tests import naive
from tests.kernels.arrays import EPS, Array, blank, in_double, int8, many, same
from tests.naive import gradient


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 9])
def test_conv_forward(rng: np.random.Generator, dtype: type, steps: int) -> None:
    u, taps, last = many(rng, (steps, 5), (4, 5), (3, 5), dtype=dtype)
    out = blank(steps, 5, dtype=dtype)
    conv.conv_forward(u, taps, last, out)
    same(out, naive.conv(u, taps, last))


@pytest.mark.parametrize("steps", [1, 2, 3, 9])
def test_the_last_tokens_are_kept(rng: np.random.Generator, dtype: type, steps: int) -> None:
    u, last = many(rng, (steps, 7), (3, 5), dtype=dtype)
    out = blank(3, 5, dtype=dtype)
    conv.conv_last(u, last, out)
    same(out, np.concatenate([last, u[:, :5]])[-3:])


@in_double
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


@in_double
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
def test_decay_forward_carries_its_state(rng: np.random.Generator, dtype: type, cut: int) -> None:
    *inputs, state = decay_inputs(rng, 33, dtype)
    expected, memory = naive.decay(*inputs, state)
    parts = [run_decay(*(x[part] for x in inputs), state)[0] for part in (slice(cut), slice(cut, None))]
    same(np.concatenate(parts), expected)
    same(state, memory)


@in_double
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


def test_rates_forward(rng: np.random.Generator, dtype: type) -> None:
    base, step = many(rng, (1,), (4,), dtype=dtype)
    step[0], rate = 30, blank(4, dtype=dtype)
    decay.rates_forward(base, step / 10, rate)
    same(rate, np.exp(base + np.cumsum(np.logaddexp(0, step / 10))))


@in_double
def test_rates_backward(rng: np.random.Generator) -> None:
    base, step, drate = many(rng, (1,), (4,), (4,))

    def rates() -> Array:
        return np.exp(base + np.cumsum(np.logaddexp(0, step)))

    found = blank(1), blank(4)
    decay.rates_backward(drate, rates(), step, *found)
    for given, x in zip(found, (base, step), strict=True):
        same(given, gradient(lambda: np.sum(drate * rates()), x))


def test_gates(rng: np.random.Generator, dtype: type) -> None:
    raw, decay_bias, write_bias = many(rng, (7, 2 * HEADS), (HEADS,), (HEADS,), dtype=dtype)
    rate, found = np.array([0.3, 2.0], dtype), blank(2, 7, HEADS, dtype=dtype)
    decay.gates_forward(raw, decay_bias, write_bias, rate, *found)
    same(found, np.stack(naive.gates(raw, decay_bias, write_bias, rate)))


def test_gates_far_out(dtype: type) -> None:
    raw, none = np.array([[1000.0, 1000], [-1000, -1000]], dtype), np.zeros(1, dtype)
    found = blank(2, 2, 1, dtype=dtype)
    with np.errstate(over="ignore"):
        decay.gates_forward(raw, none, none, np.ones(1, dtype), *found)
    same(found[..., 0], np.array([[-1000.0, 0], [1, 0]]))


@in_double
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


@in_double
def test_rms_backward(rng: np.random.Generator) -> None:
    dout, x, gain, dx_before, dgain_before = many(rng, (6, 5), (6, 5), (5,), (6, 5), (5,))
    dx, dgain = dx_before.copy(), dgain_before.copy()
    norm.rms_backward(dout, x, gain, (np.mean(x**2, 1) + EPS) ** -0.5, dx, dgain)

    def total() -> float:
        return np.sum(dout * naive.rms(x, gain, EPS))

    same(dx, dx_before + gradient(total, x))
    same(dgain, dgain_before + gradient(total, gain))


def test_silu_and_gate(rng: np.random.Generator, dtype: type) -> None:
    m, u = many(rng, (6, 5), (6, 5), dtype=dtype)
    out, gated = blank(2, 6, 5, dtype=dtype)
    norm.silu_forward(u, out)
    norm.gate_forward(m, u, gated)
    same(out, naive.silu(u))
    same(gated, m * naive.silu(u))


@in_double
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


@in_double
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


@pytest.mark.parametrize("steps", [1, 16, 21])
@pytest.mark.parametrize(("rows", "width"), [(5, 32), (35, 96), (80, 64)])
def test_products_with_integers(rng: np.random.Generator, steps: int, rows: int, width: int) -> None:
    q, scale, w = int8(rng, rows, width)
    x, y = many(rng, (steps, width), (steps, rows), dtype=np.float32)
    workspace = np.full(dense.workspace_size(steps, width), np.nan, np.float32)
    along, over = blank(steps, rows, dtype=np.float32), blank(steps, width, dtype=np.float32)
    dense.product_along_rows(x, q, scale, workspace, along)
    dense.product_over_rows(y, q, scale, workspace, over)
    np.testing.assert_allclose(along, x @ w.T, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(over, y @ w, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("steps", [1, 16, 21, 33])
@pytest.mark.parametrize(("rows", "width"), [(5, 32), (35, 96), (64, 64), (133, 160)])
def test_products_with_integers_and_their_change(rng: np.random.Generator, steps: int, rows: int, width: int) -> None:
    q, scale, w = int8(rng, rows, width)
    change = (0.1 * rng.standard_normal((rows, width))).astype(np.float16)
    w += change
    x, y = many(rng, (steps, width), (steps, rows), dtype=np.float32)
    y[:, 1:4] = 0
    along, over = blank(steps, rows, dtype=np.float32), blank(steps, width, dtype=np.float32)
    workspace = np.full(dense.workspace_size(steps, width), np.nan, np.float32)
    dense.product_along_changed(x, q, scale, change.view(np.uint16), workspace, along)
    np.testing.assert_allclose(along, x @ w.T, rtol=1e-4, atol=1e-4)
    scale[1:4] = np.nan  # rows that no token names are not read
    workspace[:] = np.nan
    dense.product_over_changed(y, q, scale, change.view(np.uint16), workspace, over)
    np.testing.assert_allclose(over, y @ w, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [1, 1000])
def test_cross_entropy(rng: np.random.Generator, dtype: type, size: float) -> None:
    (logits,) = many(rng, (6, 9), dtype=dtype)
    logits[1:] *= size
    targets, losses = rng.integers(0, 9, 6), blank(6, dtype=dtype)
    expected = naive.cross_entropy(targets, logits)
    loss.cross_entropy(targets, logits, losses)
    same(losses, expected)
    assert np.isfinite(logits).all()


@in_double
def test_cross_entropy_leaves_the_gradient(rng: np.random.Generator) -> None:
    (logits,) = many(rng, (6, 9))
    targets = rng.integers(0, 9, 6)
    expected = gradient(lambda: np.sum(naive.cross_entropy(targets, logits)), logits)
    loss.cross_entropy(targets, logits, blank(6))
    same(logits, expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("place", [0, 3, 8])
def test_cross_entropy_of_a_broken_logit_is_no_number(dtype: type, bad: float, place: int) -> None:
    logits, losses = np.zeros((1, 9), dtype), blank(1, dtype=dtype)
    logits[0, place] = bad
    with np.errstate(invalid="ignore"):
        loss.cross_entropy(np.array([2]), logits, losses)
    assert not np.isfinite(losses).any()


def test_pulled_step(rng: np.random.Generator, dtype: type) -> None:
    grad, base, before = many(rng, (101,), (101,), (101,), dtype=dtype)
    weight = before.copy()
    optim.pulled_step(grad, base, dtype(0.2), dtype(0.01), weight)
    same(weight, naive.pulled_step(grad, base, 0.2, 0.01, before))
