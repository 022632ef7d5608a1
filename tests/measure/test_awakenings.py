"""Which blocks a text wakes."""

from __future__ import annotations

import numpy as np

from edgelm.measure.awakenings import Awakenings
from tests.tiny import tiny_config


def test_what_is_asleep_does_not_count() -> None:
    awake = Awakenings(tiny_config())  # 2 layers of 5 blocks, 2 of which may be awake
    first = [[[3, 2, 1, 0, 0], [0, 0, 0, 5, 0]], [[0, 1, 0, 0, 0], [0, 4, 5, 6, 0]]]
    awake.add(np.array(first, np.float32))
    awake.add(np.array([[[0, 0, 0, 0, 1]], [[0, 0, 0, 0, 0]]], np.float32))
    assert awake.strengths.tolist() == [[3, 2, 0, 5, 1], [0, 1, 5, 6, 0]]
    assert [layer.tolist() for layer in awake.strongest(2)] == [[0, 3], [2, 3]]
    assert awake.covered(2) == 19 / 23 and awake.covered(5) == 1
    assert [awake.enough(share) for share in (0, 19 / 23, 0.9, 1)] == [1, 2, 3, 4]


def test_nothing_awake() -> None:
    assert Awakenings(tiny_config()).enough(0.5) == 5
