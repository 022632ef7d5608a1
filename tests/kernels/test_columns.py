"""Kernels over columns of wide arrays against slow twins (forward) and differences of the twins (backward)."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from edgelm.kernels import columns, norm
from tests import naive
from tests.kernels.arrays import EPS, Array, blank, in_double, many, same
from tests.naive import gradient

FIRST = 4
"""The column at which what is read begins; others follow it."""


def outside(array: Array, first: int, width: int) -> Array:
    """The columns that a kernel has nothing to do with."""
    return np.delete(array, np.s_[first : first + width], 1)


def test_gate_columns(rng: np.random.Generator, dtype: type) -> None:
    m, p = many(rng, (6, 5), (6, 12), dtype=dtype)
    out = blank(6, 7, dtype=dtype)
    columns.gate_columns_forward(m, p, FIRST, out)
    same(out[:, :5], m * naive.silu(p[:, FIRST:9]))
    assert np.isnan(out[:, 5:]).all()


@in_double
def test_gate_columns_backward(rng: np.random.Generator) -> None:
    dout, m, p = many(rng, (6, 7), (6, 5), (6, 12))
    u = p[:, FIRST:9].copy()
    expected = [gradient(lambda: np.sum(dout[:, :5] * m * naive.silu(u)), x) for x in (m, u)]
    dm, dp = blank(6, 5), blank(6, 12)
    columns.gate_columns_backward(dout, m, p, FIRST, dm, dp)
    same(dm, expected[0])
    same(dp[:, FIRST:9], expected[1])
    assert np.isnan(outside(dp, FIRST, 5)).all()


HEADS, KEYS, VALUES = 2, 3, 5


def heads_of(u: Array) -> list[Array]:
    """q, k and v by the slow twins."""
    ends = [FIRST, FIRST + HEADS * KEYS, FIRST + 2 * HEADS * KEYS, FIRST + HEADS * (2 * KEYS + VALUES)]
    q, k, v = (u[:, first:last] for first, last in pairwise(ends))
    units = [naive.silu_l2(x, HEADS, EPS).reshape(len(u), HEADS, KEYS) for x in (q, k)]
    return [*units, naive.silu(v).reshape(len(u), HEADS, VALUES)]


def test_heads(rng: np.random.Generator, dtype: type) -> None:
    (u,) = many(rng, (6, 28), dtype=dtype)
    found = [blank(6, HEADS, size, dtype=dtype) for size in (KEYS, KEYS, VALUES)]
    columns.heads_forward(u, FIRST, dtype(EPS), blank(6, 2 * HEADS, dtype=dtype), *found)
    for out, expected in zip(found, heads_of(u), strict=True):
        same(out, expected)


@in_double
def test_heads_backward(rng: np.random.Generator) -> None:
    (u,) = many(rng, (6, 28))
    flows = many(rng, *[(6, HEADS, size) for size in (KEYS, KEYS, VALUES)])
    expected = gradient(lambda: sum(np.sum(d * x) for d, x in zip(flows, heads_of(u), strict=True)), u)
    found, inverse, du = [blank(*d.shape) for d in flows], blank(6, 2 * HEADS), blank(6, 28)
    columns.heads_forward(u, FIRST, EPS, inverse, *found)
    columns.heads_backward(*flows, u, FIRST, *found[:2], inverse, du)
    width = HEADS * (2 * KEYS + VALUES)
    same(du[:, FIRST : FIRST + width], expected[:, FIRST : FIRST + width])
    assert np.isnan(outside(du, FIRST, width)).all()


def test_norm_columns(rng: np.random.Generator, dtype: type) -> None:
    o, gain, p = many(rng, (6, 8), (4,), (6, 15), dtype=dtype)
    inverse, out = blank(6, 2, dtype=dtype), blank(6, 11, dtype=dtype)
    columns.norm_columns_forward(o, gain, p, FIRST, dtype(EPS), inverse, out)
    same(out[:, 3:], naive.gated_norm(o, gain, p[:, FIRST:12], EPS))
    assert np.isnan(out[:, :3]).all()


@in_double
def test_norm_columns_backward(rng: np.random.Generator) -> None:
    dout, o, gain, p, before = many(rng, (6, 11), (6, 8), (4,), (6, 15), (4,))
    u = p[:, FIRST:12].copy()
    expected = [gradient(lambda: np.sum(dout[:, 3:] * naive.gated_norm(o, gain, u, EPS)), x) for x in (o, u, gain)]
    inverse, do, dp, dgain = blank(6, 2), blank(6, 8), blank(6, 15), before.copy()
    columns.norm_columns_forward(o, gain, p, FIRST, EPS, inverse, blank(6, 11))
    columns.norm_columns_backward(dout, o, gain, p, FIRST, inverse, do, dp, dgain)
    same(do, expected[0])
    same(dp[:, FIRST:12], expected[1])
    same(dgain, before + expected[2])
    assert np.isnan(outside(dp, FIRST, 8)).all()


@pytest.mark.parametrize("n", [0, 1, 15, 16, 37])
def test_sigmoids(rng: np.random.Generator, dtype: type, n: int) -> None:
    x = (rng.standard_normal(50) * 30).astype(dtype)
    x[5:8] = np.nan, np.inf, -np.inf
    out = blank(60, dtype=dtype)
    with np.errstate(over="ignore"):
        run_sigmoids(x, 2, out, 7, n)
    same(out[7 : 7 + n], 1 / (1 + np.exp(-x[2 : 2 + n].astype(np.float64))))
    assert np.isnan(out[:7]).all() and np.isnan(out[7 + n :]).all()


@norm.kernel
def run_sigmoids(x, x0, out, out0, n):  # type: ignore[no-untyped-def]
    """What is written as code can only be called by a kernel."""
    norm.sigmoids(x, x0, out, out0, n)
