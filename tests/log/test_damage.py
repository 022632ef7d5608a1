"""A profile that is damaged, or none: it is refused and left alone."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from edgelm.errors import ProfileError
from edgelm.log.database import APPLICATION_ID, FORMAT
from edgelm.log.entry import Entry
from edgelm.model.hub import Model
from tests.log.profiles import open_profile, say
from tests.model_folder import contents


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
            open_profile(folder, model, writable=writable)
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
            open_profile(folder, model, writable=writable)


@pytest.mark.parametrize("share", [0.03, 0.1, 0.5, 0.9])
def test_a_truncated_file(saved: list[Entry], folder: Path, model: Model, share: float) -> None:
    path = folder / "me.db"
    blob = path.read_bytes()
    path.write_bytes(blob[: int(len(blob) * share)])
    _assert_refused_and_left_alone(folder, model, "damaged")


def test_an_empty_file_is_a_new_profile(folder: Path, model: Model) -> None:
    folder.mkdir()
    (folder / "me.db").touch()
    profile = open_profile(folder, model, writable=True)
    assert say(profile, "one") == [1]
    profile.close()
    assert len(open_profile(folder, model).entries) == 1


def _texts_of(folder: Path, model: Model) -> list[Entry] | None:
    """What a damaged profile loads, None if it is refused."""
    try:
        return open_profile(folder, model).entries
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
