"""The comparison of two machines finds nothing where there is nothing, and what there is."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from tools.arm.compare import TEXT, TOLERANCE, TURNS, Machine, _difference, _inequality, compare


def test_what_differs_is_said() -> None:
    assert _inequality(["a", "b"], ["a", "b"]) == ""
    assert _inequality(["a", "b", "c"], ["a", "x", "c"]) == "1: 'b', 'x'"
    assert _inequality(["a"], []) == "['a'], []"
    weights = {"a": np.array([1, 2], np.float16), "b": np.array([[3]], np.float16)}
    assert _difference(weights, weights) == ""
    near = weights | {"a": np.array([1, 2 * (1 - TOLERANCE)], np.float16)}
    assert _difference(weights, near) == ""
    assert _difference(weights, weights | {"a": np.array([1.1, 2], np.float16)}).startswith("a by 5.0e-02")
    assert "other tensors" in _difference(weights, {"a": weights["a"]})
    assert "other tensors" in _difference(weights, weights | {"b": np.zeros((2, 1), np.float16)})


def test_the_text_has_no_line_twice() -> None:
    assert len(set(TEXT.splitlines())) == 24


@pytest.mark.jit_only
def test_a_machine_is_the_same_as_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    machines = [Machine([sys.executable], tmp_path / name) for name in ("here", "there")]
    found = compare(*machines, TURNS[3:6], 10, "\n".join(TEXT.splitlines()[:6]))
    assert len(found) == 7 and not any(found.values())
    printed = capsys.readouterr().out
    assert printed.count("the same") == 8
    assert "at most 0.0e+00" in printed


@pytest.mark.jit_only
def test_a_process_is_killed_and_what_it_acknowledged_is_there(tmp_path: Path) -> None:
    machine = Machine([sys.executable], tmp_path / "here")
    said = ["my dog is called Biscuit", "he likes to swim", "I work as a baker", "hello", "good night"]
    log = machine.killed(said, 2)
    assert log[:2] == said[:2] and len(log) == 3
