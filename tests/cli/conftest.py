"""The command line within this process, on the tiny model."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgelm.cli.main import main
from tests.command import Result

Cli = Callable[..., Result]


@pytest.fixture
def cli(home: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """``cli("chat", "--json", input="Hello\\n")``: what ``edgelm`` does, errors and exit code included."""

    def run(*args: object, input: str | bytes = b"", model: Path | None = tiny_model) -> Result:
        words = [str(arg) for arg in args]
        if model is not None:
            words += ["--model", str(model)]
        blob = input.encode() if isinstance(input, str) else input
        capsys.readouterr()
        with monkeypatch.context() as patch, pytest.raises(SystemExit) as ended:
            patch.setattr(sys, "argv", ["edgelm", *words])
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(blob), encoding="utf-8"))
            main()
        return Result(int(ended.value.code or 0), *capsys.readouterr())

    return run
