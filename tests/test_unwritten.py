"""Buffers that nobody has written are NaN in these tests (``tests/unwritten.py``), and nobody reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgelm.model import hub
from edgelm.model.state import empty_state
from edgelm.network import final_norm
from edgelm.network.network import Network


def test_buffers_of_the_network_are_nan_before_a_pass(tiny_model: Path) -> None:
    model = hub.load(str(tiny_model))
    net = Network(model.config, model.weights, [], 8)
    buffers = [buffer for _, part in net.passes for buffer in part.buffers.values()]
    assert len(buffers) > 40
    assert all(np.isnan(buffer).all() for buffer in buffers)
    assert np.isnan(net.logits).all() and np.isnan(net.streams).all()


@pytest.mark.parametrize("steps", [1, 3, 8])
def test_a_pass_reads_nothing_that_it_has_not_written(tiny_model: Path, steps: int) -> None:
    model = hub.load(str(tiny_model))
    ids = np.arange(steps + 1) % model.config.vocab_size
    net = Network(model.config, model.weights, [*model.weights], 8)
    losses = net.forward(ids[:-1], ids[1:], empty_state(model.config))
    net.backward()
    assert np.isfinite(losses).all()
    assert [name for name, gradient in net.grads.items() if not np.isfinite(gradient).all()] == []


def test_a_buffer_that_is_read_too_early_shows(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(final_norm.norm_kernels, "rms_forward", lambda *_: None)
    model = hub.load(str(tiny_model))
    net = Network(model.config, model.weights, [], 8)
    losses = net.forward(np.zeros(3, np.int64), np.ones(3, np.int64), empty_state(model.config))
    assert np.isnan(losses).all()
