"""What multiplies integers as LLVM's code does what numpy does, for each kind of processor that this one can be."""

from __future__ import annotations

import platform

import llvmlite.binding as llvm
import numpy as np
import pytest

from edgelm.kernels.emit_across import emit_lay_across
from edgelm.kernels.emit_codes import emit_code_run
from edgelm.kernels.emit_delta import emit_delta
from edgelm.kernels.emit_dots import emit_dot_strips, kind_of
from edgelm.kernels.emit_halves import emit_add_halves, emit_step_halves, has_halves
from edgelm.kernels.emit_ternary import emit_ternary_strips
from tests import naive
from tests.kernels.arrays import blank, same
from tests.kernels.integers import STRIPS, floats
from tests.kernels.test_emit import run

VNNI = ("avx512f", "avx512bw", "avx512vl", "avx512vnni")
FEATURES = {
    "vnni 512": VNNI, "vnni 256": ("avxvnni",), "madd 256": ("avx2",), "madd 128": ("sse4.1",), "plain 128": (),
}  # fmt: skip
OF_MACHINE = {"x86_64": FEATURES, "aarch64": {"sdot 128": ("dotprod",), "smull 128": ()}}.get(platform.machine(), {})


@pytest.fixture(params=OF_MACHINE)
def features(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Features of a kind of processor that this one can be, and those by which LLVM compiles for it here."""
    kind, bits = request.param.split()
    host, needed = llvm.get_host_cpu_features(), OF_MACHINE[request.param]
    chosen = _joined(needed)
    assert kind_of(llvm.get_default_triple(), chosen) == (kind, int(bits))
    if needed == ("avxvnni",) and not host.get("avxvnni"):
        needed = ("avx512vl", "avx512vnni")  # the same instruction in another spelling
    if not all(host.get(name) for name in needed):
        pytest.skip(f"this processor has not {_joined(needed)}")
    return chosen, _joined(needed)


def _joined(names: tuple[str, ...]) -> str:
    return ",".join(f"+{name}" for name in names)


@pytest.mark.parametrize(("n_strips", "n_tokens"), [(1, 1), (4, 1), (1, 4)])
@pytest.mark.parametrize("n_runs", [0, 1, 3])
@pytest.mark.parametrize("kind", STRIPS)
def test_dot_strips(
    rng: np.random.Generator, features: tuple[str, str], kind: str, n_strips: int, n_tokens: int, n_runs: int
) -> None:
    emit = {"int8": emit_dot_strips, "ternary": emit_ternary_strips}[kind]
    q, scale, w = STRIPS[kind](rng, 16 * 6, 32 * n_runs) if n_runs else (*floats(rng, (0,), (1,)), np.zeros((96, 0)))
    codes = rng.integers(-127, 128, (2 + n_tokens * n_runs, 32)).astype(np.int8)
    codes[2:, :5], codes[2:, 5:9] = 127, -127
    scales = rng.uniform(0.1, 1, (len(codes), 2)).astype(np.float32)
    scales[:, 1] = -128 * codes.astype(np.float32).sum(1)
    out, pitch = floats(rng, (400,))[0], 70
    expected = out.astype(np.float64)
    x = (codes[2:] * scales[2:, :1].astype(np.float64)).reshape(n_tokens, 32 * n_runs)
    for t in range(n_tokens):
        place = 7 + t * pitch
        expected[place : place + 16 * n_strips] += w[16 : 16 + 16 * n_strips] @ x[t]
    flat = [q.reshape(-1).astype(np.uint8), scale.reshape(-1), 1, n_runs, codes.reshape(-1).view(np.uint8)]
    values = [*flat, scales.reshape(-1), 2, out, 7, pitch]
    run(emit, [n_strips, n_tokens], values, "", *features)
    largest = np.abs(expected).max()
    assert np.abs(out - expected).max() <= 1e-6 * largest


@pytest.mark.parametrize("weight", [0, 1, 255])
def test_products_of_the_largest_numbers_do_not_saturate(features: tuple[str, str], weight: int) -> None:
    q, scale = np.full(2 * 16 * 32, weight, np.uint8), np.ones(2 * 16, np.float32)
    for code in (127, -127):
        codes = np.full(32, code, np.int8)
        scales, out = np.float32([1, -128 * 32 * code]), np.zeros(32, np.float32)
        run(emit_dot_strips, [1, 1], [q, scale, 1, 1, codes.view(np.uint8), scales, 0, out, 16, 0], "", *features)
        assert out.tolist() == [0] * 16 + [32 * code * (weight - 128)] * 16


@pytest.mark.parametrize("columns", [1, 16, 64])
@pytest.mark.parametrize("n_rows", [1, 5])
def test_delta(rng: np.random.Generator, columns: int, n_rows: int) -> None:
    pitch = columns + 6
    memory, q, k, v = floats(rng, (n_rows, pitch), (1, n_rows), (1, n_rows), (1, columns))
    keep, beta = 0.6, 0.3
    gates = np.array([keep, beta, (q @ k.T).item()], np.float32)
    shaped = [x.reshape(1, 1, -1).astype(np.float64) for x in (q, k, v)]
    decayed = np.array([[np.log(keep)]]), np.array([[beta]])
    part = slice(3, 3 + columns)
    read, after = naive.decay(*shaped, *decayed, memory[None, :, part].astype(np.float64))
    s, c = np.concatenate([[9, 9], memory.reshape(-1)]).astype(np.float32), blank(200, dtype=np.float32)
    c[1 : 1 + n_rows], c[20 : 20 + n_rows], c[40 : 40 + columns] = q[0], k[0], v[0]
    kept = c.copy()
    run(emit_delta, [columns], [s, 5, n_rows, pitch, c, 1, 20, 40, gates], "")
    kept[40 : 40 + columns] = read[0, 0]
    same(c, kept)
    expected = memory.copy()
    expected[:, part] = after[0]
    same(s, np.concatenate([[9, 9], expected.reshape(-1)]))


@pytest.mark.parametrize("signed", [False, True])
def test_code_run(rng: np.random.Generator, signed: bool) -> None:
    for x in (*floats(rng, (32,), (32,)), np.zeros(32, np.float32), np.float32([*range(-127, -95)])):
        given, codes, out = (
            np.concatenate([np.float32([1e9] * 3), x]),
            np.zeros(40, np.uint8),
            blank(5, dtype=np.float32),
        )
        run(emit_code_run, [signed], [given, 3, np.float32(0.01), codes, 4, out, 1], "")
        made = codes[4:36].view(np.int8).astype(int) if signed else codes[4:36].astype(int) - 128
        found, step = naive.codes(x.astype(np.float64), 0.01)
        assert np.abs(made - found).max() <= 1 and (made != found).mean() < 0.04
        assert out[1] == pytest.approx(step[0], rel=1e-6)
        assert out[2] == -128 * made.sum() if signed else np.isnan(out[2])
        assert not codes[:4].any() and not codes[36:].any() and np.isnan(out[[0, 3, 4]]).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_code_of_what_is_not_finite_has_a_scale_that_is_none(rng: np.random.Generator, bad: float) -> None:
    for place in (0, 15, 16, 31):
        (x,), codes, out = floats(rng, (32,)), np.zeros(32, np.uint8), blank(2, dtype=np.float32)
        x[place] = bad
        run(emit_code_run, [True], [x, 0, np.float32(1e-30), codes, 0, out, 0], "")
        assert not np.isfinite(out[0])


@pytest.mark.parametrize("n_strips", [1, 2])
def test_lay_across(rng: np.random.Generator, n_strips: int) -> None:
    q, scale = rng.integers(0, 256, (16 * n_strips, 32)).astype(np.uint8), rng.uniform(0.1, 1, (16 * n_strips, 1))
    q[0], scale = [0, 1, 127, 128] * 8, scale.astype(np.float32)
    (given, of_given), pitch = naive.strips(q, scale), 704
    read, scales = np.zeros(1500, np.uint8), np.zeros(60, np.float32)
    for n in range(n_strips):
        read[64 + n * pitch :][:512], scales[2 + n * 22 :][:16] = given[n].reshape(-1), of_given[n].reshape(-1)
    out, of_out = np.full(1400, 77, np.uint8), blank(60, dtype=np.float32)
    run(emit_lay_across, [n_strips], [read, scales, 64, pitch, out, of_out, 96, 608], "")
    made, _ = naive.across(q, scale)
    turned = np.zeros((32, 32), np.int64)
    turned[:, : len(made)] = made.T
    expected, _ = naive.strips((turned + 128).astype(np.uint8), np.ones((32, 1), np.float32))
    for half in (0, 1):
        found = out[96 + half * 608 :][:512].astype(int)
        # A scale that lies between two shares may become either.
        assert np.abs(found - expected[half].reshape(-1)).max() <= 1
        assert (found == expected[half].reshape(-1)).mean() > 0.95
        assert (of_out[3 + half * 19 :][:16] == scale.max()).all()
    assert (np.delete(out, [*range(96, 608), *range(704, 1216)]) == 77).all()
    assert np.isnan(np.delete(of_out, [*range(3, 19), *range(22, 38)])).all()


HALVES = {"integers": ("", ""), "conversions": ("+f16c", "+f16c,+avx")}


@pytest.fixture(params=HALVES)
def of_halves(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Features of a processor that converts numbers of 16 bits, or that does not, and those to compile with here."""
    chosen, here = HALVES[request.param]
    if platform.machine() == "x86_64":
        assert has_halves(llvm.get_default_triple(), chosen) == bool(chosen)
        if chosen and not llvm.get_host_cpu_features().get("f16c"):
            pytest.skip("this processor has not +f16c")
    elif not chosen:
        pytest.skip("every Arm of 64 bits converts")
    return chosen, here


@pytest.mark.parametrize("lanes", [1, 16])
def test_every_number_of_16_bits_is_added(of_halves: tuple[str, str], lanes: int) -> None:
    bits = np.arange(1 << 16).astype(np.uint16)
    numbers = bits.view(np.float16).astype(np.float32)
    some = range(0, 1 << 16, 1 << 10) if lanes == 16 else (0, 1, 0x3FF, 0x400, 0x7BFF, 0x7C00, 0x8001, 0xFC00)
    for first in some:
        out = np.full(lanes + 2, 0.25, np.float32)
        run(emit_add_halves, [lanes], [bits, first, out, 1], "", *of_halves)
        assert out[0] == out[-1] == 0.25
        with np.errstate(invalid="ignore"):  # of what is no number
            expected = np.float32(0.25) + numbers[first : first + lanes]
        np.testing.assert_array_equal(out[1:-1], expected)


def test_a_step_of_16_bits_is_rounded_once(rng: np.random.Generator, of_halves: tuple[str, str]) -> None:
    edges = np.float32(
        [0, 1, 65504, 65519, 65520, 1e9, np.inf, 2**-14, 2**-14 - 2**-26, 2**-24, 2.9e-8, 2**-25, 3 * 2**-25]
    )
    given = [np.concatenate([edges, [-1, -65520, -(2.0**-25)]]), *10.0 ** rng.uniform(-9, 5.5, (8, 16))]
    for numbers in given:
        (grad,), change = [np.concatenate([[9], numbers]).astype(np.float32)], np.zeros(18, np.uint16)
        run(emit_step_halves, [16], [grad, 1, np.float32(-1), np.float32(0), change, 2], "", *of_halves)
        with np.errstate(over="ignore"):
            np.testing.assert_array_equal(change[2:], grad[1:].astype(np.float16).view(np.uint16))
        assert not change[:2].any()
    now = (0.1 * rng.standard_normal(16)).astype(np.float16)
    (grad,), change = floats(rng, (16,)), now.view(np.uint16).copy()
    run(emit_step_halves, [16], [grad, 0, np.float32(0.5), np.float32(0.125), change, 0], "", *of_halves)
    expected = now.astype(np.float64) * 0.875 - 0.5 * grad
    np.testing.assert_allclose(change.view(np.float16), expected, rtol=2**-11 + 1e-6)
