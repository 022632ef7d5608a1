"""``export``: a folder that needs no edgelm."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgelm.engine.ort_session import OrtSession, run_exported
from edgelm.export.step import build_graph
from edgelm.model import hub
from tests.cli.conftest import Cli
from tests.command import ROOT, assert_one_line
from tests.model_folder import contents

FILES = ["README.md", "config.json", "model.onnx", "tokenizer.json"]
IDS = np.arange(1, 40)


def _logits(folder: Path) -> np.ndarray:
    return run_exported((folder / "model.onnx").read_bytes(), IDS)


@pytest.mark.parametrize(
    ("precision", "allowed", "held"),
    [
        ("none", 1e-4, "float32"),
        ("int8", 0.5, "int8"),
        ("int4", 3, "int4, embedding int8"),
        ("ternary", 4, "ternary, embedding int8"),
    ],
)
def test_an_export(cli: Cli, tiny_model: Path, tmp_path: Path, precision: str, allowed: float, held: str) -> None:
    folder = tmp_path / "deep" / "out"
    fields = cli("export", folder, "--quantize", precision, "--json").json
    assert fields["files"] == FILES == sorted(path.name for path in folder.iterdir())
    assert fields["bytes"] == sum(map(len, contents(folder).values()))
    assert 0 <= fields["max_abs_error"] < allowed
    assert [path.name for path in folder.parent.iterdir()] == ["out"]
    model = hub.load(str(tiny_model))
    expected = OrtSession(build_graph(model.config), model.weights).run(IDS, 0)
    assert np.abs(_logits(folder) - expected).max() < allowed
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert (config["base_sha256"], config["precision"]) == (model.sha256, held)
    assert f"({held})" in (folder / "README.md").read_text(encoding="utf-8")


def test_fewer_bits_are_fewer_bytes(cli: Cli, tmp_path: Path) -> None:
    sizes = []
    for precision in ("none", "int8", "int4", "ternary"):
        cli("export", tmp_path / precision, "--quantize", precision)
        sizes.append((tmp_path / precision / "model.onnx").stat().st_size)
    assert sizes == sorted(sizes, reverse=True)


def test_an_earlier_export_is_replaced(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "out"
    first = cli("export", folder, "--quantize", "none", "--json").json
    monkeypatch.chdir(folder)
    second = cli("export", ".", "--json").json
    assert second["bytes"] < first["bytes"]
    assert sorted(path.name for path in folder.iterdir()) == FILES
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_was_learned_can_be_merged(cli: Cli, tmp_path: Path) -> None:
    cli("chat", "--max-tokens", "1", input="The ferry waits in the fog.\n")
    for name, more in (("base", []), ("mine", ["--merge-profile"])):
        assert cli("export", tmp_path / name, "--quantize", "none", *more, "--json").json["max_abs_error"] < 1e-4
    assert np.abs(_logits(tmp_path / "base") - _logits(tmp_path / "mine")).max() > 1e-4


def test_a_folder_of_somebody_else(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("mine", encoding="utf-8")
    before = contents(tmp_path)
    for folder in (tmp_path, tmp_path / "a file"):
        assert "is no earlier export" in assert_one_line(cli("export", folder))
    assert "cannot be written" in assert_one_line(cli("export", tmp_path / "a file" / "out"))
    assert contents(tmp_path) == before


def _documented() -> str:
    """The Python block of docs/model.md that runs an exported model."""
    text = (ROOT / "docs" / "model.md").read_text(encoding="utf-8")
    found = re.search(r"^#+ Run an exported model$.*?^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def test_ten_lines_are_enough() -> None:
    lines = [line for line in _documented().splitlines() if line.strip()]
    assert len(lines) <= 10
    assert "edgelm" not in _documented()


@pytest.mark.parametrize("precision", ["none", "int8", "int4", "ternary"])
def test_the_documented_lines_run(cli: Cli, tmp_path: Path, precision: str) -> None:
    folder = tmp_path / "out"
    cli("export", folder, "--quantize", precision)
    script = f"folder = {str(folder)!r}\n{_documented()}\nimport sys\nassert 'edgelm' not in sys.modules\n"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip()
