"""Integers with a change in float16: what is written is what is read, and what sleeps takes no memory."""

from __future__ import annotations

import numpy as np
import pytest

from edgelm.matrices import changed
from edgelm.matrices.changed import ChangedRows
from edgelm.matrices.matrix import Int8, workspace_size
from edgelm.matrices.quantize import BLOCK, to_int8

Array = np.ndarray
F, D = 150, 64
"""Rows, more than are made float32 at a time, and their numbers."""


def int8(numbers: Array) -> Int8:
    q, scale = to_int8(numbers)
    return Int8(q.view(np.uint8) ^ np.uint8(128), scale.astype(np.float32))


@pytest.fixture
def base() -> Int8:
    return int8(np.random.default_rng(0).standard_normal((F, D)).astype(np.float32))


@pytest.fixture
def change() -> Array:
    """Of some rows; the others have none."""
    rng = np.random.default_rng(1)
    found = (0.01 * rng.standard_normal((F, D))).astype(np.float16)
    found[rng.random(F) < 0.5] = 0
    return found


def test_nothing_is_changed_at_first(base: Int8) -> None:
    rows = ChangedRows(base)
    np.testing.assert_array_equal(rows, np.asarray(base))
    assert (len(rows), rows.shape, rows.ndim, rows.dtype) == (F, (F, D), 2, np.float32)


def test_what_is_set_is_read(base: Int8, change: Array) -> None:
    rows, expected = ChangedRows(base), np.asarray(base) + change
    rows.set_change(change)
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_array_equal(rows[7], expected[7])
    np.testing.assert_array_equal(rows[[3, 140]], expected[[3, 140]])
    np.testing.assert_array_equal(rows[...], expected)
    np.testing.assert_array_equal(changed.change_of(rows, base), change)
    np.testing.assert_array_equal(changed.change_of(rows, base, np.array([3, 140])), change[[3, 140]])
    other = rows.copy()
    rows.set_change(None)
    np.testing.assert_array_equal(rows, np.asarray(base))
    np.testing.assert_array_equal(other, expected)


def test_of_some_rows_the_others_lose_theirs(base: Int8, change: Array) -> None:
    rows, ids = ChangedRows(base), np.array([0, 3, 149], np.int32)
    rows.set_change(change)
    changed.set_change(rows, base, change[ids] + np.float16(1), ids)
    expected = np.asarray(base)
    expected[ids] += change[ids] + np.float16(1)
    np.testing.assert_array_equal(rows, expected)


def test_an_index_is_written_to(base: Int8) -> None:
    rows, expected = ChangedRows(base), np.asarray(base)
    for key in (4, [1, 130], slice(20, 100), ...):
        rows[key] += np.float32(0.25)
        expected[key] += np.float32(0.25)
    np.testing.assert_allclose(rows, expected, atol=1e-3)
    rows[...] = base
    np.testing.assert_array_equal(rows, np.asarray(base))


def test_what_is_too_large_is_infinite(base: Int8) -> None:
    rows = ChangedRows(base)
    rows[3] = 1e6
    assert np.isinf(rows[3]).all()
    assert np.isfinite(np.delete(np.asarray(rows), 3, 0)).all()


def test_the_helpers_do_the_same_to_both_forms(base: Int8, change: Array) -> None:
    rows, plain = ChangedRows(base), np.asarray(base)
    for weight in (rows, plain):
        changed.set_change(weight, base, change)
        for ids in (np.arange(F), np.arange(3, 9)):
            np.testing.assert_allclose(changed.change_of(weight, base, ids), change[ids], rtol=1e-3, atol=1e-6)
        changed.pull(weight, base, np.float32(0.25))
    np.testing.assert_allclose(rows, plain, atol=1e-5)
    others = ChangedRows(base), np.asarray(base)
    for other, weight in zip(others, (rows, plain), strict=True):
        changed.copy_from(other, weight)
        np.testing.assert_array_equal(other, np.asarray(weight))
        made = np.full((F, D), 7, np.uint8), np.full((F, D // BLOCK), np.nan, np.float32)
        used = np.arange(F) % 3 > 0
        changed.quantize_into(weight, used, *made)
        expected = np.asarray(weight)[used]
        steps = made[1][used].repeat(BLOCK, -1)
        assert (np.abs((made[0][used] - np.float32(128)) * steps - expected) <= steps * 0.51).all()
        assert (made[0][~used] == 7).all()
        assert np.isnan(made[1][~used]).all()


def test_rows_that_sleep_are_not_read(base: Int8, change: Array) -> None:
    asleep = np.arange(F) % 2 == 0
    rows = ChangedRows(Int8(base.q, np.where(asleep[:, None], np.float32(np.nan), base.scale)))
    a = np.random.default_rng(2).random((5, F), np.float32)
    a[:, asleep] = 0
    workspace, out = np.full(workspace_size(5, (F, D)), np.nan, np.float32), np.full((5, D), np.nan, np.float32)
    np.testing.assert_allclose(
        rows.product_back(a, workspace, out), a[:, ~asleep] @ np.asarray(base)[~asleep], rtol=1e-4, atol=1e-4
    )
