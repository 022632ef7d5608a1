"""Fixtures for all tests."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from edgelm.ports import level_of_this_processor, levels
from edgelm.text.tokenizer import Tokenizer
from tests.model_folder import write_tiny_model
from tests.unwritten import nan_where_nothing_was_written


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


# A machine may be busy with something else: no test says how long anything takes.
settings.register_profile("edgelm", deadline=None)
settings.load_profile("edgelm")


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one library of kernels, compiled ahead of time for this processor."""
    level = level_of_this_processor(levels())
    if level is None:
        pytest.skip(f"ports/levels.toml has no level for this processor ({platform.system()} {platform.machine()})")
    numba = pytest.importorskip("numba", reason="kernels are compiled by numba")
    codegen = pytest.importorskip("tools.aot.codegen")
    from tools.aot.link import find_linker

    if not numba.__version__.startswith(codegen.PINNED):
        pytest.skip(f"kernels are compiled ahead of time by numba {codegen.PINNED}x, not {numba.__version__}")
    if find_linker(levels()[level]["triple"]) is None:
        pytest.skip("no linker: install binutils")
    path = tmp_path_factory.mktemp("compiled") / f"{level}.so"
    # In a process of its own, as always: numba keeps what it compiled. Its switch for plain Python is off.
    environment = {**os.environ, "PYTHONHASHSEED": "0", "NUMBA_DISABLE_JIT": "0"}
    command = [sys.executable, "-m", "tools.aot", level, str(path)]
    subprocess.run(command, cwd=Path(__file__).parents[1], env=environment, check=True, capture_output=True)
    return path.parent


@pytest.fixture(scope="session", autouse=True)
def unwritten() -> Iterator[None]:
    """In all tests the package's fresh buffers are NaN; what another process does is its own."""
    with nan_where_nothing_was_written():
        yield
