"""The SQLite file of a profile: a copy is not trusted, a full disk is called one, and what is forgotten leaves it."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edgelm.errors import ProfileError
from edgelm.log import database
from edgelm.log.entry import CHAT, GOOD, Entry
from edgelm.log.profile import Profile
from edgelm.model import hub
from edgelm.model.hub import Model
from edgelm.model.layers import Layer
from tests.command import ROOT
from tests.model_folder import contents

SECRET = "wolverine"


@pytest.fixture
def model(tiny_model: Path) -> Model:
    return hub.load(str(tiny_model))


@pytest.fixture
def folder(tmp_path: Path, model: Model) -> Path:
    """The folder of a profile "me" with two turns and an answer, closed."""
    folder = tmp_path / "profiles"
    with closing(Profile(folder, "me", model, writable=True)) as profile:
        for kind, text, parent in ((CHAT, "The ferry waits.", None), (CHAT, "Why?", None), (GOOD, "Fog.", 2)):
            profile.append(kind, text, time=1.5, conversation=1, parent=parent)
    return folder


def _change(folder: Path, *statements: str) -> None:
    """What somebody hostile does to a copy, which need not have a write-ahead log."""
    with closing(sqlite3.connect(folder / "me.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        for statement in statements:
            connection.executescript(statement)


def _assert_refused(folder: Path, model: Model, says: str) -> None:
    before = contents(folder)
    for writable in (False, True):
        with pytest.raises(ProfileError, match=says) as raised:
            Profile(folder, "me", model, writable=writable)
        assert str(folder / "me.db") in str(raised.value)
        assert "\n" not in str(raised.value)
    assert contents(folder) == before


ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT 'base', i FROM n WHERE i < 0"


@pytest.mark.parametrize(
    ("statements", "says"),
    [
        (["CREATE TABLE shadow(text TEXT)"], "the table 'shadow'"),
        (
            ["CREATE TABLE t(text); DROP TABLE t; CREATE TRIGGER keeps AFTER DELETE ON log BEGIN UPDATE meta SET "
             "value = old.text WHERE key = 'base_name'; END;"],
            "the trigger 'keeps'",
        ),
        (["CREATE VIEW every AS SELECT * FROM log"], "the view 'every'"),
        (["CREATE INDEX words ON log(text)"], "the index 'words'"),
        (["DROP TABLE checkpoint"], "too few tables"),
        ([f"DROP TABLE meta; CREATE VIEW meta(key, value) AS {ENDLESS}"], "the view 'meta'"),
        ([f"DROP TABLE log; CREATE VIEW log AS {ENDLESS}"], "the view 'log'"),
        (["DROP TABLE checkpoint; CREATE TABLE checkpoint(entry INTEGER PRIMARY KEY, sha256 TEXT DEFAULT (abs(-1)))"],
         "the table 'checkpoint'"),
        (["ANALYZE"], "the table 'sqlite_stat1'"),
    ],
    ids=["table", "trigger", "view", "index", "fewer", "endless meta", "endless log", "default", "statistics"],
)  # fmt: skip
def test_what_edgelm_never_made_is_refused(folder: Path, model: Model, statements: list[str], says: str) -> None:
    _change(folder, *statements)
    _assert_refused(folder, model, says)


WILD: list[tuple[str, Any]] = [
    ("id", 0), ("id", -5), ("id", 2**63 - 1),
    ("time", 1e300), ("time", float("inf")), ("time", -1.0), ("time", b"1"), ("time", "now"),
    ("kind", "said"), ("kind", b"chat"), ("text", b"words"), ("note", b"taken back"),
    ("conversation", -1), ("conversation", 2**60), ("conversation", "one"),
    ("parent", 9), ("parent", 0), ("parent", "it"), ("amount", -1), ("amount", "many"), ("amount", 0.5),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value"), WILD)
def test_rows_that_nobody_writes_are_damage(folder: Path, model: Model, field: str, value: object) -> None:
    values: dict[str, Any] = {"id": 9, "time": 1.0, "kind": CHAT, "text": "a", "conversation": 1, "parent": None}
    values |= {"amount": None, "note": "", field: value}
    with closing(sqlite3.connect(folder / "me.db")) as connection:
        row = (*values.values(), Entry(**values).digest)
        connection.execute("INSERT INTO log VALUES (?,?,?,?,?,?,?,?,?)", row)
        connection.commit()
    _assert_refused(folder, model, f"is damaged at its {field}; move the file away or use a copy")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE log SET text = CAST(x'ff41' AS TEXT) WHERE id = 1",
        "UPDATE log SET digest = 'short' WHERE id = 1",
        "INSERT INTO meta VALUES ('progress', 'a:²:1')",
        f"INSERT INTO meta VALUES ('progress', 'a:{'1' * 5000}:1')",
        "INSERT INTO meta VALUES ('removed', 'all')",
        f"INSERT INTO meta VALUES ('removed', '{'9' * 5000}')",
        "INSERT INTO meta VALUES ('forgotten', 'words')",
        "UPDATE meta SET value = x'41' WHERE key = 'base_name'",
        "INSERT INTO meta VALUES ('layers', '')",
        "INSERT INTO meta VALUES ('layers', 'sea')",
        f"INSERT INTO meta VALUES ('layers', '{'0' * 64} ../sea')",
        "INSERT INTO meta VALUES ('layers', '" + "\n".join(["0" * 64 + " sea"] * 17) + "')",
        "INSERT INTO checkpoint VALUES (9, 'ab')",
        "INSERT INTO checkpoint VALUES (1, x'ab')",
    ],
)
def test_other_rows_that_nobody_writes(folder: Path, model: Model, statement: str) -> None:
    _change(folder, statement)
    _assert_refused(folder, model, "damaged")


def test_layers_are_a_row_of_their_own(folder: Path, model: Model) -> None:
    """Without them a profile is as it always was."""
    layers = [Layer(name, f"{number:064x}") for number, name in enumerate(("sea", "hill"))]
    for wanted in (layers, layers[::-1], []):
        with closing(Profile(folder, "me", model, writable=True)) as profile:
            profile.set_layers(wanted)
            with pytest.raises(ProfileError, match="at most 16 layers can lie beneath a log"):
                profile.set_layers([layers[0]] * 17)
        found = Profile(folder, "me", model, writable=False)
        assert list(found.layers) == wanted
        assert (found.identity == model.sha256) == (not wanted)
        with closing(sqlite3.connect(folder / "me.db")) as connection:
            keys = {key for (key,) in connection.execute("SELECT key FROM meta")}
        assert keys == {"base", "base_name", *(["layers"] if wanted else [])}


def test_no_row_is_written_that_could_not_be_read(folder: Path, model: Model) -> None:
    with closing(Profile(folder, "me", model, writable=True)) as profile:
        for kind, time, says in (("said", 0.0, "kind"), (CHAT, float("nan"), "time"), (CHAT, -1.0, "time")):
            with pytest.raises(ProfileError, match=f"no entry can have such a {says}"):
                profile.append(kind, "words", time=time)
        assert len(profile.entries) == 3
    assert len(Profile(folder, "me", model, writable=False).entries) == 3


def test_a_file_of_the_first_edgelm_of_this_format(folder: Path, model: Model) -> None:
    (before,) = (
        sql
        for sql in database._FIRST_TABLES
        if "id INTEGER PRIMARY KEY AUTOINCREMENT, time REAL NOT NULL, kind TEXT NOT NULL, text TEXT NOT NULL,\n" in sql
    )
    _change(folder, f"ALTER TABLE log RENAME TO newer; {before}; INSERT INTO log SELECT * FROM newer; DROP TABLE newer")
    said = ["The ferry waits.", "Why?", "Fog."]
    assert [entry.text for entry in Profile(folder, "me", model, writable=False).entries] == said
    with closing(Profile(folder, "me", model, writable=True)) as profile:
        profile.remove([2])
        profile.append(CHAT, "Then we wait.", time=2)
    found = Profile(folder, "me", model, writable=False).entries
    assert [(entry.id, entry.text) for entry in found] == [(1, "The ferry waits."), (4, "Then we wait.")]


@pytest.mark.parametrize("writable", [False, True])
def test_how_it_is_opened(folder: Path, writable: bool) -> None:
    with closing(database.connect(folder / "me.db", writable=writable)) as connection:

        def asked(pragma: str) -> object:
            return connection.execute(f"PRAGMA {pragma}").fetchone()[0]

        assert (asked("trusted_schema"), asked("cell_size_check")) == (0, 1)
        if writable:
            database.prepare(connection)
            assert (asked("secure_delete"), asked("synchronous"), asked("journal_mode")) == (1, 2, "wal")
        if hasattr(connection, "getconfig"):
            assert connection.getconfig(sqlite3.SQLITE_DBCONFIG_DEFENSIVE)


def _sqlite_error(name: str) -> sqlite3.Error:
    exc = sqlite3.OperationalError("what SQLite says")
    exc.sqlite_errorname = name
    return exc


@pytest.mark.parametrize(
    ("exc", "says", "damage"),
    [
        (_sqlite_error("SQLITE_FULL"), "the disk is full: make room and try again", False),
        (OSError(errno.ENOSPC, "No space"), "the disk is full: make room and try again", False),
        (OSError(errno.EDQUOT, "Quota"), "the disk is full: make room and try again", False),
        (OSError(errno.EROFS, "Read-only"), "the disk is read-only", False),
        (OSError(errno.EIO, "It is broken"), "It is broken", False),
        (_sqlite_error("SQLITE_BUSY"), "another program is using it: close that one and try again", False),
        (_sqlite_error("SQLITE_IOERR_WRITE"), "what SQLite says", False),
        (_sqlite_error("SQLITE_CANTOPEN"), "what SQLite says", False),
        (_sqlite_error("SQLITE_CORRUPT"), "what SQLite says", True),
        (_sqlite_error("SQLITE_NOTADB"), "what SQLite says", True),
        (sqlite3.OperationalError("Could not\ndecode"), "Could not decode", True),
    ],
)
def test_what_went_wrong(tmp_path: Path, exc: Exception, says: str, damage: bool) -> None:
    assert (database.reason(exc, tmp_path / "me.db"), database.is_damage(exc)) == (says, damage)


@pytest.mark.parametrize(
    ("room", "read_only", "says"), [(0, False, "the disk is full"), (1 << 30, True, "the disk is read-only")]
)
def test_what_sqlite_does_not_know_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int, read_only: bool, says: str
) -> None:
    monkeypatch.setattr(database, "_disk_of", lambda path: (room, read_only))
    for name in ("SQLITE_IOERR_SHMSIZE", "SQLITE_IOERR_WRITE", "SQLITE_CANTOPEN"):
        assert database.reason(_sqlite_error(name), tmp_path / "me.db").startswith(says)


def _after_a_crash(folder: Path, model: Model) -> Path:
    """A folder as a process left it that was killed: its last turn is in the write-ahead log alone."""
    left = folder.with_name("left")
    with closing(Profile(folder, "me", model, writable=True)) as profile:
        profile.append(CHAT, "The last word.", time=2)
        left.mkdir(mode=0o700)
        for path in folder.glob("me.db*"):
            if not path.name.endswith("-shm"):
                shutil.copy2(path, left)
    assert (left / "me.db-wal").stat().st_size
    return left


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own with little room, where a test may mount one."""
    place = tmp_path / "disk"
    place.mkdir(mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k,mode=700", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount a disk")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def _fill(disk: Path) -> None:
    with (disk / "fill").open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(bytes(512))


