"""The accountant, and the noise on the mean."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from edgelm.errors import ConfigError, DeviceError
from edgelm.swarm.privacy import epsilon, hidden_mean


def test_more_noise_fewer_rounds_and_fewer_devices_a_round_tell_less() -> None:
    pytest.importorskip("dp_accounting")
    assert epsilon(2, 3) < epsilon(1, 3) < epsilon(1, 10)
    assert epsilon(1, 10, 0.1) < epsilon(1, 10)
    assert epsilon(1, 10, delta=1e-3) < epsilon(1, 10)


def test_one_round_of_all_is_at_most_what_the_formula_of_renyi_gives() -> None:
    pytest.importorskip("dp_accounting")
    # Mironov 2017, arXiv 1702.07476: the least over orders a of a / (2 z^2) + log(1/delta) / (a - 1). The accountant's
    # conversion is a better one.
    orders = np.arange(2, 500)
    for noise_multiplier in (0.5, 1.0, 4.0):
        plain = (orders / (2 * noise_multiplier**2) + np.log(1e5) / (orders - 1)).min()
        assert 0.6 * plain < epsilon(noise_multiplier, 1) <= plain


def test_the_noise_on_the_mean_is_that_of_the_sum_by_the_devices() -> None:
    mean = {"a": np.full((300, 300), 2, np.float32)}
    found = hidden_mean(mean, 3.0, 0.5, 10, np.random.default_rng(0))["a"]
    assert found.dtype == np.float32
    assert found.std() == pytest.approx(0.15, rel=0.02)
    assert found.mean() == pytest.approx(2, abs=0.005)
    assert (mean["a"] == 2).all()


@pytest.mark.parametrize("values", [(0, 1, 1.0, 1e-5), (1, 0, 1.0, 1e-5), (1, 1, 1.1, 1e-5), (1, 1, 1.0, 0)])
def test_values_out_of_range_are_refused(values: tuple[float, int, float, float]) -> None:
    with pytest.raises(ConfigError, match="noise_multiplier must be above 0"):
        epsilon(*values)


def test_without_the_accountant_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(DeviceError, match=r"pip install 'edgelm\[swarm\]'"):
        epsilon(1, 1)
