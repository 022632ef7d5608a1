"""Which engine answers: what is asked for, else what was measured on this device, once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgelm.engine import choice
from edgelm.engine.choice import choose
from edgelm.engine.session import Session
from edgelm.errors import ConfigError
from edgelm.kernels import aot
from edgelm.model import hub

Opened = tuple[list[str], Callable[[str], Session]]


class Slow:
    """A session that takes so many ticks of a clock for a token."""

    vocab_size = 7

    def __init__(self, clock: list[float], ticks: float) -> None:
        self.clock, self.ticks = clock, ticks

    def run(self, ids: np.ndarray) -> None:
        self.clock[0] += self.ticks * len(ids)

    def reset(self) -> None:
        """Nothing to forget."""


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Opened:
    """Which engines were opened, and what opens them: the kernels are four times as fast."""
    monkeypatch.setenv("EDGELM_HOME", str(tmp_path))
    monkeypatch.delenv("EDGELM_ENGINE", raising=False)
    monkeypatch.delenv("EDGELM_GRAPH", raising=False)
    monkeypatch.setattr(aot, "in_use", lambda: "x86-64-v3")
    clock, found = [0.0], list[str]()
    monkeypatch.setattr(choice.time, "perf_counter", lambda: clock[0])

    def opens(engine: str) -> Session:
        found.append(engine)
        return Slow(clock, 0.001 if engine == "kernels" else 0.004)  # type: ignore[return-value]

    return found, opens


@pytest.fixture
def model(tiny_model: Path) -> hub.Model:
    return hub.load(str(tiny_model))


def test_it_is_measured_once(model: hub.Model, opened: Opened) -> None:
    found, opens = opened
    first = choose(model, None, opens, learns=False, measures=False)
    assert (first.engine, first.why) == ("kernels", "measured here: 1,000 tokens/s against 250 of onnx")
    assert found == ["kernels", "onnx"]
    assert choose(model, None, opens, learns=True, measures=True) == first
    assert found == ["kernels", "onnx"], "the second time it is known"


def test_another_model_is_measured_anew(model: hub.Model, opened: Opened) -> None:
    found, opens = opened
    choose(model, None, opens, learns=False, measures=False)
    model.sha256 = "0" * 64
    choose(model, None, opens, learns=False, measures=False)
    assert len(found) == 4
    assert len(json.loads(choice._path().read_text())) == 2


@pytest.mark.parametrize("held", ["", "[]", "{", '{"KEY": {"kernels": "x", "onnx": 1}}', '{"KEY": {"kernels": 1e400}}'])
def test_what_the_file_holds_besides_counts_for_nothing(model: hub.Model, opened: Opened, held: str) -> None:
    found, opens = opened
    choice._path().write_text(held.replace("KEY", choice._key(model)))
    assert choose(model, None, opens, learns=False, measures=False).engine == "kernels"
    assert found == ["kernels", "onnx"]


def test_a_place_that_cannot_be_written_to_is_no_error(
    model: hub.Model,
    opened: tuple[list[str], Callable[[str], Session]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("EDGELM_HOME", str(tmp_path / "file"))
    assert choose(model, None, opened[1], learns=False, measures=False).engine == "kernels"


def test_who_asks_is_given_it(model: hub.Model, opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    found, opens = opened
    assert choose(model, "onnx", opens, learns=True, measures=True).engine == "onnx"
    monkeypatch.setenv("EDGELM_ENGINE", "onnx")
    assert choose(model, None, opens, learns=True, measures=True).engine == "onnx"
    assert choose(model, "kernels", opens, learns=True, measures=True).engine == "kernels", "the option comes first"
    monkeypatch.setenv("EDGELM_ENGINE", "gpu")
    with pytest.raises(ConfigError, match="EDGELM_ENGINE must be kernels or onnx, not 'gpu'"):
        choose(model, None, opens, learns=True, measures=True)
    assert found == []


def test_without_onnx_runtime_the_kernels_answer(
    model: hub.Model, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "find_spec", lambda _: None)
    assert choose(model, None, opened[1], learns=False, measures=False).engine == "kernels"


def test_kernels_that_are_slow_to_load_or_to_run_are_not_tried(
    model: hub.Model, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, opens = opened
    monkeypatch.setenv("EDGELM_GRAPH", "float32")
    assert choose(model, None, opens, learns=True, measures=True).engine == "onnx"
    monkeypatch.delenv("EDGELM_GRAPH")
    monkeypatch.setattr(aot, "in_use", lambda: "python")
    assert choose(model, None, opens, learns=True, measures=True).engine == "onnx"
    monkeypatch.setattr(aot, "in_use", lambda: "jit")
    for learns in (False, True):
        assert choose(model, None, opens, learns=learns, measures=False).engine == "onnx"
    assert found == []
    assert choose(model, None, opens, learns=True, measures=True).engine == "kernels"
    assert choose(model, None, opens, learns=True, measures=False).engine == "kernels", "measured by now"
    assert choose(model, None, opens, learns=False, measures=False).engine == "onnx", "nothing is learned"
