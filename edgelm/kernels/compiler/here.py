"""Has kernels compiled, in processes of their own; for this processor once, so that no start has to load numba."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from edgelm import ports
from edgelm.kernels import aot


def compile_level(name: str, out: Path) -> None:
    """Writes the library of a level of ``ports/levels.toml``.

    Raises
    ------
    RuntimeError
        It cannot be made, as without GNU ld for that machine.
    """
    command = [sys.executable, "-m", __package__, name, str(out.absolute())]
    done = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"{name}: its compiler ended with {done.returncode}"]
        raise RuntimeError(said[-1])


def make() -> str:
    """Makes the library of this processor where ``edgelm.kernels.aot`` looks for it.

    Whoever starts after that uses it: to be called before kernels are imported.

    Returns
    -------
    str
        Why there is none, in a clause for people; empty where there is one.
    """
    level, folder = ports.level_of_this_processor(ports.levels()), aot.made_here()
    if level is None:
        return "ports/levels.toml has no level for this processor"
    try:
        folder.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix="compiling-") as name:
            path = Path(name) / f"{level}.so"
            compile_level(level, path)
            folder.mkdir(exist_ok=True)
            path.replace(folder / path.name)
    except OSError as exc:
        return f"{folder.parent} cannot be written to ({exc.strerror})"
    except RuntimeError as exc:
        return str(exc)
    _forget_others(folder)
    return ""


def _forget_others(kept: Path) -> None:
    """Removes what was made of other sources; whoever has loaded it keeps it."""
    for folder in kept.parent.glob("kernels-*"):
        if folder != kept:
            shutil.rmtree(folder, ignore_errors=True)