@pytest.mark.parametrize("how", ["full", "read-only"])
@pytest.mark.parametrize("crashed", [False, True], ids=["closed", "after a crash"])
def test_a_disk_where_nothing_can_be_written(folder: Path, model: Model, disk: Path, how: str, crashed: bool) -> None:
    place = disk / "profiles"
    shutil.copytree(_after_a_crash(folder, model) if crashed else folder, place)
    if how == "full":
        _fill(disk)
    else:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with closing(Profile(place, "me", model, writable=False)) as profile:
        assert [entry.text for entry in profile.entries[3:]] == ["The last word."] * crashed
    for name in ("me", "new"):
        with pytest.raises(ProfileError, match=r"the disk is full|No space left|[Rr]ead-only") as raised:
            _say(place, name, model)
        assert not any(word in str(raised.value) for word in ("damaged", "move the file", "\n"))
    assert len(Profile(place, "me", model, writable=False).entries) == 3 + crashed


def _say(folder: Path, name: str, model: Model) -> None:
    with closing(Profile(folder, name, model, writable=True)) as profile:
        profile.append(CHAT, "word " * 2000, time=3)


LIMITED = """
import resource, sys
from pathlib import Path
from edgelm.errors import ProfileError
from edgelm.log.profile import Profile
from edgelm.model import hub
model = hub.load(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]), resource.RLIM_INFINITY))
try:
    profile = Profile(Path(sys.argv[1]), "me", model, writable=sys.argv[3] == "w")
    if sys.argv[3] == "w":
        profile.append("chat", "word " * 20000, time=3)
    print([entry.text for entry in profile.entries][-1])
except ProfileError as exc:
    print(exc)
"""


