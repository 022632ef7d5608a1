"""General English that comes with the package, written for it."""

from __future__ import annotations

from importlib.resources import files


def general_text() -> str:
    """Held out: what learning costs is measured on it, and nothing is ever trained on it."""
    return _read("general.txt")


def rehearsal_text() -> str:
    """For rehearsal while what was told is consolidated."""
    return _read("rehearsal.txt")


def _read(name: str) -> str:
    return files("edgelm").joinpath("data", name).read_text(encoding="utf-8")
