"""Runs the command line in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Result:
    """How a command ended and what it said."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """The one JSON object on stdout; the command must have succeeded."""
        assert self.code == 0, self.stderr
        return json.loads(self.stdout)

    @property
    def json_lines(self) -> list[Any]:
        """The JSON objects on stdout, one a line."""
        return [json.loads(line) for line in self.stdout.splitlines()]


def run_cli(
    args: Sequence[str], input: str | bytes | None = None, env: Mapping[str, str] | None = None, timeout: float = 300
) -> Result:
    """``python -m edgelm ARGS``; ``input`` is its standard input, ``env`` is added to the environment."""
    blob = input.encode() if isinstance(input, str) else input or b""
    command, environment = [sys.executable, "-m", "edgelm", *args], {**os.environ, **(env or {})}
    done = subprocess.run(command, input=blob, capture_output=True, cwd=ROOT, env=environment, timeout=timeout)
    return Result(done.returncode, done.stdout.decode(), done.stderr.decode())


def assert_one_line(result: Result, code: int = 1) -> str:
    """The command ended with ``code`` and said one line, which is returned, on stderr alone."""
    assert result.code == code, result
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("edgelm: ")
    assert result.stdout == ""
    return lines[0]
