"""Whole layer parts against their slow twins."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgelm.kernels import fused
from tests import naive
from tests.kernels.arrays import Array, same
from tests.kernels.integers import EPS, N, of_block_ffn, of_gated_delta, of_top_k_ffn
from tests.kernels.test_dots import near

Arguments = list[Any]
MADE: dict[str, Any] = {"gated_delta": of_gated_delta, "block_ffn": of_block_ffn, "top_k_ffn": of_top_k_ffn}
"""What makes the arguments of each kernel, and its matrices as numbers."""


def copied(arguments: Arguments) -> Arguments:
    """Arguments of their own, tuples opened and closed again."""
    return [tuple(copied([*a])) if isinstance(a, tuple) else np.copy(a) if np.ndim(a) else a for a in arguments]


def parts(arguments: Arguments, kernel: str, cuts: list[int]) -> Array:
    """x after the kernel has seen its tokens in parts."""
    given = copied(arguments)
    x, whole = given[0], given[-1]
    for start, end in zip([0, *cuts], [*cuts, len(x)], strict=True):
        part = slice(start, end)
        own = tuple(b[part] if b.ndim == 2 and len(b) == len(x) else b for b in whole)
        if kernel == "gated_delta":
            counts = (given[3][0], given[3][1][part])
            fused.gated_delta(x[part], *given[1:3], counts, *given[4:-1], own)
        else:
            getattr(fused, kernel)(x[part], *given[1:-1], own)
    return x


def test_gated_delta(rng: np.random.Generator) -> None:
    arguments, matrices = of_gated_delta(rng)
    x, _, gains, counts, state, *_ = copied(arguments)
    expected, after = naive.gated_delta(x.astype(np.float64), matrices, gains, counts[0], state, float(EPS))
    fused.gated_delta(*arguments)
    near(arguments[0] - x, expected - x)
    for found, wanted in zip(arguments[4], after, strict=True):
        near(found, wanted)


@pytest.mark.parametrize("max_awake", [1, 2, 5])
def test_block_ffn(rng: np.random.Generator, max_awake: int) -> None:
    arguments, matrices = of_block_ffn(rng, max_awake=max_awake)
    x, _, gains, *_ = copied(arguments)
    expected, before, a = naive.block_ffn(x.astype(np.float64), matrices, gains, max_awake, float(EPS), float(EPS))
    fused.block_ffn(*arguments)
    same(arguments[-1][0], before)
    same(arguments[-1][1], a)
    near(arguments[0] - x, expected - x)


@pytest.mark.parametrize("max_awake", [1, 2, 5])
def test_top_k_ffn(rng: np.random.Generator, max_awake: int) -> None:
    arguments, matrices = of_top_k_ffn(rng, max_awake=max_awake)
    x, _, gains, *_ = copied(arguments)
    expected, before, a = naive.top_k_ffn(x.astype(np.float64), matrices, gains, max_awake, float(EPS))
    fused.top_k_ffn(*arguments)
    same(arguments[-1][0], before)
    same(arguments[-1][1], a)
    near(arguments[0] - x, expected - x)


@pytest.mark.parametrize("kernel", ["block_ffn", "top_k_ffn"])
def test_of_equal_blocks_the_last_sleep(rng: np.random.Generator, kernel: str) -> None:
    arguments, _ = MADE[kernel](rng, n_tokens=1)
    _, router, bias, log_gamma = arguments[2]
    router[:], bias[:], log_gamma[:] = 0, 1, 0
    getattr(fused, kernel)(*arguments)
    assert (arguments[-1][1] > 0).tolist() == [[True, True, False, False, False]]


@pytest.mark.parametrize("cuts", [[1], [4], list(range(1, N))])
@pytest.mark.parametrize("kernel", MADE)
def test_a_text_in_parts_is_the_text_to_the_last_bit(rng: np.random.Generator, kernel: str, cuts: list[int]) -> None:
    arguments, _ = MADE[kernel](rng)
    assert (parts(arguments, kernel, cuts) == parts(arguments, kernel, [])).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("kernel", MADE)
def test_what_is_not_finite_does_not_become_a_number(rng: np.random.Generator, kernel: str, bad: float) -> None:
    arguments, _ = MADE[kernel](rng)
    arguments[0][1, 7] = bad
    with np.errstate(all="ignore"):
        x = parts(arguments, kernel, [])
    assert np.isfinite(x[0]).all()
    assert not np.isfinite(x[1]).any()
