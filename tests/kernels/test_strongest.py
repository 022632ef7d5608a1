"""The router that wakes the strongest blocks, against its slow twin, and differences of the twin backward."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgelm.cells.top_k_ffn.paper import TopKFfn
from edgelm.kernels import strongest
from tests import naive
from tests.kernels.arrays import blank, in_double, many, same
from tests.naive import gradient


@pytest.mark.parametrize("max_awake", [1, 3, 6])
def test_wake_forward(rng: np.random.Generator, dtype: type, max_awake: int) -> None:
    a0, bias, log_gamma = many(rng, (9, 6), (6,), (6,), dtype=dtype)
    a0[0] = [-50, -60, 40, -50, 50, 20]
    size = dtype(math.sqrt(max_awake * 6))
    share, a = blank(9, 6, dtype=dtype), blank(9, 6, dtype=dtype)
    strongest.wake_forward(a0, bias, log_gamma, max_awake, size, share, a)
    same(a, naive.route_top_k(a0, bias, log_gamma, max_awake)[1])
    assert ((a > 0).sum(1) == max_awake).all()
    same(share.sum(1), np.ones(9))


def test_of_equals_the_last_sleep(dtype: type) -> None:
    a0 = np.array([[1.0, 2, 1, 2, 1], [3, 3, 3, 3, 3], [-1, -1, 1, -1, 1]], dtype)
    share, a = blank(2, 3, 5, dtype=dtype)
    strongest.wake_forward(a0, np.zeros(5, dtype), np.zeros(5, dtype), 3, 1.0, share, a)
    assert [np.flatnonzero(row).tolist() for row in a] == [[0, 1, 3], [0, 1, 2], [0, 2, 4]]
    cell = TopKFfn(5, 1e-5, n_blocks=5, block_size=1, max_awake=3, shared_size=1)
    w = {"norm": np.ones(5), "router": np.eye(5), "router_bias": np.zeros(5), "log_gamma": np.zeros(5)}
    assert ((cell.activations(a0, w, {}) > 0) == (a > 0)).all()


@in_double
@pytest.mark.parametrize("max_awake", [2, 6])
def test_wake_backward(rng: np.random.Generator, max_awake: int) -> None:
    da, a0, bias, log_gamma, before = many(rng, (9, 6), (9, 6), (6,), (6,), (6,))
    share, a, size = blank(9, 6), blank(9, 6), math.sqrt(max_awake * 6)
    strongest.wake_forward(a0, bias, log_gamma, max_awake, size, share, a)
    da[a == 0] = 0

    def total() -> float:
        return float(np.sum(da * naive.route_top_k(a0, bias, log_gamma, max_awake)[1]))

    da0, dlog_gamma = blank(9, 6), before.copy()
    strongest.wake_backward(da, share, a, da0, dlog_gamma)
    same(da0, gradient(total, a0))
    same(da0.sum(0), gradient(total, bias))
    same(dlog_gamma, before + gradient(total, log_gamma))


def test_what_is_not_finite_wakes_nothing(dtype: type) -> None:
    a0, none = np.array([[1.0, np.nan, 2, 3], [np.nan] * 4], dtype), np.zeros(4, dtype)
    share, a = blank(2, 2, 4, dtype=dtype)
    strongest.wake_forward(a0, none, none, 2, 1.0, share, a)
    assert not (a[1] > 0).any()
