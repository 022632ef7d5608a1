"""The personal change on disk: it comes back, and no failure harms it."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edgelm.engine.session import OrtSession
from edgelm.errors import ProfileError
from edgelm.learn.fast_memory import FastMemory
from edgelm.learn.profile import GATES, Profile
from edgelm.model import hub, tensorfile
from edgelm.model.hub import Model
from edgelm.model.weights import Weights, adaptable_names
from tests.command import ROOT
from tests.model_folder import contents, write_tiny_model

W1 = "layers.0.ffn.w1"


@pytest.fixture
def model(tiny_model: Path) -> Model:
    return hub.load(str(tiny_model))


@pytest.fixture
def base(model: Model) -> Weights:
    return {name: model.weights[name].copy() for name in adaptable_names(model.config)}


@pytest.fixture
def profile(tmp_path: Path, model: Model) -> Iterator[Profile]:
    """An empty profile, held for writing."""
    profile = Profile(tmp_path / "profiles", "me", model, writable=True)
    yield profile
    profile.close()


@pytest.fixture
def saved(profile: Profile, model: Model, base: Weights) -> Path:
    """The file of a profile that learned something; ``model.weights`` hold it."""
    _learn(model)
    profile.tokens, profile.progress = 7, "digest:7"
    profile.memory = {"memory.tokens": np.array([0, 5, 299], np.uint16), "memory.gates": np.full(GATES, 0.5)}
    profile.save(model.weights, base)
    profile.close()
    return profile.path


def _learn(model: Model, seed: int = 1) -> None:
    """Changes some blocks of the first layer, all of the second's, and every vector, as learning would."""
    rng = np.random.default_rng(seed)
    for name in adaptable_names(model.config):
        array = model.weights[name]
        part = array[1:3] if name.startswith("layers.0") and array.ndim == 3 else array
        part += rng.normal(0, 1e-2, part.shape).astype(np.float32)


def _reload(path: Path, model: Model) -> Model:
    fresh = hub.load(str(model.folder))
    Profile(path.parent, path.stem, fresh, writable=False).apply(fresh.weights)
    return fresh


def _logits(model: Model) -> np.ndarray:
    return OrtSession(model.graph, model.weights).run(np.arange(20), 0)


def test_what_was_learned_comes_back(saved: Path, model: Model, base: Weights) -> None:
    loaded = _reload(saved, model)
    for name, array in model.weights.items():
        change = array - base.get(name, array)
        # Half a step of float16, and float32's own rounding of the sum.
        allowed = np.abs(change) * 2**-11 + 2**-24 + np.abs(array) * 2**-23
        assert (np.abs(loaded.weights[name] - array) <= allowed).all(), name
    profile = Profile(saved.parent, saved.stem, model, writable=False)
    assert (profile.tokens, profile.progress) == (7, "digest:7")
    np.testing.assert_array_equal(profile.memory["memory.tokens"], [0, 5, 299])
    assert (profile.memory["memory.gates"] == 0.5).all()


def test_every_load_gives_the_same_answer(saved: Path, model: Model) -> None:
    first, second = _reload(saved, model), _reload(saved, model)
    for name, array in first.weights.items():
        np.testing.assert_array_equal(second.weights[name], array)
    np.testing.assert_array_equal(_logits(second), _logits(first))
    assert not np.array_equal(_logits(first), _logits(hub.load(str(model.folder))))


def test_only_what_changed_is_kept(saved: Path) -> None:
    changes, metadata = tensorfile.read(saved)
    np.testing.assert_array_equal(changes[W1 + ".blocks"], [1, 2])
    assert changes[W1].shape == (2, 32, 32)
    learned = {name for name in changes if not name.startswith("memory.")}
    assert {changes[name].dtype for name in learned if not name.endswith(".blocks")} == {np.dtype(np.float16)}
    assert metadata["base_name"] == "tiny"
    assert "embed" not in changes


