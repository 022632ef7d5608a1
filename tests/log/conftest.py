"""Fixtures of what is durable."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgelm.log.entry import CHAT, CHECKPOINT, GOOD, TEXT, Entry
from edgelm.log.profile import Profile
from edgelm.model import hub
from edgelm.model.hub import Model
from tests.log.profiles import checkpoint_tensors


@pytest.fixture
def model(tiny_model: Path) -> Model:
    return hub.load(str(tiny_model))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "profiles"


@pytest.fixture
def profile(folder: Path, model: Model) -> Iterator[Profile]:
    """An empty profile, held for writing."""
    profile = Profile(folder, "me", model, writable=True)
    yield profile
    profile.close()


@pytest.fixture
def saved(profile: Profile) -> list[Entry]:
    """The entries of a profile that somebody has closed: two turns, weights, and a third turn."""
    for i, text in enumerate(("The ferry waits.", "Grüße, 世界\n\t'quoted' \"twice\"")):
        profile.append(CHAT, text, time=1.5 + i, conversation=1)
    profile.append(GOOD, "Hello", time=4, conversation=1, parent=1, note="a note")
    profile.append(CHECKPOINT, time=5, tensors=checkpoint_tensors())
    profile.append(TEXT, "word " * 600, time=6.25, conversation=2, progress="digest:2:1")
    profile.close()
    return profile.entries
