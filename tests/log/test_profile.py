"""The log of what was learned on disk: it comes back as it was written, or not at all, and forgets for good."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgelm.errors import ProfileError
from edgelm.log import folder as profile_folder
from edgelm.log.database import APPLICATION_ID, FORMAT
from edgelm.log.entry import CHAT, CHECKPOINT, CONSOLIDATION, FIX, GOOD, IMPORT, TEXT, UNLOGGED, Entry
from edgelm.log.profile import Profile
from edgelm.model import hub
from edgelm.model.hub import Model
from edgelm.model.weights import Weights
from tests.command import ROOT
from tests.model_folder import contents, write_tiny_model

SECRET = "wolverine"


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
    profile.append(CHECKPOINT, time=5, tensors=_tensors())
    profile.append(TEXT, "word " * 600, time=6.25, conversation=2, progress="digest:2:1")
    profile.close()
    return profile.entries


def _tensors(value: float = 0.25) -> Weights:
    return {"final_norm": np.full(32, value, np.float16), "memory.gates": np.zeros((1, 2))}


def _open(folder: Path, model: Model, *, writable: bool = False, any_base: bool = False) -> Profile:
    return Profile(folder, "me", model, writable=writable, any_base=any_base)


def _say(profile: Profile, *texts: str, conversation: int = 1) -> list[int]:
    return [profile.append(CHAT, text, time=0, conversation=conversation).id for text in texts]


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"}


def _assert_gone(folder: Path, *words: str) -> None:
    for path, blob in contents(folder).items():
        for word in words:
            assert word.encode() not in blob, path


def test_entries_come_back(saved: list[Entry], folder: Path, model: Model) -> None:
    assert [entry.id for entry in saved] == [1, 2, 3, 4, 5]
    assert saved[2] == Entry(3, 4, GOOD, "Hello", 1, 1, None, "a note")
    for writable in (False, True):
        profile = _open(folder, model, writable=writable)
        assert profile.entries == saved
        assert (profile.progress, profile.problem) == ("digest:2:1", "")
        assert profile.n_bytes >= sum(map(len, contents(folder).values()))
        profile.close()


def test_ids_are_never_given_twice(profile: Profile, model: Model) -> None:
    ids = _say(profile, "one", "two", "three")
    profile.remove(ids[1:])
    ids += _say(profile, "four")
    profile.remove(ids[:1] + ids[3:])
    profile.close()
    again = _open(profile.folder, model, writable=True)
    assert again.entries == []
    ids += _say(again, "five")
    again.close()
    assert ids == [1, 2, 3, 4, 5]


def test_what_became_of_an_entry_comes_back(profile: Profile, model: Model) -> None:
    first, second = _say(profile, "one", "two")
    profile.change(first, note="taken back")
    profile.change(second, amount=7)
    profile.change(second, note="broken off")
    profile.change(99, note="there is none")
    profile.close()
    found = _open(profile.folder, model).entries
    assert found == profile.entries
    assert [(entry.note, entry.amount) for entry in found] == [("taken back", None), ("broken off", 7)]


def test_a_conversation_has_a_number_of_its_own(profile: Profile) -> None:
    assert profile.conversation() == 1
    _say(profile, "one", conversation=1)
    _say(profile, "two", conversation=4)
    assert profile.conversation() == 5


def test_progress(profile: Profile, model: Model) -> None:
    assert profile.progress == ""
    profile.append(TEXT, "a", time=0, progress="digest:1:1")
    profile.append(TEXT, "b", time=0, progress="digest:1:2")
    profile.append(CHAT, "c", time=0)
    profile.close()
    again = _open(profile.folder, model, writable=True)
    assert again.progress == "digest:1:2"
    again.finish()
    again.close()
    assert _open(profile.folder, model).progress == ""


@pytest.mark.parametrize(("rolled_back", "left"), [(TEXT, ""), (CHAT, "digest:1:2")])
def test_a_text_that_was_forgotten_in_part_begins_anew(profile: Profile, rolled_back: str, left: str) -> None:
    profile.append(CHAT, "said", time=0, conversation=2)
    for i in (1, 2):
        profile.append(TEXT, f"piece {i}", time=0, conversation=1, progress=f"digest:1:{i}")
    profile.remove([{TEXT: 3, CHAT: 1}[rolled_back]])
    assert profile.progress == left


def test_only_its_owner_can_read_it(profile: Profile) -> None:
    _say(profile, "mine")
    profile.append(CHECKPOINT, time=0, tensors=_tensors())
    _say(profile, "mine too")
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

    _say(profile, "one", "two")
    assert other("w") == "profile 'me' is in use by another edgelm; close it or use --profile"
    with pytest.raises(ProfileError, match="in use"):
        _open(profile.folder, model, writable=True)
    with pytest.raises(ProfileError, match="in use"):
        Profile.delete(profile.folder, "me")
    # Neither readers nor other profiles are shut out, and readers see what is not yet in the main file.
    assert other("r") == "2"
    assert len(_open(profile.folder, model).entries) == 2
    Profile(profile.folder, "you", model, writable=True).close()
    _say(profile, "three")
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
        _open(folder, model, writable=True)
    assert not (folder / "elsewhere").exists()


def test_what_is_new_can_be_discarded_while_it_is_held(folder: Path, model: Model) -> None:
    profile = _open(folder, model, writable=True)
    assert profile.is_new
    profile.append(CHECKPOINT, time=0, tensors=_tensors())
    profile.discard()
    profile.close()
    assert list(folder.iterdir()) == []
    _open(folder, model, writable=True).close()
    again = _open(folder, model, writable=True)
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
    reader = _open(folder, model)
    assert reader.problem.startswith(f"other users can write {says}; see that you alone can: chmod go-w ")
    assert (reader.entries, _modes(folder)) == (saved, bad)
    writer = _open(folder, model, writable=True)
    writer.close()
    where = folder if name else folder.parent
    assert writer.problem == f"other users could write {says} (in {where}); now you alone can"
    assert _modes(folder) == good
    assert _open(folder, model).problem == ""


def test_a_folder_where_each_can_touch_their_own_alone(saved: list[Entry], folder: Path, model: Model) -> None:
    folder.chmod(0o1777)
    profile = _open(folder, model, writable=True)
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
            _open(folder, model, writable=writable)


def test_what_root_lets_all_write(
    saved: list[Entry], folder: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root makes a file of root's")
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert _open(folder, model).entries == saved
    (folder / "me.db").chmod(0o666)
    with pytest.raises(ProfileError, match="other users can write it, and it is not yours"):
        _open(folder, model)


def test_reading_leaves_no_trace(saved: list[Entry], folder: Path, model: Model) -> None:
    before, names = contents(folder), _names(folder)
    profile = _open(folder, model)
    assert profile.checkpoint() is not None
    assert profile.progress
    assert (contents(folder), _names(folder)) == (before, names)
    profile.close()
    assert (contents(folder), _names(folder)) == (before, names)


def test_reading_where_there_is_nothing(tmp_path: Path, model: Model) -> None:
    profile = _open(tmp_path / "none", model)
    assert (profile.entries, profile.checkpoint(), profile.progress, profile.n_bytes) == ([], None, "", 0)
    profile.close()
    assert list(tmp_path.iterdir()) == []


def test_another_model_is_refused(saved: list[Entry], folder: Path, model: Model, tmp_path: Path) -> None:
    other = hub.load(str(write_tiny_model(tmp_path / "other", seed=5, name="other")))
    before = contents(folder)
    for writable in (False, True):
        with pytest.raises(ProfileError, match=r"another model \('tiny'\).*`edgelm profile rebase --profile me`"):
            _open(folder, other, writable=writable)
        profile = _open(folder, other, writable=writable, any_base=True)
        assert profile.entries == saved
        assert (profile.base, profile.base_name) == (model.sha256, "tiny")
        profile.close()
    assert contents(folder) == before


def test_it_is_moved_to_another_model(saved: list[Entry], folder: Path, model: Model, tmp_path: Path) -> None:
    other = hub.load(str(write_tiny_model(tmp_path / "other", seed=5, name="o'ther")))
    profile = _open(folder, other, writable=True, any_base=True)
    profile.rebase(other)
    assert (profile.base, profile.base_name) == (other.sha256, "o'ther")
    assert profile.checkpoint() is None
    profile.close()
    assert _names(folder) == {"me.db"}
    assert _open(folder, other).entries == saved
    with pytest.raises(ProfileError, match="another model"):
        _open(folder, model)


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
    _say(profile, "said")
    profile.close()
    assert [entry.text for entry in Profile(tmp_path, name, model, writable=False).entries] == ["said"]


def test_names_that_begin_like_others(tmp_path: Path, model: Model) -> None:
    names = ["me", "me.db", "me.db-x", "me.weights-1", "me.weights-1.safetensors", "you.me", "time"]
    for name in names:
        profile = Profile(tmp_path, name, model, writable=True)
        _say(profile, name)
        profile.append(CHECKPOINT, time=0, tensors=_tensors())
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
        _open(tmp_path / place, model, writable=True)
    # Reading is another matter: there is no profile yet.
    assert _open(tmp_path / place, model).entries == []
    assert (tmp_path / "profiles").read_text(encoding="utf-8") == "a file"


def _foreign(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE log(id INTEGER PRIMARY KEY, text TEXT)")
        database.execute("INSERT INTO log VALUES (1, 'theirs')")
    database.close()


def _pragma(path: Path, pragma: str) -> None:
    database = sqlite3.connect(path)
    database.execute(f"PRAGMA {pragma}")
    database.commit()
    database.close()


def _assert_refused_and_left_alone(folder: Path, model: Model, says: str) -> None:
    before = contents(folder)
    for writable in (False, True, True):
        with pytest.raises(ProfileError, match=says) as raised:
            _open(folder, model, writable=writable)
        assert "me.db" in str(raised.value)
        assert "\n" not in str(raised.value)
    assert contents(folder) == before


def test_a_database_of_somebody_else(folder: Path, model: Model) -> None:
    folder.mkdir()
    _foreign(folder / "me.db")
    _assert_refused_and_left_alone(folder, model, "not an edgelm profile; move the file away")


def test_what_is_no_database(folder: Path, model: Model) -> None:
    folder.mkdir()
    (folder / "me.db").write_bytes(b"no database " * 1000)
    _assert_refused_and_left_alone(folder, model, "not a profile; move the file away")


def test_a_folder_in_place_of_the_file(folder: Path, model: Model) -> None:
    (folder / "me.db").mkdir(parents=True)
    _assert_refused_and_left_alone(folder, model, "me.db")


def test_a_newer_format(saved: list[Entry], folder: Path, model: Model) -> None:
    _pragma(folder / "me.db", f"user_version = {FORMAT + 1}")
    _assert_refused_and_left_alone(folder, model, f"profile format {FORMAT + 1}, this edgelm reads {FORMAT}")


def test_another_application(saved: list[Entry], folder: Path, model: Model) -> None:
    _pragma(folder / "me.db", f"application_id = {APPLICATION_ID + 1}")
    _assert_refused_and_left_alone(folder, model, "not an edgelm profile")


def test_what_the_base_was_is_missing(saved: list[Entry], folder: Path, model: Model) -> None:
    database = sqlite3.connect(folder / "me.db")
    database.execute("DELETE FROM meta WHERE key LIKE 'base%'")
    database.commit()
    database.close()
    for writable in (False, True):
        with pytest.raises(ProfileError, match="another model"):
            _open(folder, model, writable=writable)


@pytest.mark.parametrize("share", [0.03, 0.1, 0.5, 0.9])
def test_a_truncated_file(saved: list[Entry], folder: Path, model: Model, share: float) -> None:
    path = folder / "me.db"
    blob = path.read_bytes()
    path.write_bytes(blob[: int(len(blob) * share)])
    _assert_refused_and_left_alone(folder, model, "damaged")


def test_an_empty_file_is_a_new_profile(folder: Path, model: Model) -> None:
    folder.mkdir()
    (folder / "me.db").touch()
    profile = _open(folder, model, writable=True)
    assert _say(profile, "one") == [1]
    profile.close()
    assert len(_open(folder, model).entries) == 1


def _texts_of(folder: Path, model: Model) -> list[Entry] | None:
    """What a damaged profile loads, None if it is refused."""
    try:
        return _open(folder, model).entries
    except ProfileError as exc:
        assert "\n" not in str(exc)
        return None


def test_a_flipped_byte_never_changes_the_log(saved: list[Entry], folder: Path, model: Model) -> None:
    path, rng = folder / "me.db", np.random.default_rng(3)
    blob, refused = path.read_bytes(), 0
    for place in rng.choice(len(blob), 400, replace=False):
        damaged = bytearray(blob)
        damaged[place] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        found = _texts_of(folder, model)
        refused += found is None
        assert found is None or found == saved, place
    assert refused > 50


@pytest.mark.parametrize("column", ["time = 9", "kind = 'text'", "text = 'x'", "parent = 2", "note = ''", "amount = 1"])
def test_a_changed_entry_is_damage(saved: list[Entry], folder: Path, model: Model, column: str) -> None:
    database = sqlite3.connect(folder / "me.db")
    database.execute(f"UPDATE log SET {column} WHERE id = 3")
    database.commit()
    database.close()
    _assert_refused_and_left_alone(folder, model, "entry 3 is damaged; move the file away or use a copy")


def test_the_checkpoint_comes_back(saved: list[Entry], folder: Path, model: Model) -> None:
    found = _open(folder, model).checkpoint()
    assert found is not None
    entry_id, tensors, metadata = found
    assert entry_id == 4
    assert metadata == {"base": model.sha256, "base_name": "tiny", "entry": "4"}
    for name, array in _tensors().items():
        np.testing.assert_array_equal(tensors[name], array)


def test_damaged_weights_are_not_used(saved: list[Entry], folder: Path, model: Model) -> None:
    path, rng = folder / "me.weights-4.safetensors", np.random.default_rng(4)
    blob = path.read_bytes()
    for place in rng.choice(len(blob), 50, replace=False):
        damaged = bytearray(blob)
        damaged[place] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        profile = _open(folder, model)
        assert profile.checkpoint() is None, place
        assert profile.problem.startswith("me.weights-4.safetensors cannot be used (")
        assert profile.problem.endswith("the log is replayed instead")
        assert profile.entries == saved
    for damage in (blob[:-1], blob + b"\0", b""):
        path.write_bytes(damage)
        assert _open(folder, model).checkpoint() is None
    path.unlink()
    assert _open(folder, model).checkpoint() is None


def test_what_a_crash_left_is_tidied_at_the_next_writing(saved: list[Entry], folder: Path, model: Model) -> None:
    names = _names(folder)
    left = ["me.weights-3.safetensors", "me.weights-99.safetensors", ".me.weights-7.safetensors.a1b2c3d4"]
    others = ["me.weights.txt", "you.weights-3.safetensors", "notme.weights-3.safetensors"]
    for name in left + others:
        (folder / name).write_bytes(b"left")
    _open(folder, model).close()
    assert _names(folder) == names | set(left) | set(others)
    _open(folder, model, writable=True).close()
    assert _names(folder) == names | set(others)


def test_newer_weights_take_the_place_of_older_ones(profile: Profile) -> None:
    _say(profile, "one")
    profile.append(CHECKPOINT, time=0, tensors=_tensors(1))
    _say(profile, "two")
    profile.append(CHECKPOINT, time=0)
    assert profile.checkpoint()[0] == 2  # type: ignore[index]
    profile.write_checkpoint(_tensors(2))
    entry_id, tensors, _ = profile.checkpoint() or (0, {}, {})
    assert entry_id == 4
    assert (tensors["final_norm"] == 2).all()
    profile.write_checkpoint(_tensors(3))
    assert (profile.checkpoint()[1]["final_norm"] == 3).all()  # type: ignore[index]
    profile.close()
    assert _names(profile.folder) == {"me.db", "me.weights-4.safetensors"}


def test_what_is_removed_is_in_no_file(profile: Profile, model: Model) -> None:
    long = f"{SECRET} " * 2000  # over many pages
    ids = _say(profile, "The ferry waits.", f"My {SECRET} sleeps.", long, "The lamps are lit.")
    _say(profile, *(f"line {i}" for i in range(50)), conversation=2)
    profile.append(CHECKPOINT, time=0, tensors=_tensors())
    assert any(SECRET.encode() in blob for blob in contents(profile.folder).values())
    assert profile.remove(ids[1:3]) == ids[1:3]
    _assert_gone(profile.folder, SECRET)
    assert profile.checkpoint() is None
    _say(profile, "The fog comes.")
    profile.close()
    _assert_gone(profile.folder, SECRET)
    assert _names(profile.folder) == {"me.db"}
    texts = [entry.text for entry in _open(profile.folder, model).entries if entry.conversation == 1]
    assert texts == ["The ferry waits.", "The lamps are lit.", "The fog comes."]


def test_notes_of_what_is_removed_go_too(profile: Profile) -> None:
    (entry_id,) = _say(profile, "Good morning.")
    profile.change(entry_id, note=f"taken back: {SECRET}")
    profile.change(entry_id, note="another")
    profile.remove([entry_id])
    profile.close()
    _assert_gone(profile.folder, SECRET, "another")


def test_older_weights_stay(profile: Profile) -> None:
    _say(profile, "one")
    profile.append(CHECKPOINT, time=0, tensors=_tensors())
    ids = _say(profile, "two")
    profile.remove(ids)
    assert profile.checkpoint()[0] == 2  # type: ignore[index]
    assert profile.remove([]) == []


def test_what_depends_on_it_goes_too(profile: Profile) -> None:
    chat = {"time": 0.0, "conversation": 1}
    _say(profile, "one", "two")
    profile.append(GOOD, "answer to one", parent=1, **chat)  # 3
    profile.append(FIX, "answer to two", parent=2, **chat)  # 4
    _say(profile, "three")  # 5
    profile.append(GOOD, "answer to three", parent=5, **chat)  # 6
    profile.append(FIX, "better answer to three", parent=5, **chat)  # 7
    profile.append(CONSOLIDATION, time=0)  # 8
    _say(profile, "elsewhere", conversation=2)  # 9
    profile.append(GOOD, "answer elsewhere", time=0, conversation=2, parent=9)  # 10
    assert profile.dependents([2]) == {2, 3, 4, 6}  # whatever was approved later may repeat it
    assert profile.dependents([5]) == {5, 6, 7}
    assert profile.dependents([7]) == {7}
    assert profile.dependents([9]) == {9, 10}
    assert profile.dependents([10]) == {10}
    assert profile.remove([5, 9]) == [5, 6, 7, 9, 10]
    assert [entry.id for entry in profile.entries] == [1, 2, 3, 4, 8]


def test_there_is_no_such_entry(profile: Profile) -> None:
    ids = _say(profile, "one", "two")
    before = contents(profile.folder)
    with pytest.raises(ProfileError, match="no entry 7; see `edgelm profile log`"):
        profile.remove([ids[0], 9, 7])
    assert contents(profile.folder) == before
    assert len(profile.entries) == 2


@pytest.mark.parametrize("kind", [IMPORT, UNLOGGED])
def test_nothing_before_words_that_were_not_kept_can_go(
    profile: Profile, model: Model, tmp_path: Path, kind: str
) -> None:
    _say(profile, "one")
    profile.append(kind, time=0, tensors=_tensors(1))
    _say(profile, "two")
    profile.append(CHECKPOINT, time=0, tensors=_tensors(2))
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
    assert _names(profile.folder) == {"me.db"}


def test_words_that_were_not_kept_twice(profile: Profile) -> None:
    for value in (1, 2):
        profile.append(UNLOGGED, time=0, tensors=_tensors(value))
    profile.append(CHECKPOINT, time=0, tensors=_tensors(3))
    for value in (3, 2, 1):
        assert (profile.checkpoint()[1]["final_norm"] == value).all()  # type: ignore[index]
        profile.remove([value])
    assert profile.checkpoint() is None


def test_damaged_weights_without_words_cannot_be_replaced(profile: Profile, model: Model) -> None:
    profile.append(UNLOGGED, time=0, tensors=_tensors())
    profile.close()
    path = profile.folder / "me.weights-1.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ProfileError, match="the words were not kept"):
        _open(profile.folder, model).checkpoint()


def test_delete(saved: list[Entry], folder: Path, model: Model) -> None:
    Profile(folder, "you", model, writable=True).close()
    (folder / ".me.weights-7.safetensors.a1b2c3d4").touch()
    Profile.delete(folder, "me")
    assert {path.name for path in folder.iterdir()} == {"you.db", ".you.lock"}
    assert _open(folder, model).entries == []


def test_a_damaged_profile_can_be_deleted(saved: list[Entry], folder: Path) -> None:
    (folder / "me.db").write_bytes(b"damaged")
    Profile.delete(folder, "me")
    assert list(folder.iterdir()) == []
