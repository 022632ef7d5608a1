"""Fixtures of what learns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgelm.config import LearnConfig
from edgelm.learn.adaptation import Adaptation
from tests.learn.acts import Open, close, open_adaptation


@pytest.fixture
def open_(tiny_model: Path, tmp_path: Path) -> Iterator[Open]:
    """``open_("me", config)``: a profile held for writing."""
    opened: list[Adaptation] = []

    def run(name: str = "me", config: LearnConfig | None = None, *, model: Path = tiny_model) -> Adaptation:
        opened.append(open_adaptation(model, tmp_path / "profiles", config, name=name))
        return opened[-1]

    yield run
    for adaptation in opened:
        close(adaptation)
