"""Fixtures for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgelm.text.tokenizer import Tokenizer
from tests.model_folder import write_tiny_model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model that runs in no time. Not to be written to: copy it."""
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def tokenizer(tiny_model: Path) -> Tokenizer:
    """The tokenizer of the tiny model."""
    return Tokenizer(tiny_model / "tokenizer.json")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder of its own (``EDGELM_HOME``), not made yet."""
    folder = tmp_path / "home"
    monkeypatch.setenv("EDGELM_HOME", str(folder))
    return folder
