"""A profile to test with: how it is opened, filled and looked at."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgelm.log.entry import CHAT
from edgelm.log.profile import Profile
from edgelm.model.hub import Model
from edgelm.model.weights import Weights
from tests.model_folder import contents


def checkpoint_tensors(value: float = 0.25) -> Weights:
    """Weights as a checkpoint keeps them."""
    return {"final_norm": np.full(32, value, np.float16), "memory.gates": np.zeros((1, 2))}


def open_profile(folder: Path, model: Model, *, writable: bool = False, any_base: bool = False) -> Profile:
    """The profile that the fixtures make."""
    return Profile(folder, "me", model, writable=writable, any_base=any_base)


def say(profile: Profile, *texts: str, conversation: int = 1) -> list[int]:
    """Appends turns; returns their ids."""
    return [profile.append(CHAT, text, time=0, conversation=conversation).id for text in texts]


def files_in(folder: Path) -> set[str]:
    """The files of a folder, locks left out."""
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"}


def assert_gone(folder: Path, *words: str) -> None:
    """No file holds any of the words."""
    for path, blob in contents(folder).items():
        for word in words:
            assert word.encode() not in blob, path
