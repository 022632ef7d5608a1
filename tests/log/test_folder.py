"""The folder of profiles: names, who may write, and who holds one."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgelm.errors import ProfileError
from edgelm.log import folder as profile_folder
from edgelm.log.entry import CHECKPOINT, Entry
from edgelm.log.profile import Profile
from edgelm.model.hub import Model
from tests.command import ROOT
from tests.log.profiles import checkpoint_tensors, open_profile, say


def test_only_its_owner_can_read_it(profile: Profile) -> None:
    say(profile, "mine")
    profile.append(CHECKPOINT, time=0, tensors=checkpoint_tensors())
    say(profile, "mine too")
    assert profile.folder.stat().st_mode & 0o777 == 0o700
    files = [path for path in profile.folder.iterdir() if path.stat().st_size]
    assert {path.name for path in files} >= {"me.db", "me.db-wal", "me.weights-2.safetensors"}
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    profile.close()
    assert {path.stat().st_mode & 0o777 for path in files if path.exists()} == {0o600}


HOLD = """
import sys
from pathlib import Path
from edgelm.errors import ProfileError
from edgelm.log.profile import Profile
from edgelm.model import hub
try:
    profile = Profile(Path(sys.argv[1]), "me", hub.load(sys.argv[2]), writable=sys.argv[3] == "w")
    print(len(profile.entries))
except ProfileError as exc:
    print(exc)
