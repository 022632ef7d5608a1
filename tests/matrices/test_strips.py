"""Strips hold the numbers of the integers that they were made of."""

from __future__ import annotations

import numpy as np
import pytest

from edgelm.matrices.quantize import to_int8
from edgelm.matrices.strips import Strips
from edgelm.matrices.ternary import Ternary
from tests import naive

Array = np.ndarray


def integers(*shape: int) -> tuple[Array, Array]:
    q, scale = to_int8(np.random.default_rng(0).standard_normal(shape).astype(np.float32))
    return q.view(np.uint8) ^ np.uint8(128), scale.astype(np.float32)


@pytest.mark.parametrize("shape", [(16, 32), (37, 96), (1, 32), (3, 32, 64), (2, 3, 5, 32)])
def test_they_are_a_copy_in_another_order(shape: tuple[int, ...]) -> None:
    q, scale = integers(*shape)
    before = q.copy(), scale.copy()
    made = Strips.of(q, scale)
    for place in np.ndindex(*shape[:-2]):
        expected = naive.strips(q[place], scale[place])
        np.testing.assert_array_equal(made.q[place], expected[0])
        np.testing.assert_array_equal(made.scale[place], expected[1])
    assert made.nbytes == made.q.nbytes + made.scale.nbytes
    made.q[:], made.scale[:] = 0, 0
    assert (q == before[0]).all() and (scale == before[1]).all()


def test_blocks_are_taken_over_where_they_were_written() -> None:
    made = Strips.of(*integers(3, 32, 64))
    before = made.q.copy(), made.scale.copy()
    weight = np.random.default_rng(1).standard_normal((3, 32, 64)).astype(np.float32)
    made.quantize(weight, np.array([False, True, False]))
    for i in (0, 2):
        assert (made.q[i] == before[0][i]).all() and (made.scale[i] == before[1][i]).all()
    expected = naive.strips(*(part[1] for part in _coded(weight)))
    np.testing.assert_allclose(made.scale[1], expected[1], rtol=1e-6)
    assert np.abs(made.q[1].astype(int) - expected[0]).max() <= 1


def _coded(weight: Array) -> tuple[Array, Array]:
    q, scale = naive.codes(weight.astype(np.float64))
    return (q + 128).astype(np.uint8), scale.astype(np.float32)


def test_a_view_of_a_file_may_be_given_in_any_order() -> None:
    q, scale = integers(37, 96)
    turned = np.asfortranarray(q), np.asfortranarray(scale)
    assert (Strips.of(*turned).q == Strips.of(q, scale).q).all()
    assert (Strips.of(*turned).scale == Strips.of(q, scale).scale).all()


@pytest.mark.parametrize("shape", [(16, 32), (37, 96), (3, 32, 64)])
def test_strips_of_ternary_numbers(shape: tuple[int, ...]) -> None:
    matrix = Ternary.of(np.random.default_rng(0).standard_normal(shape).astype(np.float32))
    made = Strips.of_ternary(matrix)
    steps = np.rint(np.asarray(matrix) / matrix.scale).astype(np.int8)
    assert set(np.unique(steps)) == {-1, 0, 1}
    for place in np.ndindex(*shape[:-2]):
        np.testing.assert_array_equal(made.q[place], naive.ternary_strips(steps[place]))
    assert made.scale.shape == (*shape[:-2], 1, 1, 1) and (made.scale == matrix.scale).all()
    assert made.q.nbytes == -(-shape[-2] // 16) * 16 * np.prod(shape) / shape[-2] / 4