@pytest.mark.parametrize("crashed", [False, True], ids=["closed", "after a crash"])
@pytest.mark.parametrize("limit", [0, 50_000])
def test_files_that_cannot_grow(folder: Path, model: Model, crashed: bool, limit: int) -> None:
    place = _after_a_crash(folder, model) if crashed else folder

    def other(mode: str) -> str:
        command = [sys.executable, "-c", LIMITED, str(place), str(model.folder), mode, str(limit)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    last = "The last word." if crashed else "Fog."
    assert other("r") == last
    line = other("w")
    assert "nothing was lost" in line or "cannot be written" in line
    assert not any(word in line for word in ("damaged", "move the file", "\n"))
    assert other("r") == last
    with closing(Profile(place, "me", model, writable=True)) as profile:
        assert profile.entries[-1].text == last


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes where it likes; a read-only disk stands for it above")
def test_a_folder_that_is_only_read(folder: Path, model: Model) -> None:
    place = _after_a_crash(folder, model)
    place.chmod(0o500)
    with closing(Profile(place, "me", model, writable=False)) as profile:
        assert profile.entries[-1].text == "The last word."
    place.chmod(0o700)


@pytest.fixture
def reader(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[sqlite3.Connection]:
    """Another program, that may read the file."""
    monkeypatch.setattr(database, "WAIT_SECONDS", 0.01)
    connection = sqlite3.connect(f"file:{folder / 'me.db'}?mode=ro", uri=True, isolation_level=None)
    yield connection
    connection.close()


def _holders(folder: Path) -> list[str]:
    return [path.name for path, blob in contents(folder).items() if SECRET.encode() in blob]


@pytest.mark.parametrize("again", ["asked", "opened"])
def test_what_another_program_reads_is_not_called_forgotten(
    folder: Path, model: Model, reader: sqlite3.Connection, again: str
) -> None:
    with closing(Profile(folder, "me", model, writable=True)) as profile:
        entry = profile.append(CHAT, f"My {SECRET} sleeps.", time=3)
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM log").fetchone() == (4,)
        profile.remove([entry.id])
        assert not profile.is_wiped()
        assert _holders(folder)
        if again == "asked":
            reader.execute("COMMIT")
            assert profile.is_wiped()
            assert not _holders(folder)
    if again == "opened":
        assert _holders(folder)
        reader.execute("COMMIT")
        Profile(folder, "me", model, writable=True).close()
    assert not _holders(folder)


def test_what_is_forgotten_alone_is_wiped_at_once(folder: Path, model: Model, reader: sqlite3.Connection) -> None:
    with closing(Profile(folder, "me", model, writable=True)) as profile:
        assert profile.is_wiped()
        entry = profile.append(CHAT, f"My {SECRET} sleeps.", time=3)
        assert reader.execute("SELECT count(*) FROM log").fetchone() == (4,)  # and has read all of it
        profile.remove([entry.id])
        assert not profile.lingers
        assert profile.is_wiped()
        assert not _holders(folder)


def test_a_file_that_wants_any_memory_is_damaged(tmp_path: Path) -> None:
    """A page of a changed size can make SQLite ask for more than there is."""
    with (
        pytest.raises(ProfileError, match="it is damaged"),
        database.reporting(tmp_path / "me.db", "cannot be opened", "it is damaged"),
    ):
        raise MemoryError