"""


def test_a_second_writer_is_refused(profile: Profile, model: Model) -> None:
    def other(mode: str) -> str:
        command = [sys.executable, "-c", HOLD, str(profile.folder), str(model.folder), mode]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    say(profile, "one", "two")
    assert other("w") == "profile 'me' is in use by another edgelm; close it or use --profile"
    with pytest.raises(ProfileError, match="in use"):
        open_profile(profile.folder, model, writable=True)
    with pytest.raises(ProfileError, match="in use"):
        Profile.delete(profile.folder, "me")
    # Neither readers nor other profiles are shut out, and readers see what is not yet in the main file.
    assert other("r") == "2"
    assert len(open_profile(profile.folder, model).entries) == 2
    Profile(profile.folder, "you", model, writable=True).close()
    say(profile, "three")
    profile.close()
    assert other("w") == "3"


def test_a_lock_that_was_removed_is_not_held(folder: Path, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    path, removed, lock = folder / ".me.lock", [], fcntl.flock

    def late(file: int, how: int) -> None:
        if not removed:
            removed.append(path.unlink())  # by one that deletes the profile, after this one has opened its lock
        lock(file, how)

    monkeypatch.setattr(profile_folder.fcntl, "flock", late)
    with profile_folder.hold(folder, "me") as held:
        assert os.path.samestat(os.fstat(held.fileno()), path.stat())
        with pytest.raises(ProfileError, match="in use"):
            profile_folder.hold(folder, "me")
    assert removed


def test_a_lock_in_place_of_which_is_a_link(folder: Path, model: Model) -> None:
    folder.mkdir()
    (folder / ".me.lock").symlink_to(folder / "elsewhere")
    with pytest.raises(ProfileError, match="cannot be written"):
        open_profile(folder, model, writable=True)
    assert not (folder / "elsewhere").exists()


def test_what_is_new_can_be_discarded_while_it_is_held(folder: Path, model: Model) -> None:
    profile = open_profile(folder, model, writable=True)
    assert profile.is_new
    profile.append(CHECKPOINT, time=0, tensors=checkpoint_tensors())
    profile.discard()
    profile.close()
    assert list(folder.iterdir()) == []
    open_profile(folder, model, writable=True).close()
    again = open_profile(folder, model, writable=True)
    assert not again.is_new
    again.close()


def _modes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in (folder, *folder.iterdir()) if path.suffix != ".lock"}


@pytest.mark.parametrize(("name", "mode"), [("me.db", 0o666), ("me.weights-4.safetensors", 0o620), ("", 0o777)])
def test_what_others_can_write_is_repaired_and_said(
    saved: list[Entry], folder: Path, model: Model, name: str, mode: int
) -> None:
    good = _modes(folder)
    (folder / name).chmod(mode)
    bad = _modes(folder)
    says = (folder / name).name
    reader = open_profile(folder, model)
    assert reader.problem.startswith(f"other users can write {says}; see that you alone can: chmod go-w ")
    assert (reader.entries, _modes(folder)) == (saved, bad)
    writer = open_profile(folder, model, writable=True)
    writer.close()
    where = folder if name else folder.parent
    assert writer.problem == f"other users could write {says} (in {where}); now you alone can"
    assert _modes(folder) == good
    assert open_profile(folder, model).problem == ""


def test_a_folder_where_each_can_touch_their_own_alone(saved: list[Entry], folder: Path, model: Model) -> None:
    folder.chmod(0o1777)
    profile = open_profile(folder, model, writable=True)
    profile.close()
    assert (profile.problem, folder.stat().st_mode & 0o7777) == ("", 0o1777)


@pytest.mark.parametrize("name", ["", "me.db", "me.db-wal"])
def test_what_belongs_to_another_user(
    saved: list[Entry], folder: Path, model: Model, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = folder / name
    path.exists() or path.touch()
    if os.geteuid() == 0:
        os.chown(path, 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    for writable in (False, True):
        with pytest.raises(ProfileError, match=r"belongs to another user \(uid \d+\); copy it to a folder of your own"):
            open_profile(folder, model, writable=writable)


def test_what_root_lets_all_write(
    saved: list[Entry], folder: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root makes a file of root's")
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert open_profile(folder, model).entries == saved
    (folder / "me.db").chmod(0o666)
    with pytest.raises(ProfileError, match="other users can write it, and it is not yours"):
        open_profile(folder, model)


@pytest.mark.parametrize("name", ["", ".", "..", "../me", "a/b", ".hidden", "-x", "a b", "a\n", "ä", "a\0", "a" * 65])
def test_bad_names(tmp_path: Path, model: Model, name: str) -> None:
    for writable in (False, True):
        with pytest.raises(ProfileError, match="must be letters, digits"):
            Profile(tmp_path / "profiles", name, model, writable=writable)
    with pytest.raises(ProfileError, match="must be letters, digits"):
        Profile.delete(tmp_path / "profiles", name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a", "A-1_b.c", "9", "a" * 64])
def test_good_names(tmp_path: Path, model: Model, name: str) -> None:
    profile = Profile(tmp_path, name, model, writable=True)
    say(profile, "said")
    profile.close()
    assert [entry.text for entry in Profile(tmp_path, name, model, writable=False).entries] == ["said"]


def test_names_that_begin_like_others(tmp_path: Path, model: Model) -> None:
    names = ["me", "me.db", "me.db-x", "me.weights-1", "me.weights-1.safetensors", "you.me", "time"]
    for name in names:
        profile = Profile(tmp_path, name, model, writable=True)
        say(profile, name)
        profile.append(CHECKPOINT, time=0, tensors=checkpoint_tensors())
        profile.close()
    for name in names:
        profile = Profile(tmp_path, name, model, writable=True)
        assert [entry.text for entry in profile.entries] == [name, ""]
        assert profile.checkpoint() is not None
        profile.close()
    for i, name in enumerate(names):
        Profile.delete(tmp_path, name)
        assert sorted(path.stem for path in tmp_path.glob("*.db")) == sorted(names[i + 1 :])


@pytest.mark.parametrize("place", ["profiles", "profiles/deeper"])
def test_a_folder_that_cannot_be_written(tmp_path: Path, model: Model, place: str) -> None:
    (tmp_path / "profiles").write_text("a file", encoding="utf-8")
    with pytest.raises(ProfileError, match="cannot be written"):
        open_profile(tmp_path / place, model, writable=True)
    # Reading is another matter: there is no profile yet.
    assert open_profile(tmp_path / place, model).entries == []
    assert (tmp_path / "profiles").read_text(encoding="utf-8") == "a file"
