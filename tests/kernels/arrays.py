"""What the tests of kernels make and compare.

What a kernel says it overwrites is NaN beforehand; what it says it adds to is not zero beforehand.
"""

from __future__ import annotations

import numpy as np
import pytest

Array = np.ndarray
EPS = 1e-3
"""Large, so that a forgotten epsilon shows."""
in_double = pytest.mark.once
"""A test that compares with differences, in float64. What is used is compiled for float32, and does what plain Python
does (``tests/kernels/test_twins.py``); to compile all for float64 too takes minutes."""


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


def int8(rng: np.random.Generator, *shape: int) -> tuple[Array, Array, Array]:
    """Numbers around 128, their scales, and the float64 that they mean."""
    q = rng.integers(1, 256, shape).astype(np.uint8)
    scale = rng.uniform(0.001, 0.01, (*shape[:-1], shape[-1] // 32)).astype(np.float32)
    return q, scale, (q - 128.0) * scale.repeat(32, -1)
