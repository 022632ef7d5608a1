"""The checkpoint of a profile: weights that come back whole, or are not used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgelm.errors import ProfileError
from edgelm.log.entry import CHECKPOINT, UNLOGGED, Entry
from edgelm.log.profile import Profile
from edgelm.model.hub import Model
from tests.log.profiles import checkpoint_tensors, files_in, open_profile, say


def test_the_checkpoint_comes_back(saved: list[Entry], folder: Path, model: Model) -> None:
    found = open_profile(folder, model).checkpoint()
    assert found is not None
    entry_id, tensors, metadata = found
    assert entry_id == 4
    assert metadata == {"base": model.sha256, "base_name": "tiny", "entry": "4"}
    for name, array in checkpoint_tensors().items():
        np.testing.assert_array_equal(tensors[name], array)


def test_damaged_weights_are_not_used(saved: list[Entry], folder: Path, model: Model) -> None:
    path, rng = folder / "me.weights-4.safetensors", np.random.default_rng(4)
    blob = path.read_bytes()
    for place in rng.choice(len(blob), 50, replace=False):
        damaged = bytearray(blob)
        damaged[place] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        profile = open_profile(folder, model)
        assert profile.checkpoint() is None, place
        assert profile.problem.startswith("me.weights-4.safetensors cannot be used (")
        assert profile.problem.endswith("the log is replayed instead")
        assert profile.entries == saved
    for damage in (blob[:-1], blob + b"\0", b""):
        path.write_bytes(damage)
        assert open_profile(folder, model).checkpoint() is None
    path.unlink()
    assert open_profile(folder, model).checkpoint() is None


def test_what_a_crash_left_is_tidied_at_the_next_writing(saved: list[Entry], folder: Path, model: Model) -> None:
    names = files_in(folder)
    left = ["me.weights-3.safetensors", "me.weights-99.safetensors", ".me.weights-7.safetensors.a1b2c3d4"]
    others = ["me.weights.txt", "you.weights-3.safetensors", "notme.weights-3.safetensors"]
    for name in left + others:
        (folder / name).write_bytes(b"left")
    open_profile(folder, model).close()
    assert files_in(folder) == names | set(left) | set(others)
    open_profile(folder, model, writable=True).close()
    assert files_in(folder) == names | set(others)


def test_newer_weights_take_the_place_of_older_ones(profile: Profile) -> None:
    say(profile, "one")
    profile.append(CHECKPOINT, time=0, tensors=checkpoint_tensors(1))
    say(profile, "two")
    profile.append(CHECKPOINT, time=0)
    assert profile.checkpoint()[0] == 2  # type: ignore[index]
    profile.write_checkpoint(checkpoint_tensors(2))
    entry_id, tensors, _ = profile.checkpoint() or (0, {}, {})
    assert entry_id == 4
    assert (tensors["final_norm"] == 2).all()
    profile.write_checkpoint(checkpoint_tensors(3))
    assert (profile.checkpoint()[1]["final_norm"] == 3).all()  # type: ignore[index]
    profile.close()
    assert files_in(profile.folder) == {"me.db", "me.weights-4.safetensors"}


def test_damaged_weights_without_words_cannot_be_replaced(profile: Profile, model: Model) -> None:
    profile.append(UNLOGGED, time=0, tensors=checkpoint_tensors())
    profile.close()
    path = profile.folder / "me.weights-1.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ProfileError, match="the words were not kept"):
        open_profile(profile.folder, model).checkpoint()
