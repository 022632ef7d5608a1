"""Fixtures of the tests of kernels."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from tests.command import ROOT


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


# Twice as many digits show what is wrong in the equations, which plain Python shows too; to compile them takes minutes.
@pytest.fixture(params=[np.float32, pytest.param(np.float64, marks=pytest.mark.once)])
def dtype(request: pytest.FixtureRequest) -> type:
    return request.param


@pytest.fixture(scope="package")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """What ``tests.kernels.plain`` writes: every entry point run as plain Python."""
    path = tmp_path_factory.mktemp("plain") / "plain.npz"
    command = [sys.executable, "-m", "tests.kernels.plain", str(path)]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "EDGELM_KERNELS": "python"}, check=True)
    with np.load(path) as results:
        return dict(results)
