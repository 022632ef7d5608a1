"""Which engine answers: what is asked for, else what was measured on this device, once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgelm.engine import choice
from edgelm.engine.choice import choose
from edgelm.errors import ConfigError
from edgelm.kernels import aot
from edgelm.model import hub


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
def opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Which engines were opened; the kernels are four times as fast."""
    monkeypatch.setenv("EDGELM_HOME", str(tmp_path))
    monkeypatch.delenv("EDGELM_ENGINE", raising=False)
    monkeypatch.delenv("EDGELM_GRAPH", raising=False)
    monkeypatch.setattr(aot, "in_use", lambda: "x86-64-v3")
    clock, found = [0.0], list[str]()
    monkeypatch.setattr(choice.time, "perf_counter", lambda: clock[0])

    def opens(model: hub.Model, threads: int, *, engine: str) -> Slow:
        found.append(engine)
        return Slow(clock, 0.001 if engine == "kernels" else 0.004)

    monkeypatch.setattr(choice, "open_session", opens)
    return found


@pytest.fixture
def model(tiny_model: Path) -> hub.Model:
    return hub.load(str(tiny_model))


def test_it_is_measured_once(model: hub.Model, opened: list[str]) -> None:
    first = choose(model, None, 1, learns=False, measures=False)
    assert (first.engine, first.why) == ("kernels", "measured here: 1,000 tokens/s against 250 of onnx")
    assert opened == ["kernels", "onnx"]
    assert choose(model, None, 1, learns=True, measures=True) == first
    assert opened == ["kernels", "onnx"], "the second time it is known"


def test_another_model_is_measured_anew(model: hub.Model, opened: list[str]) -> None:
    choose(model, None, 1, learns=False, measures=False)
    model.sha256 = "0" * 64
    choose(model, None, 1, learns=False, measures=False)
    assert len(opened) == 4
    assert len(json.loads(choice._path().read_text())) == 2


@pytest.mark.parametrize("held", ["", "[]", "{", '{"KEY": {"kernels": "x", "onnx": 1}}', '{"KEY": {"kernels": 1e400}}'])
def test_what_the_file_holds_besides_counts_for_nothing(model: hub.Model, opened: list[str], held: str) -> None:
    choice._path().write_text(held.replace("KEY", choice._key(model)))
    assert choose(model, None, 1, learns=False, measures=False).engine == "kernels"
    assert opened == ["kernels", "onnx"]


def test_a_place_that_cannot_be_written_to_is_no_error(
    model: hub.Model,
    opened: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("EDGELM_HOME", str(tmp_path / "file"))
    assert choose(model, None, 1, learns=False, measures=False).engine == "kernels"


def test_who_asks_is_given_it(model: hub.Model, opened: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose(model, "onnx", 1, learns=True, measures=True).engine == "onnx"
    monkeypatch.setenv("EDGELM_ENGINE", "onnx")
    assert choose(model, None, 1, learns=True, measures=True).engine == "onnx"
    assert choose(model, "kernels", 1, learns=True, measures=True).engine == "kernels", "the option comes first"
    monkeypatch.setenv("EDGELM_ENGINE", "gpu")
    with pytest.raises(ConfigError, match="EDGELM_ENGINE must be kernels or onnx, not 'gpu'"):
        choose(model, None, 1, learns=True, measures=True)
    assert opened == []


def test_without_onnx_runtime_the_kernels_answer(
    model: hub.Model, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "has_onnxruntime", lambda: False)
    assert choose(model, None, 1, learns=False, measures=False).engine == "kernels"


def test_kernels_that_are_slow_to_load_or_to_run_are_not_tried(
    model: hub.Model, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGELM_GRAPH", "float32")
    assert choose(model, None, 1, learns=True, measures=True).engine == "onnx"
    monkeypatch.delenv("EDGELM_GRAPH")
    monkeypatch.setattr(aot, "in_use", lambda: "python")
    assert choose(model, None, 1, learns=True, measures=True).engine == "onnx"
    monkeypatch.setattr(aot, "in_use", lambda: "jit")
    for learns in (False, True):
        assert choose(model, None, 1, learns=learns, measures=False).engine == "onnx"
    assert opened == []
    assert choose(model, None, 1, learns=True, measures=True).engine == "kernels"
    assert choose(model, None, 1, learns=True, measures=False).engine == "kernels", "measured by now"
    assert choose(model, None, 1, learns=False, measures=False).engine == "onnx", "nothing is learned"
