"""What is removed from a profile is in no file, and takes with it what depends on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgelm.errors import ProfileError
from edgelm.log.entry import CHECKPOINT, CONSOLIDATION, FIX, GOOD, IMPORT, UNLOGGED, Entry
from edgelm.log.profile import Profile
from edgelm.model import hub
from edgelm.model.hub import Model
from tests.log.profiles import assert_gone, checkpoint_tensors, files_in, open_profile, say
from tests.model_folder import contents, write_tiny_model

SECRET = "wolverine"


def test_what_is_removed_is_in_no_file(profile: Profile, model: Model) -> None:
    long = f"{SECRET} " * 2000  # over many pages
    ids = say(profile, "The ferry waits.", f"My {SECRET} sleeps.", long, "The lamps are lit.")
    say(profile, *(f"line {i}" for i in range(50)), conversation=2)
    profile.append(CHECKPOINT, time=0, tensors=checkpoint_tensors())
    assert any(SECRET.encode() in blob for blob in contents(profile.folder).values())
    assert profile.remove(ids[1:3]) == ids[1:3]
    assert_gone(profile.folder, SECRET)
    assert profile.checkpoint() is None
    say(profile, "The fog comes.")
    profile.close()
    assert_gone(profile.folder, SECRET)
    assert files_in(profile.folder) == {"me.db"}
    texts = [entry.text for entry in open_profile(profile.folder, model).entries if entry.conversation == 1]
    assert texts == ["The ferry waits.", "The lamps are lit.", "The fog comes."]


def test_notes_of_what_is_removed_go_too(profile: Profile) -> None:
    (entry_id,) = say(profile, "Good morning.")
    profile.change(entry_id, note=f"taken back: {SECRET}")
    profile.change(entry_id, note="another")
    profile.remove([entry_id])
    profile.close()
    assert_gone(profile.folder, SECRET, "another")


def test_older_weights_stay(profile: Profile) -> None:
    say(profile, "one")
    profile.append(CHECKPOINT, time=0, tensors=checkpoint_tensors())
    ids = say(profile, "two")
    profile.remove(ids)
    assert profile.checkpoint()[0] == 2  # type: ignore[index]
    assert profile.remove([]) == []


def test_what_depends_on_it_goes_too(profile: Profile) -> None:
    chat = {"time": 0.0, "conversation": 1}
    say(profile, "one", "two")
    profile.append(GOOD, "answer to one", parent=1, **chat)  # 3
    profile.append(FIX, "answer to two", parent=2, **chat)  # 4
    say(profile, "three")  # 5
    profile.append(GOOD, "answer to three", parent=5, **chat)  # 6
    profile.append(FIX, "better answer to three", parent=5, **chat)  # 7
    profile.append(CONSOLIDATION, time=0)  # 8
    say(profile, "elsewhere", conversation=2)  # 9
    profile.append(GOOD, "answer elsewhere", time=0, conversation=2, parent=9)  # 10
    assert profile.dependents([2]) == {2, 3, 4, 6}  # whatever was approved later may repeat it
    assert profile.dependents([5]) == {5, 6, 7}
    assert profile.dependents([7]) == {7}
    assert profile.dependents([9]) == {9, 10}
    assert profile.dependents([10]) == {10}
    assert profile.remove([5, 9]) == [5, 6, 7, 9, 10]
    assert [entry.id for entry in profile.entries] == [1, 2, 3, 4, 8]


def test_there_is_no_such_entry(profile: Profile) -> None:
    ids = say(profile, "one", "two")
    before = contents(profile.folder)
    with pytest.raises(ProfileError, match="no entry 7; see `edgelm profile log`"):
        profile.remove([ids[0], 9, 7])
    assert contents(profile.folder) == before
    assert len(profile.entries) == 2


@pytest.mark.parametrize("kind", [IMPORT, UNLOGGED])
def test_nothing_before_words_that_were_not_kept_can_go(
    profile: Profile, model: Model, tmp_path: Path, kind: str
) -> None:
    say(profile, "one")
    profile.append(kind, time=0, tensors=checkpoint_tensors(1))
    say(profile, "two")
    profile.append(CHECKPOINT, time=0, tensors=checkpoint_tensors(2))
    with pytest.raises(ProfileError, match="the words of entry 2 were not kept: nothing before"):
        profile.remove([1])
    other = hub.load(str(write_tiny_model(tmp_path / "other", seed=5)))
    with pytest.raises(ProfileError, match="entry 2 was learned without keeping its words: it cannot be moved"):
        profile.rebase(other)
    # What came later can, and the weights that nothing else could bring back are still there.
    assert profile.remove([3, 4]) == [3, 4]
    entry_id, tensors, _ = profile.checkpoint() or (0, {}, {})
    assert entry_id == 2
    assert (tensors["final_norm"] == 1).all()
    # It goes itself together with what it hid.
    assert profile.remove([1, 2]) == [1, 2]
    assert profile.checkpoint() is None
    profile.close()
    assert files_in(profile.folder) == {"me.db"}


def test_words_that_were_not_kept_twice(profile: Profile) -> None:
    for value in (1, 2):
        profile.append(UNLOGGED, time=0, tensors=checkpoint_tensors(value))
    profile.append(CHECKPOINT, time=0, tensors=checkpoint_tensors(3))
    for value in (3, 2, 1):
        assert (profile.checkpoint()[1]["final_norm"] == value).all()  # type: ignore[index]
        profile.remove([value])
    assert profile.checkpoint() is None


def test_delete(saved: list[Entry], folder: Path, model: Model) -> None:
    Profile(folder, "you", model, writable=True).close()
    (folder / ".me.weights-7.safetensors.a1b2c3d4").touch()
    Profile.delete(folder, "me")
    assert {path.name for path in folder.iterdir()} == {"you.db", ".you.lock"}
    assert open_profile(folder, model).entries == []


def test_a_damaged_profile_can_be_deleted(saved: list[Entry], folder: Path) -> None:
    (folder / "me.db").write_bytes(b"damaged")
    Profile.delete(folder, "me")
    assert list(folder.iterdir()) == []