def test_nothing_learned_is_kept_too(profile: Profile, model: Model, base: Weights) -> None:
    n_bytes = profile.save(model.weights, base)
    assert n_bytes == profile.path.stat().st_size < 400
    np.testing.assert_array_equal(_logits(_reload(profile.path, model)), _logits(model))


def test_only_its_owner_can_read_it(saved: Path) -> None:
    assert saved.stat().st_mode & 0o777 == 0o600
    assert saved.parent.stat().st_mode & 0o777 == 0o700


def test_another_model_is_refused(saved: Path, tmp_path: Path) -> None:
    other = hub.load(str(write_tiny_model(tmp_path / "other", seed=5)))
    before = contents(saved.parent)
    for writable in (False, True):
        with pytest.raises(ProfileError, match=r"was learned on another model \('tiny'\)"):
            Profile(saved.parent, "me", other, writable=writable)
    assert contents(saved.parent) == before


@pytest.mark.parametrize("share", [0.0, 0.1, 0.99])
def test_a_truncated_file_is_refused_and_left_alone(saved: Path, model: Model, share: float) -> None:
    blob = saved.read_bytes()
    saved.write_bytes(blob[: int(len(blob) * share)])
    before = contents(saved.parent)
    for writable in (False, True, True):
        with pytest.raises(ProfileError, match="move the file away"):
            Profile(saved.parent, "me", model, writable=writable)
    assert contents(saved.parent) == before


@pytest.mark.parametrize(
    ("says", "change"),
    [
        ("'embed'", lambda t: t.update(embed=np.zeros((300, 32), np.float16))),
        ("'nothing'", lambda t: t.update(nothing=np.zeros(1, np.float16))),
        ("'final_norm'", lambda t: t.update(final_norm=np.full(32, np.nan, np.float16))),
        ("'final_norm'", lambda t: t.update(final_norm=np.zeros(1, np.float16))),
        ("'final_norm'", lambda t: t.update(final_norm=np.zeros(32))),
        (W1, lambda t: t.update({W1: t[W1][:1]})),
        (W1, lambda t: t.pop(W1)),
        (W1, lambda t: t.pop(W1 + ".blocks")),
        (W1, lambda t: t.update({W1 + ".blocks": np.array([1, 4], np.int32)})),
        (W1, lambda t: t.update({W1 + ".blocks": np.array([-1, 2], np.int32)})),
        (W1, lambda t: t.update({W1 + ".blocks": np.array([2, 2], np.int32)})),
        (W1, lambda t: t.update({W1 + ".blocks": np.array([1, 2], np.float32)})),
        ("'final_norm", lambda t: t.update({"final_norm.blocks": np.array([0], np.int32)})),
        ("fast memory", lambda t: t.pop("memory.gates")),
        ("fast memory", lambda t: t.update({"memory.tokens": np.array([0, 300], np.uint16)})),
        ("fast memory", lambda t: t.update({"memory.tokens": np.array([0, 1], np.int16)})),
        ("fast memory", lambda t: t.update({"memory.tokens": np.zeros((2, 2), np.uint16)})),
        ("fast memory", lambda t: t.update({"memory.gates": t["memory.gates"][:-1]})),
        ("fast memory", lambda t: t.update({"memory.gates": t["memory.gates"] * np.nan})),
        ("fast memory", lambda t: t.update({"memory.gates": t["memory.gates"] * 3})),
        ("fast memory", lambda t: t.update({"memory.gates": t["memory.gates"].astype(np.float32)})),
    ],
)
def test_a_change_that_does_not_fit(saved: Path, model: Model, says: str, change: Callable[[Weights], object]) -> None:
    tensors, metadata = tensorfile.read(saved)
    change(tensors)
    tensorfile.write(saved, tensors, metadata)
    with pytest.raises(ProfileError, match=f"damaged at .*{says}"):
        Profile(saved.parent, "me", model, writable=True)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format": "2"}, "profile format '2', this edgelm reads 1"),
        ({"format": ""}, "profile format"),
        ({"tokens": "many"}, "damaged metadata"),
        ({"base": ""}, "another model"),
    ],
)
def test_metadata_that_does_not_fit(saved: Path, model: Model, changes: dict[str, str], says: str) -> None:
    tensors, metadata = tensorfile.read(saved)
    tensorfile.write(saved, tensors, metadata | changes)
    with pytest.raises(ProfileError, match=says):
        Profile(saved.parent, "me", model, writable=False)


