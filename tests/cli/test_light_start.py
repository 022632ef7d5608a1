"""Who does not learn pays for no compiler, and nobody pays for onnx to run a model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
from edgelm.cli.main import cli
cli.main(sys.argv[1:], standalone_mode=False)
print(*sorted({"numba", "llvmlite", "onnx", "torch"} & set(sys.modules)), file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("args", "loaded"),
    [
        (["chat", "--no-learn", "--max-tokens", "3"], []),
        (["complete", "The ferry", "-n", "3"], []),
        (["suggest", "The ferry", "-k", "1"], []),
        (["fill", "The [...] leaves", "-k", "1"], []),
        (["info"], []),
        (["models", "verify"], []),
        (["chat", "--max-tokens", "3"], ["llvmlite", "numba"]),
    ],
)
def test_what_a_command_imports(
    args: list[str], loaded: list[str], tiny_model: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EDGELM_ENGINE", raising=False)
    monkeypatch.setenv("EDGELM_KERNELS", "jit")
    # numba is loaded all the same, and need not compile.
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    command = [sys.executable, "-c", SCRIPT, *args, "--model", str(tiny_model)]
    result = subprocess.run(command, input="hello\n", capture_output=True, text=True, timeout=120, check=True)
    assert result.stderr.split() == loaded
