"""RWKV-7's layer parts in one call against their slow twins."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgelm.kernels import rwkv7
from tests import naive
from tests.kernels.arrays import Array, same
from tests.kernels.integers import EPS, HEADS, D, N, of_channel_mix, of_time_mix
from tests.kernels.test_dots import near
from tests.kernels.test_fused import copied

MADE: dict[str, Any] = {"time_mix": of_time_mix, "channel_mix": of_channel_mix}
"""What makes the arguments of each kernel, and its matrices as numbers."""


def of_tokens(array: Array, part: slice) -> Array:
    """The rows of some tokens."""
    if array.ndim == 3:
        return np.ascontiguousarray(array[:, part])
    return array[part]


def parts(arguments: list[Any], kernel: str, cuts: list[int]) -> list[Any]:
    """The arguments after the kernel has seen its tokens in parts."""
    given = copied(arguments)
    for start, end in zip([0, *cuts], [*cuts, N], strict=True):
        part = slice(start, end)
        x, *others, (*own, of_one) = given
        if kernel == "time_mix":
            others[3] = (others[3][0][part], others[3][1])
        getattr(rwkv7, kernel)(x[part], *others, (*(of_tokens(array, part) for array in own), of_one))
    return given


@pytest.mark.parametrize("heads", [1, HEADS, 8])
@pytest.mark.parametrize("is_first", [True, False])
def test_time_mix(rng: np.random.Generator, heads: int, is_first: bool) -> None:
    arguments, matrices = of_time_mix(rng, heads=heads)
    arguments[4][1][0] = is_first
    x, _, mixes, gains, (first, _), state, numbers, *_ = copied(arguments)
    given = None if is_first else first
    expected, first, after = naive.time_mix(x.astype(np.float64), matrices, mixes, gains, given, state, numbers)
    rwkv7.time_mix(*arguments)
    near(arguments[0] - x, expected - x)
    near(arguments[4][0], first)
    assert not arguments[4][1][0]
    for found, wanted in zip(arguments[5], after, strict=True):
        near(found, wanted)


@pytest.mark.parametrize("neurons", [1, 16, 85, 200])
def test_channel_mix(rng: np.random.Generator, neurons: int) -> None:
    arguments, matrices = of_channel_mix(rng, neurons=neurons)
    x, _, gains, before, *_ = copied(arguments)
    expected, a, last = naive.channel_mix(x.astype(np.float64), matrices, gains, before, float(EPS))
    arguments[1][3][~(a > 0).any(0)] = np.nan  # rows that are not to be read
    rwkv7.channel_mix(*arguments)
    near(arguments[0] - x, expected - x)
    near(arguments[-1][1], a)
    same(arguments[3], last)


def test_all_neurons_may_sleep(rng: np.random.Generator) -> None:
    arguments, _ = of_channel_mix(rng)
    arguments[1][1][:] = 0
    x = arguments[0].copy()
    rwkv7.channel_mix(*arguments)
    assert (arguments[0] == x).all() and (arguments[-1][1] == 0).all()


@pytest.mark.parametrize("cuts", [[1], [4], list(range(1, N))])
@pytest.mark.parametrize("kernel", MADE)
def test_a_text_in_parts_is_the_text_to_the_last_bit(rng: np.random.Generator, kernel: str, cuts: list[int]) -> None:
    arguments, _ = MADE[kernel](rng)
    whole, found = parts(arguments, kernel, []), parts(arguments, kernel, cuts)
    assert (found[0] == whole[0]).all()
    for one, other in zip(_state(found, kernel), _state(whole, kernel), strict=True):
        assert (one == other).all()


def _state(arguments: list[Any], kernel: str) -> tuple[Array, ...]:
    return arguments[5] if kernel == "time_mix" else (arguments[3],)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("kernel", MADE)
def test_what_is_not_finite_does_not_become_a_number(rng: np.random.Generator, kernel: str, bad: float) -> None:
    arguments, _ = MADE[kernel](rng)
    arguments[0][1, 7] = bad
    with np.errstate(all="ignore"):
        x = parts(arguments, kernel, [])[0]
    assert x.shape == (N, D)
    assert np.isfinite(x[0]).all()
    assert not np.isfinite(x[1]).any()
