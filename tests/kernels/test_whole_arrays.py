"""What numpy does with whole arrays too, against numpy."""

from __future__ import annotations

import numpy as np
import pytest

from edgelm.kernels import arrays
from tests.kernels.arrays import blank, many, same


def test_whole_arrays(rng: np.random.Generator, dtype: type) -> None:
    x, y = many(rng, (11,), (11,), dtype=dtype)
    found, repeated = blank(11, dtype=dtype), blank(33, dtype=dtype)
    arrays.copy(x, found)
    same(found, 1 * x)
    arrays.add(y, found)
    same(found, x + y)
    arrays.fill(found, dtype(3))
    same(found, np.full_like(x, 3))
    arrays.repeat(x, 3, repeated)
    same(repeated, np.repeat(x, 3))


@pytest.mark.parametrize("shape", [(1, 3), (9, 5), (4, 8)])
def test_rows(rng: np.random.Generator, dtype: type, shape: tuple[int, int]) -> None:
    (x,), (before,) = many(rng, shape, dtype=dtype), many(rng, (shape[1],), dtype=dtype)
    turned, total = blank(*shape[::-1], dtype=dtype), before.copy()
    arrays.transpose(x, turned)
    same(turned, x.T)
    arrays.add_rows(x, total)
    same(total, before + x.sum(0))


@pytest.mark.parametrize("width", [1, 16, 37])
@pytest.mark.parametrize("n_steps", [1, 6])
def test_product(rng: np.random.Generator, dtype: type, n_steps: int, width: int) -> None:
    x, w = many(rng, (n_steps, 5), (5, width), dtype=dtype)
    out = blank(n_steps, width, dtype=dtype)
    arrays.product(x, w, out)
    same(out, x @ w)
