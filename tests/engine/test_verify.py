"""What is wrong with a model folder is found, all of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from edgelm.engine import opening, verify
from edgelm.engine.verify import problems
from edgelm.export.step import build_graph
from edgelm.model import hub
from tests.model_folder import sign


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may break."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def test_a_good_one(tiny_model: Path) -> None:
    assert problems(tiny_model) == []


def test_every_damaged_file_is_named(folder: Path) -> None:
    (folder / "learning.safetensors").write_bytes(b"")
    (folder / "tokenizer.json").unlink()
    found = problems(folder)
    assert len(found) == 2
    assert "tokenizer.json: cannot be read" in found[0] and "learning.safetensors: altered or truncated" in found[1]


def test_no_model(tmp_path: Path) -> None:
    assert len(problems(tmp_path)) == 1


def test_a_graph_that_is_not_that_of_the_sizes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = hub.load(str(folder)).config
    for changed, says in (
        (config.resized(norm_eps=0.5), "is off the reference by"),
        (config.resized(vocab_size=301), "the weights have no such tensor"),
    ):
        monkeypatch.setattr(opening, "build_graph", lambda _, *a, changed=changed: build_graph(changed, *a))
        assert says in problems(folder)[0]


def test_weights_that_overflow(folder: Path) -> None:
    path = folder / "weights.safetensors"
    tensors = load(path.read_bytes())
    tensors["final_norm"] = np.full_like(tensors["final_norm"], 3e38)
    path.write_bytes(save(tensors))
    sign(folder)
    assert "is off the reference by nan" in problems(folder)[0]


def test_a_state_without_measure(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "MAX_STATE_BYTES", 1000)
    assert "its state takes" in problems(tiny_model)[0]


def test_too_little_memory(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(verify, "forward", greedy)
    assert "more memory" in problems(tiny_model)[0]
