"""Panels do what numpy does, in the tiles of every kind of machine: these differ in code, not in what can run it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import pytest

from edgelm.kernels import emit_panel, jit, panel
from tests.kernels.arrays import Array, blank, same

pytestmark = pytest.mark.skipif(jit._compile is None, reason="kernels are not compiled by numba here")
TARGETS = [
    ("x86_64-linux-gnu", "", "+avx2,+avx512f"), ("x86_64-linux-gnu", "x86-64-v4", ""),
    ("x86_64-linux-gnu", "", "+avx2,-avx512f"), ("x86_64-linux-gnu", "x86-64-v3", ""),
    ("x86_64-linux-gnu", "x86-64-v2", ""), ("aarch64-linux-gnu", "cortex-a76", "-aes"),
]  # fmt: skip
MACHINES = sorted({emit_panel.machine_of(*target) for target in TARGETS})
Compile = Callable[[Callable[..., None]], Callable[..., None]]


@pytest.fixture(params=MACHINES, ids=lambda machine: f"{machine.rows}x{machine.lanes}")
def compiled(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Compile:
    """Compiles a kernel for a kind of machine; nothing is kept on disk."""
    monkeypatch.setattr(emit_panel, "_machine", lambda *_: request.param)
    return numba.njit(error_model="numpy", fastmath=jit._FASTMATH)


def test_machines() -> None:
    found = [emit_panel.machine_of(*target) for target in TARGETS]
    assert len(MACHINES) == 4 and found[0] == found[1] and found[2] == found[3]
    assert all(emit_panel.WIDE % machine.lanes == 0 for machine in MACHINES)


def operands(rng: np.random.Generator, dtype: type) -> tuple[Array, Array, Array, Array]:
    """Two factors, what is added to, and names of rows of which none comes twice."""
    a, b, c = (rng.standard_normal(3000).astype(dtype) for _ in range(3))
    return a, b, c, np.array([99, 3, 1, 4, 0, 9, 2, 6, 5, 8, 7, 13, 11, 12, 10, 16, 14, 15, 17])


ROWS = [1, 3, 4, 5, 6, 7, 8, 9, 12, 17]


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("add", [False, True])
def test_panel_of_rows(compiled: Compile, rng: np.random.Generator, dtype: type, add: bool, named: bool) -> None:
    a, b, c, names = operands(rng, dtype)
    kernels: dict[tuple[bool, bool], Any] = {
        (False, False): lambda rows, steps, a, b, c, n: panel.panel(
            False, False, False, False, (a, 5, 13), (b, 3, 35), (c, 7, 40), (n, 1), rows, steps
        ),
        (True, False): lambda rows, steps, a, b, c, n: panel.panel(
            True, False, False, False, (a, 5, 13), (b, 3, 35), (c, 7, 40), (n, 1), rows, steps
        ),
        (False, True): lambda rows, steps, a, b, c, n: panel.panel(
            False, False, True, False, (a, 5, 13), (b, 3, 35), (c, 7, 40), (n, 1), rows, steps
        ),
        (True, True): lambda rows, steps, a, b, c, n: panel.panel(
            True, False, False, True, (a, 5, 13), (b, 3, 35), (c, 7, 40), (n, 1), rows, steps
        ),
    }
    run = compiled(kernels[add, named])
    for rows in ROWS:
        for steps in (0, 1, 4, 11):
            found, order = c.copy(), names[1 : rows + 1] if named else np.arange(rows)
            run(rows, steps, a, b, found, names)
            first = a[5 + 13 * (np.arange(rows) if add else order)[:, None] + np.arange(steps)]
            second = b[3 + 35 * np.arange(steps)[:, None] + np.arange(32)]
            place = 7 + 40 * (order if add else np.arange(rows))[:, None] + np.arange(32)
            expected = c.copy()
            expected[place] = first.astype(float) @ second + (c[place] if add else 0)
            same(found, expected)


@pytest.mark.parametrize("steps", [0, 1, 4, 18])
def test_panel_across_and_pulled(compiled: Compile, rng: np.random.Generator, dtype: type, steps: int) -> None:
    a, b, c, names = operands(rng, dtype)
    q, scale = rng.integers(1, 256, 3000).astype(np.uint8), rng.random(100).astype(dtype)

    def across(rows, steps, a, b, c, names):  # type: ignore[no-untyped-def]
        panel.panel(False, True, True, False, (a, 5, 21), (b, 3, 32), (c, 7, 64), (names, 1), rows, steps)

    def pulled(rows, steps, a, b, c, names, base, step):  # type: ignore[no-untyped-def]
        base = (base, 9, base, 0)
        panel.pulled(False, (a, 5, 21), (b, 3, 32), (c, 7, 64), (names, 1), rows, steps, base, step)

    def pulled_int8(rows, steps, a, b, c, names, base, step):  # type: ignore[no-untyped-def]
        q, scale = base
        panel.pulled(True, (a, 5, 21), (b, 3, 32), (c, 7, 64), (names, 1), rows, steps, (q, 9, scale, 2), step)

    kernels = [compiled(kernel) for kernel in (across, pulled, pulled_int8)]
    for rows in ROWS:
        first = a[5 + np.arange(rows)[:, None] + 21 * names[1 : 1 + steps]].astype(float)
        gradient = first @ b[3 + 32 * np.arange(steps)[:, None] + np.arange(32)]
        at = 64 * np.arange(rows)[:, None] + np.arange(32)
        widened = (q[9 + at] - 128.0) * scale[2 + 2 * np.arange(rows), None]
        after = [
            gradient, *(c[7 + at] + 0.25 * (base - c[7 + at]) - 0.5 * gradient for base in (b[9 + at], widened))
        ]  # fmt: skip
        step = (dtype(0.5), dtype(0.25))
        for kernel, more, expected in zip(kernels, [(), (b, step), ((q, scale), step)], after, strict=True):
            found = c.copy()
            kernel(rows, steps, a, b, found, names, *more)
            same(found[7 + at], expected)
            found[7 + at] = c[7 + at]
            assert (found == c).all(), "nothing else is written"


@pytest.mark.parametrize("steps", [16, 48])
def test_along(compiled: Compile, rng: np.random.Generator, dtype: type, steps: int) -> None:
    a, b, _, names = operands(rng, dtype)

    def along(rows, steps, a, b, c, names):  # type: ignore[no-untyped-def]
        panel.along((a, 5, 51), (b, 3, 50), (c, 7, 6), (names, 1), rows, steps)

    run = compiled(along)
    for rows in ROWS:
        found = blank(200, dtype=dtype)
        run(rows, steps, a, b, found, names)
        first = a[5 + 51 * names[1 : rows + 1, None] + np.arange(steps)].astype(float)
        expected = first @ b[3 + 50 * np.arange(4)[:, None] + np.arange(steps)].T
        same(found[7 + 6 * np.arange(rows)[:, None] + np.arange(4)], expected)
