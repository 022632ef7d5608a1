"""Compiles all entry points in two processes at once."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgelm.kernels.jit import Entry

PARTS = 2
"""How many do not depend on the machine: of one source comes one library."""


def compile_all(level: dict[str, Any]) -> list[tuple[bytes, int]]:
    """The object file of each part for a level of ``ports/levels.toml``, and how many entry points are in it.

    Raises
    ------
    ImportError
        numba is not installed.
    RuntimeError
        It is not of the version that this was written for, or a process was killed.
    """
    with ProcessPoolExecutor(PARTS, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        return list(pool.map(_compile, range(PARTS), [level] * PARTS))


def _compile(part: int, level: dict[str, Any]) -> tuple[bytes, int]:
    from edgelm.kernels.compiler.objects import compile_library

    def chosen(points: list[Entry]) -> list[Entry]:
        # They are in the order of their modules, and what they call stands in the same ones mostly.
        return points[part * len(points) // PARTS : (part + 1) * len(points) // PARTS]

    library, symbols = compile_library(level["triple"], level["cpu"], level["features"], chosen)
    return library.emit_native_object(), len(symbols)
