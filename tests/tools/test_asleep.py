"""Neurons that are put to sleep, to measure what that saves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.model_folder import write_tiny_model
from tools.measure.asleep import opened


def test_what_sleeps_does_not_answer(tmp_path: Path) -> None:
    folder = str(write_tiny_model(tmp_path / "tiny", mixer="rwkv7"))
    logits = [opened(folder, keep).run(np.array([5, 6])) for keep in (1.0, 1.0, 0.0)]
    np.testing.assert_array_equal(logits[0], logits[1])
    assert np.isfinite(logits[2]).all()
    assert not np.allclose(logits[0], logits[2])


def test_a_model_without_a_channel_mix_is_refused(tmp_path: Path) -> None:
    folder = str(write_tiny_model(tmp_path / "tiny"))
    with pytest.raises(SystemExit, match="no channel mix"):
        opened(folder, 1.0)
