"""The log of what was learned on disk: it comes back as it was written, or not at all, and forgets for good."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgelm.errors import ProfileError
from edgelm.log.entry import CHAT, GOOD, TEXT, Entry
from edgelm.log.profile import Profile
from edgelm.model import hub
from edgelm.model.hub import Model
from tests.log.profiles import files_in, open_profile, say
from tests.model_folder import contents, write_tiny_model


def test_entries_come_back(saved: list[Entry], folder: Path, model: Model) -> None:
    assert [entry.id for entry in saved] == [1, 2, 3, 4, 5]
    assert saved[2] == Entry(3, 4, GOOD, "Hello", 1, 1, None, "a note")
    for writable in (False, True):
        profile = open_profile(folder, model, writable=writable)
        assert profile.entries == saved
        assert (profile.progress, profile.problem) == ("digest:2:1", "")
        assert profile.n_bytes >= sum(map(len, contents(folder).values()))
        profile.close()


def test_ids_are_never_given_twice(profile: Profile, model: Model) -> None:
    ids = say(profile, "one", "two", "three")
    profile.remove(ids[1:])
    ids += say(profile, "four")
    profile.remove(ids[:1] + ids[3:])
    profile.close()
    again = open_profile(profile.folder, model, writable=True)
    assert again.entries == []
    ids += say(again, "five")
    again.close()
    assert ids == [1, 2, 3, 4, 5]


def test_what_became_of_an_entry_comes_back(profile: Profile, model: Model) -> None:
    first, second = say(profile, "one", "two")
    profile.change(first, note="taken back")
    profile.change(second, amount=7)
    profile.change(second, note="broken off")
    profile.change(99, note="there is none")
    profile.close()
    found = open_profile(profile.folder, model).entries
    assert found == profile.entries
    assert [(entry.note, entry.amount) for entry in found] == [("taken back", None), ("broken off", 7)]


def test_a_conversation_has_a_number_of_its_own(profile: Profile) -> None:
    assert profile.conversation() == 1
    say(profile, "one", conversation=1)
    say(profile, "two", conversation=4)
    assert profile.conversation() == 5


def test_progress(profile: Profile, model: Model) -> None:
    assert profile.progress == ""
    profile.append(TEXT, "a", time=0, progress="digest:1:1")
    profile.append(TEXT, "b", time=0, progress="digest:1:2")
    profile.append(CHAT, "c", time=0)
    profile.close()
    again = open_profile(profile.folder, model, writable=True)
    assert again.progress == "digest:1:2"
    again.finish()
    again.close()
    assert open_profile(profile.folder, model).progress == ""


@pytest.mark.parametrize(("rolled_back", "left"), [(TEXT, ""), (CHAT, "digest:1:2")])
def test_a_text_that_was_forgotten_in_part_begins_anew(profile: Profile, rolled_back: str, left: str) -> None:
    profile.append(CHAT, "said", time=0, conversation=2)
    for i in (1, 2):
        profile.append(TEXT, f"piece {i}", time=0, conversation=1, progress=f"digest:1:{i}")
    profile.remove([{TEXT: 3, CHAT: 1}[rolled_back]])
    assert profile.progress == left


def test_reading_leaves_no_trace(saved: list[Entry], folder: Path, model: Model) -> None:
    before, names = contents(folder), files_in(folder)
    profile = open_profile(folder, model)
    assert profile.checkpoint() is not None
    assert profile.progress
    assert (contents(folder), files_in(folder)) == (before, names)
    profile.close()
    assert (contents(folder), files_in(folder)) == (before, names)


def test_reading_where_there_is_nothing(tmp_path: Path, model: Model) -> None:
    profile = open_profile(tmp_path / "none", model)
    assert (profile.entries, profile.checkpoint(), profile.progress, profile.n_bytes) == ([], None, "", 0)
    profile.close()
    assert list(tmp_path.iterdir()) == []


def test_another_model_is_refused(saved: list[Entry], folder: Path, model: Model, tmp_path: Path) -> None:
    other = hub.load(str(write_tiny_model(tmp_path / "other", seed=5, name="other")))
    before = contents(folder)
    for writable in (False, True):
        with pytest.raises(ProfileError, match=r"another model \('tiny'\).*`edgelm profile rebase --profile me`"):
            open_profile(folder, other, writable=writable)
        profile = open_profile(folder, other, writable=writable, any_base=True)
        assert profile.entries == saved
        assert (profile.base, profile.base_name) == (model.sha256, "tiny")
        profile.close()
    assert contents(folder) == before


def test_it_is_moved_to_another_model(saved: list[Entry], folder: Path, model: Model, tmp_path: Path) -> None:
    other = hub.load(str(write_tiny_model(tmp_path / "other", seed=5, name="o'ther")))
    profile = open_profile(folder, other, writable=True, any_base=True)
    profile.rebase(other)
    assert (profile.base, profile.base_name) == (other.sha256, "o'ther")
    assert profile.checkpoint() is None
    profile.close()
    assert files_in(folder) == {"me.db"}
    assert open_profile(folder, other).entries == saved
    with pytest.raises(ProfileError, match="another model"):
        open_profile(folder, model)
