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


PART = "The ferry leaves the island at seven in the morning.\n<|doc|>\nThe baker is always the first on board.\n"
MODEL_FILES = ["README.md", "config.json", "learning.safetensors", "tokenizer.json", "weights.safetensors"]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(PART, encoding="utf-8")
    return path


def test_a_part_for_a_text(cli: Cli, tiny_model: Path, text: Path, tmp_path: Path) -> None:
    fields = cli("export", tmp_path / "out", "--for", text, "--keep", 3, "--quantize", "none", "--json").json
    whole = cli("export", tmp_path / "whole", "--quantize", "none", "--json").json
    assert fields["files"] == FILES and fields["bytes"] < fields["bytes_before"] == whole["bytes"]
    assert (fields["n_blocks"], fields["blocks_kept"]) == (4, 3)
    assert all(len(layer) == 3 and layer == sorted(set(layer)) for layer in fields["blocks"])
    # With few blocks a token may wake next to nothing, which the norm then multiplies.
    assert 0.5 < fields["awake_covered"] < 1 and fields["max_abs_error"] < 1e-3
    made, model = hub.of_blocks(hub.load(str(tiny_model)), np.array(fields["blocks"])), hub.load(str(tiny_model))
    expected = OrtSession(build_graph(made.config), made.weights).run(IDS, 0)
    assert np.abs(_logits(tmp_path / "out") - expected).max() < 1e-3
    config = json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))
    assert (config["name"], config["base_sha256"]) == ("tiny-3", model.sha256)
    assert config["model"]["ffn"]["n_blocks"] == 3
    scored = cli("evaluate", text, "--json").json["bits_per_byte"]
    assert fields["bits_per_byte_before"] == pytest.approx(scored, abs=1e-3)
    assert fields["bits_per_byte_after"] != fields["bits_per_byte_before"]
    assert fields["general_after"] != fields["general_before"]


def test_a_part_of_all_blocks_is_the_whole(cli: Cli, text: Path, tmp_path: Path) -> None:
    fields = cli("export", tmp_path / "out", "--for", text, "--keep", 4, "--json").json
    assert fields["bits_per_byte_after"] == fields["bits_per_byte_before"]
    assert (fields["awake_covered"], fields["bytes"]) == (1, fields["bytes_before"] + len("-4") * 2)


def test_as_many_blocks_as_cover_what_is_awake(cli: Cli, text: Path, tmp_path: Path) -> None:
    done = cli("export", tmp_path / "out", "--for", text)
    kept = int(re.findall(r"(\d) of 4 blocks of each layer", done.stdout)[0])
    covered = [
        cli("export", tmp_path / "out", "--for", text, "--keep", n, "--json").json["awake_covered"] for n in range(1, 5)
    ]
    assert covered == sorted(covered) and covered[kept - 1] >= 0.95
    assert kept == 1 or covered[kept - 2] < 0.95
    assert "this text: " in done.stdout and "general text: " in done.stdout


def test_a_part_as_a_model_answers_and_learns(cli: Cli, text: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    fields = cli("export", folder, "--for", text, "--keep", 2, "--format", "edgelm", "--json").json
    assert fields["files"] == MODEL_FILES == sorted(path.name for path in folder.iterdir())
    assert cli("models", "verify", folder, "--json", model=None).json["models"][0]["ok"]
    scored = cli("evaluate", text, "--json", model=folder).json["bits_per_byte"]
    assert scored == pytest.approx(fields["bits_per_byte_after"], rel=1e-3)
    learned = cli("adapt", text, "--holdout", "0", "--json", "--profile", "part", model=folder).json
    assert learned["tokens"] > 0
    assert hub.load(str(folder)).grad_rms.keys() >= {"layers.0.ffn.w2"}


def test_a_whole_model_folder_holds_the_same_numbers(cli: Cli, tiny_model: Path, tmp_path: Path) -> None:
    assert cli("export", tmp_path / "out", "--format", "edgelm", "--json").json["max_abs_error"] < 1e-4
    found, expected = (hub.load(str(folder)) for folder in (tmp_path / "out", tiny_model))
    assert found.config == expected.config
    for name, array in expected.weights.items():
        np.testing.assert_allclose(found.weights[name], array, rtol=1e-6)


def test_no_model_but_an_exported_one_is_replaced(cli: Cli, tiny_model: Path, text: Path, tmp_path: Path) -> None:
    before = contents(tiny_model)
    for kind in ("onnx", "edgelm"):
        assert "is no earlier export" in assert_one_line(cli("export", tiny_model, "--format", kind))
    assert contents(tiny_model) == before
    for n in (2, 3):
        cli("export", tmp_path / "out", "--for", text, "--keep", n, "--format", "edgelm")
    assert hub.load(str(tmp_path / "out")).config.n_blocks == 3
    (tmp_path / "out" / "config.json").write_text("{", encoding="utf-8")
    assert "is no earlier export" in assert_one_line(cli("export", tmp_path / "out", "--format", "edgelm"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--for", "nowhere.txt"], "nowhere.txt: cannot be read"),
        (["--for", "TEXT", "--keep", "5"], "--keep must be between 1 and 4"),
        (["--keep", "2"], "--keep needs a text"),
        (["--format", "edgelm", "--quantize", "ternary"], "--quantize ternary is for --format onnx"),
    ],
)
def test_what_cannot_be_a_part(cli: Cli, text: Path, tmp_path: Path, words: list[str], message: str) -> None:
    given = [str(text) if word == "TEXT" else word for word in words]
    assert message in cli("export", tmp_path / "out", *given).stderr
    assert not (tmp_path / "out").exists()
