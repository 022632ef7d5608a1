"""The fuzzer finds what a reader should not do, and keeps it."""

from __future__ import annotations

import mmap
import random
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from edgelm.errors import InputError
from tests.fuzz.readers import Reader
from tools.measure import fuzz
from tools.measure.fuzz import Row


def _number(rng: random.Random, blob: bytes, other: bytes) -> bytes:
    return b"a" * rng.randrange(1, 9)


def _refuse(text: str) -> None:
    raise InputError(text)


def _warn() -> None:
    import warnings

    warnings.warn("of nothing", RuntimeWarning, stacklevel=1)


def _hang() -> None:
    while True:
        pass


def _grow() -> None:
    """Holds 100 MiB more than this process ever did: not every system can forget what was the most.

    They are mapped, for what was freed before may still be held, and be given out again.
    """
    held = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    size = max(peak - held, 0) + (100 << 20)
    with mmap.mmap(-1, size) as block:
        for page in range(0, size, mmap.PAGESIZE):
            block[page] = 1


def _fuzz(tmp_path: Path, what: Callable[[], object], n_inputs: int = 60, seconds: float = 60) -> Row:
    """Shorter texts than of 5 letters are accepted, longer ones refused, and of 5 letters ``what`` is done."""

    def read(blob: bytes) -> None:
        if len(blob) == 5:
            what()
        elif len(blob) > 5:
            _refuse("too long")

    row = Row("letters", Reader([b"a"], _number, read, InputError, 1))
    fuzz.fuzz([row], n_inputs, 0, seconds, tmp_path / "kept")
    return row


def test_what_is_accepted_and_refused(tmp_path: Path) -> None:
    row = _fuzz(tmp_path, lambda: None)
    assert row.inputs == 60 == row.accepted + row.refused
    assert row.accepted
    assert row.refused
    assert not row.failures
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize(
    ("what", "kind"),
    [
        (lambda: {}["a"], "KeyError"),
        (lambda: _refuse("two\nlines"), "AssertionError"),
        (lambda: _refuse("\ud800"), "UnicodeEncodeError"),
        (_warn, "RuntimeWarning"),
        (_grow, "MemoryError"),
        (exit, "SystemExit"),
    ],
)
def test_what_fails_is_kept(tmp_path: Path, what: Callable[[], object], kind: str) -> None:
    row = _fuzz(tmp_path, what)
    assert len(row.kinds) == 1
    assert next(iter(row.kinds)).startswith(kind)
    assert 0 < row.failures == row.inputs - row.accepted - row.refused
    inputs = [path for path in (tmp_path / "kept").iterdir() if path.suffix != ".traceback"]
    assert [path.read_bytes() for path in inputs] == [b"a" * 5]
    assert kind in inputs[0].with_name(inputs[0].name + ".traceback").read_text(encoding="utf-8")


def test_what_does_not_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "MOST_SECONDS", 0.1)
    row = _fuzz(tmp_path, _hang, n_inputs=10)
    assert {kind.partition(" ")[0] for kind in row.kinds} == {"TooLongError"}


def test_it_can_be_stopped(tmp_path: Path) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    row = _fuzz(tmp_path, stop)
    assert 0 < row.inputs < 60
    assert not row.failures
    assert _fuzz(tmp_path, lambda: None, seconds=0).inputs == 1


def test_a_valid_file_that_is_refused(tmp_path: Path) -> None:
    row = Row("nothing", Reader([b"a"], _number, lambda blob: _refuse("no"), InputError, 1))
    fuzz.fuzz([row], 5, 0, 60, tmp_path)
    assert row.failures == 1
    assert row.refused == 4
