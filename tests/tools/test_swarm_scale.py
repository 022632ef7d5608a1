"""Many devices in Flower's simulation, on a tiny model: in threads of this process, and once in processes of Ray."""

from __future__ import annotations

import importlib.machinery
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("flwr", reason="the swarm needs Flower: pip install 'edgelm[swarm]'")

from edgelm.model import hub
from edgelm.swarm.aggregate import AggregateConfig
from edgelm.swarm.update import UpdateConfig
from tests.command import ROOT
from tools.measure.swarm.devices import Swarm
from tools.measure.swarm.scale import Sizes, scale
from tools.measure.swarm.simulated import BROKEN, RAISING, SILENT

pytestmark = pytest.mark.jit_only
BACKEND = "flwr.server.superlink.fleet.vce.backend.raybackend"


class InProcess:
    """What Flower's simulation runs devices with, in a thread of this process in place of Ray's processes."""

    num_workers = 1

    def __init__(self, config: Any) -> None:
        self._app: Any = None

    def build(self, app_fn: Callable[[], Any]) -> None:
        self._app = app_fn()

    def process_message(self, message: Any, context: Any) -> tuple[Any, Any]:
        return self._app(message, context), context

    def terminate(self) -> None:
        self._app = None


@pytest.fixture
def swarm(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Swarm:
    """One whose updates nothing clips, of a model that is a preset; devices run in this process."""
    ray, backend = ModuleType("ray"), ModuleType(BACKEND)
    ray.__spec__ = importlib.machinery.ModuleSpec("ray", None)
    backend.RayBackend = InProcess  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, BACKEND, backend)
    model = hub.load(str(tiny_model))
    monkeypatch.setattr("tools.measure.swarm.simulated.PRESETS", {"tiny": model.config})
    return Swarm(model, UpdateConfig(clip=1000, noise=0), AggregateConfig("mean", 0.2, 1.0), tmp_path / "cache")


def test_liars_that_nothing_clips_move_the_mean_alone(swarm: Swarm, monkeypatch: pytest.MonkeyPatch) -> None:
    # Fewer than a fifth of those whose answers count, which is what is expected.
    monkeypatch.setattr("tools.measure.swarm.simulated.FAULTS", {BROKEN: 0.07, RAISING: 0.02})
    found = scale(swarm, Sizes("tiny", 100, 0.15, wait_seconds=300, hands_out=True))
    assert (found["updates"], found["refused"], found["no_answer"]) == (91, 7, 2)
    assert sum(found["refused_lines"].values()) == 7
    assert [line for line in found["refused_lines"] if not line or "\n" in line] == []
    rows = {row["strategy"]: row for row in found["aggregated"]}
    assert {name: row["cosine_to_common"] > 0.5 for name, row in rows.items()} == {
        "mean": False, "multi-krum": True, "trimmed-mean": True,
    }  # fmt: skip
    assert rows["multi-krum"]["error"] < 0.5 < rows["mean"]["error"]
    assert 0 < found["up_one"] < swarm.update.budget_bytes
    assert 0 < found["up_all"] <= 98 * found["up_one"]
    assert found["down_one"] < 1000
    handed = found["handed_out"]
    assert handed["seen"] == 100
    assert handed["bytes_of_layer"] < handed["down_one"] < handed["bytes_of_layer"] + 1000


def test_without_liars_the_mean_is_that_of_the_honest(swarm: Swarm) -> None:
    found = scale(swarm, Sizes("tiny", 10, 0.0, ("mean",), wait_seconds=300))
    assert found["updates"] == 10
    assert found["aggregated"][0]["error"] < 1e-3
    assert "handed_out" not in found


def test_a_device_that_does_not_answer_is_waited_for(swarm: Swarm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tools.measure.swarm.simulated.FAULTS", {SILENT: 1.0})
    found = scale(swarm, Sizes("tiny", 3, 0.0, (), wait_seconds=0.5))
    assert (found["updates"], found["refused"], found["no_answer"]) == (0, 0, 3)


def test_devices_run_in_processes_of_ray(tiny_model: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the simulation needs Ray: pip install 'flwr[simulation]'")
    options = ("--model", str(tiny_model), "--devices", "10", "--strategies", "multi-krum", "--wait", "100")
    done = subprocess.run(
        [sys.executable, "-m", "tools.measure.swarm", "scale", *options],
        cwd=ROOT, env={**os.environ, "EDGELM_HOME": str(tmp_path)}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["updates"], found["refused"], found["no_answer"]) == (10, 0, 0)
    assert found["aggregated"][0]["error"] < 0.5