def test_the_gates_are_those_of_the_fast_memory() -> None:
    assert FastMemory(300, rows=64).gates.shape == GATES


def test_metadata_that_is_missing(saved: Path, model: Model) -> None:
    tensors, _ = tensorfile.read(saved)
    tensorfile.write(saved, tensors)
    with pytest.raises(ProfileError, match="profile format None"):
        Profile(saved.parent, "me", model, writable=False)


HOLD = """
import sys
from pathlib import Path
from edgelm.errors import ProfileError
from edgelm.learn.profile import Profile
from edgelm.model import hub
try:
    Profile(Path(sys.argv[1]), "me", hub.load(sys.argv[2]), writable=True)
except ProfileError as exc:
    print(exc)
"""


def test_a_second_process_is_refused(profile: Profile, model: Model, base: Weights) -> None:
    def second() -> str:
        command = [sys.executable, "-c", HOLD, str(profile.path.parent), str(model.folder)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "profile 'me' is in use by another edgelm" in second()
    with pytest.raises(ProfileError, match="in use"):
        Profile(profile.path.parent, "me", model, writable=True)
    # Neither readers nor other profiles are shut out.
    profile.save(model.weights, base)
    Profile(profile.path.parent, "me", model, writable=False)
    Profile(profile.path.parent, "you", model, writable=True).close()
    profile.close()
    assert second() == ""


@pytest.mark.parametrize("place", ["profiles", "profiles/deeper"])
def test_a_folder_that_cannot_be_written(tmp_path: Path, model: Model, place: str) -> None:
    (tmp_path / "profiles").write_text("a file", encoding="utf-8")
    with pytest.raises(ProfileError, match="cannot be written"):
        Profile(tmp_path / place, "me", model, writable=True)
    # Reading is another matter: there is no profile yet.
    Profile(tmp_path / place, "me", model, writable=False)
    assert (tmp_path / "profiles").read_text(encoding="utf-8") == "a file"


@pytest.mark.parametrize("name", ["", ".", "..", "../me", "a/b", ".hidden", "-x", "a b", "a\n", "ä", "a\0", "a" * 65])
def test_bad_names(tmp_path: Path, model: Model, name: str) -> None:
    with pytest.raises(ProfileError, match="must be letters, digits"):
        Profile(tmp_path / "profiles", name, model, writable=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a", "A-1_b.c", "9", "a" * 64])
def test_good_names(tmp_path: Path, model: Model, base: Weights, name: str) -> None:
    profile = Profile(tmp_path, name, model, writable=True)
    profile.save(model.weights, base)
    profile.close()
    assert (tmp_path / f"{name}.safetensors").is_file()


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file(
    saved: Path, model: Model, base: Weights, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    profile, before = Profile(saved.parent, "me", model, writable=True), contents(saved.parent)
    _learn(model, seed=2)
    with monkeypatch.context() as patch:
        patch.setattr(os, function, full)
        with pytest.raises(ProfileError, match="No space left on device"):
            profile.save(model.weights, base)
    assert contents(saved.parent) == before
    # With room again, the same profile is written.
    profile.save(model.weights, base)
    profile.close()
    assert contents(saved.parent) != before


def test_a_folder_that_went_away(profile: Profile, model: Model, base: Weights) -> None:
    shutil.rmtree(profile.path.parent)
    with pytest.raises(ProfileError, match="cannot be written"):
        profile.save(model.weights, base)
