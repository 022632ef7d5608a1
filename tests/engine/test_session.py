"""What a session refuses. What it computes: ``tests/test_parity.py``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgelm.engine.ort_session import OrtSession
from edgelm.errors import ModelFileError
from edgelm.export.step import build_graph
from tests.command import ROOT
from tests.tiny import random_model, tiny_config


@pytest.mark.parametrize("graph", [b"", b"not a graph", build_graph(tiny_config())[:-100]])
def test_a_damaged_graph(graph: bytes) -> None:
    with pytest.raises(ModelFileError, match="refuses the graph") as caught:
        OrtSession(graph, {})
    assert "\n" not in str(caught.value)


def test_a_weight_that_is_missing() -> None:
    config, weights = random_model()
    del weights["final_norm"]
    with pytest.raises(ModelFileError, match="'final_norm'"):
        OrtSession(build_graph(config), weights)


def test_nothing_is_collected(tmp_path: Path, tiny_model: Path) -> None:
    script = "from edgelm.model import hub\nfrom edgelm.engine.ort_session import OrtSession\nimport sys\n"
    script += "from edgelm.export.step import build_graph\n"
    script += "import numpy as np\nmodel = hub.load(sys.argv[1])\n"
    script += "OrtSession(build_graph(model.config), model.weights).run(np.array([1]))"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ORT_", "XDG_"))}
    command = [sys.executable, "-c", script, str(tiny_model)]
    subprocess.run(command, cwd=ROOT, env=environment | {"HOME": str(tmp_path)}, check=True, timeout=120)
    left = [path for path in tmp_path.rglob("*") if path.is_file() and "numba" not in path.parts]
    assert left == []
