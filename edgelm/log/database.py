"""The SQLite file of a profile: made whole, opened with distrust, its failures told in one line.

A ``.db`` may be a copy that came from somebody else. Nothing of it is used before its tables were found to be those
that edgelm makes, and nothing beside them: no trigger, view or index that would run on its own. Then every row is
compared with what a row may be.
"""

from __future__ import annotations

import errno
import os
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from edgelm.errors import ProfileError
from edgelm.log.entry import CHAT, CHECKPOINT, CONSOLIDATION, FIX, GOOD, IMPORT, TEXT, UNLOGGED, Entry
from edgelm.model import tensorfile
from edgelm.model.layers import Layer

FORMAT = 2
APPLICATION_ID = 0x65646765  # "edge"
WAIT_SECONDS = 2.0
"""How long another program that reads or writes the file is waited for."""
LARGEST = 10**15 - 1
"""Largest number of an entry or a conversation."""
_LAST_SECOND = 253_402_300_799.0  # the end of the year 9999
_KINDS = (CHAT, TEXT, GOOD, FIX, CONSOLIDATION, CHECKPOINT, IMPORT, UNLOGGED)
_NUMBER = "[0-9]{1,15}"
MOST_LAYERS = 16
_LAYER = "[0-9a-f]{64} [A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_META = {
    "base": ".*", "base_name": ".*", "progress": f"[^:]*:{_NUMBER}:{_NUMBER}", "removed": _NUMBER,
    "layers": f"{_LAYER}(\n{_LAYER}){{0,{MOST_LAYERS - 1}}}",
}  # fmt: skip
_META_TABLE = "CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID"
_LOG_TABLE = """CREATE TABLE log(
    id INTEGER PRIMARY KEY, time REAL NOT NULL, kind TEXT NOT NULL, text TEXT NOT NULL,
    conversation INTEGER NOT NULL, parent INTEGER, amount INTEGER, note TEXT NOT NULL, digest BLOB NOT NULL)"""
_CHECKPOINT_TABLE = "CREATE TABLE checkpoint(entry INTEGER PRIMARY KEY, sha256 TEXT NOT NULL)"
_TABLES = (_META_TABLE, _LOG_TABLE, _CHECKPOINT_TABLE)
_FIRST_TABLES = (  # as the first edgelm of this format made them
    _META_TABLE,
    _LOG_TABLE.replace("PRIMARY KEY", "PRIMARY KEY AUTOINCREMENT"),
    "CREATE TABLE sqlite_sequence(name,seq)",
    _CHECKPOINT_TABLE,
)
_DAMAGE = {"", "ERROR", "CORRUPT", "MISMATCH", "FORMAT", "NOTADB"}
"""What SQLite calls a file that is at fault itself; whatever else it reports, the file may be whole."""
_NO_INDEX = {"FULL", "IOERR", "CANTOPEN", "READONLY"}
"""What it says where the index of a write-ahead log cannot be made."""


def create(path: Path, base: str, base_name: str) -> None:
    """Makes an empty database of mode 0600 beside its place: after a crash it is whole, or not there."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.touch(mode=0o600)
    with closing(sqlite3.connect(fresh, isolation_level=None)) as database:
        header = f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT}"
        database.executescript(f"PRAGMA page_size = 1024; BEGIN; {'; '.join((header, *_TABLES))};")
        values = ("base", base, "base_name", base_name)
        database.execute("INSERT INTO meta VALUES (?, ?), (?, ?)", values)
        # Nothing is left to write when it is closed, which reports no error.
        database.execute("COMMIT")
        database.execute("PRAGMA journal_mode = WAL")
    os.replace(fresh, path)
    tensorfile.sync_folder(path.parent)


def connect(path: Path, *, writable: bool) -> sqlite3.Connection:
    """Opens what ``create`` made, and nothing else.

    Raises
    ------
    ProfileError
        It is damaged, no profile, of another format, or holds what edgelm never put there.
    sqlite3.Error
        The disk is full or fails.
    """
    # Without a write-ahead log nobody is writing, and reading shall leave no file behind.
    idle = not path.with_name(f"{path.name}-wal").exists()
    ways = ["mode=rw"] if writable else ["mode=ro&immutable=1"] if idle else ["mode=ro", "mode=ro&vfs=unix-none"]
    where = str(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    for way in ways:
        try:
            database = sqlite3.connect(
                f"file:{where}?{way}", uri=True, isolation_level=None, check_same_thread=False, timeout=WAIT_SECONDS
            )
            try:
                if way.endswith("none"):
                    # The disk has no room for the index of the write-ahead log: it is kept in memory then.
                    database.execute("PRAGMA locking_mode = EXCLUSIVE")
                _distrust(database)
                _check(database, path)
            except BaseException:
                database.close()
                raise
            return database
        except sqlite3.Error as exc:
            if way == ways[-1] or _sqlite_name(exc) not in _NO_INDEX:
                raise
    raise AssertionError("there is always a way")


def _distrust(database: sqlite3.Connection) -> None:
    database.execute("PRAGMA trusted_schema = OFF")
    database.execute("PRAGMA cell_size_check = ON")
    if setconfig := getattr(database, "setconfig", None):  # from Python 3.12 on
        for name, value in (("DEFENSIVE", True), ("ENABLE_TRIGGER", False), ("ENABLE_VIEW", False)):
            setconfig(getattr(sqlite3, f"SQLITE_DBCONFIG_{name}"), value)


def prepare(database: sqlite3.Connection) -> None:
    """Before writing: what is committed is durable from now on, what is deleted is overwritten."""
    database.execute("PRAGMA synchronous = FULL")
    database.execute("PRAGMA secure_delete = ON")
    database.execute("PRAGMA journal_mode = WAL")  # not before it is known to be a profile


def _check(database: sqlite3.Connection, path: Path) -> None:
    known = database.execute("PRAGMA application_id").fetchone()[0]
    version = database.execute("PRAGMA user_version").fetchone()[0]
    if known != APPLICATION_ID:
        raise ProfileError(f"{path}: not an edgelm profile; move the file away to start anew")
    if version != FORMAT:
        raise ProfileError(f"{path}: profile format {version}, this edgelm reads {FORMAT}")
    found = set(database.execute("SELECT type, name, tbl_name, sql FROM sqlite_master LIMIT 9"))
    if found not in (ours := [_schema(tables) for tables in (_TABLES, _FIRST_TABLES)]):
        foreign = next((f"the {kind} {name!r}" for kind, name, *_ in found - ours[0] - ours[1]), "too few tables")
        raise ProfileError(f"{path}: not as edgelm makes a profile (it has {foreign}); move the file away")
    if (check := database.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
        problem = check.splitlines()[-1]
        raise ProfileError(f"{path}: damaged ({problem}); move the file away, or bring a copy back")


def _schema(tables: tuple[str, ...]) -> set[tuple[str, str, str, str]]:
    """What ``sqlite_master`` says of tables."""
    names = [re.split(r"[ (]", sql)[2] for sql in tables]
    return {("table", name, name, sql) for name, sql in zip(names, tables, strict=True)}


def read_meta(database: sqlite3.Connection, path: Path) -> dict[str, str]:
    """What is known of the whole profile."""
    meta = dict(database.execute("SELECT key, value FROM meta LIMIT 9"))
    for key, value in meta.items():
        fits = key in _META and isinstance(value, str) and re.fullmatch(_META[key], value, re.DOTALL)
        if not fits:
            raise ProfileError(f"{path}: damaged at {key!r}; move the file away or use a copy")
    return meta


def layers_of(meta: dict[str, str]) -> tuple[Layer, ...]:
    """The layers that ``write_layers`` wrote, lowest first."""
    rows = (line.split(" ") for line in meta.get("layers", "").splitlines())
    return tuple(Layer(name, sha256) for sha256, name in rows)


def write_layers(database: sqlite3.Connection, layers: Sequence[Layer]) -> None:
    """Keeps which layers lie beneath the log; a profile without any is as it always was."""
    value = "\n".join(f"{layer.sha256} {layer.name}" for layer in layers)
    if not value:
        database.execute("DELETE FROM meta WHERE key = 'layers'")
    elif re.fullmatch(_META["layers"], value):
        database.execute("REPLACE INTO meta VALUES ('layers', ?)", (value,))
    else:
        raise ProfileError(f"at most {MOST_LAYERS} layers can lie beneath a log, each with the name of a file")


def read_log(database: sqlite3.Connection, path: Path) -> list[Entry]:
    """All entries, oldest first, each as it was written."""
    entries: list[Entry] = []
    columns = "id, time, kind, text, conversation, parent, amount, note, digest"
    for *fields, stored in database.execute(f"SELECT {columns} FROM log ORDER BY id"):
        entry = Entry(*fields)
        if entry.digest != stored or misfit(entry):
            where = f" at its {field}" if (field := misfit(entry)) else ""
            raise ProfileError(f"{path}: entry {entry.id} is damaged{where}; move the file away or use a copy")
        entries.append(entry)
    known = {entry.id for entry in entries}
    for entry_id, sha256 in database.execute("SELECT entry, sha256 FROM checkpoint"):
        if entry_id not in known or not isinstance(sha256, str):
            raise ProfileError(f"{path}: checkpoint {entry_id} is damaged; move the file away or use a copy")
    return entries


def misfit(entry: Entry) -> str:
    """The field of an entry that has a type or a value that none can have; "" if there is none."""
    fits = {
        "id": _is_number(entry.id, 1),
        "time": type(entry.time) is float and 0 <= entry.time <= _LAST_SECOND,
        "kind": entry.kind in _KINDS,
        "text": type(entry.text) is str,
        "conversation": _is_number(entry.conversation, 0),
        "parent": entry.parent is None or _is_number(entry.parent, 1, entry.id - 1),
        "amount": entry.amount is None or _is_number(entry.amount, 0),
        "note": type(entry.note) is str,
    }
    return next((name for name, does in fits.items() if not does), "")


def _is_number(value: object, least: int, most: int = LARGEST) -> bool:
    return type(value) is int and least <= value <= most


def empty_journal(database: sqlite3.Connection) -> bool:
    """Moves the write-ahead log into the database and empties it; False while another program still reads it."""
    busy, _, _ = database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not busy


@contextmanager
def reporting(path: Path, doing: str, damaged: str = "") -> Iterator[None]:
    """Turns what SQLite and the system report into one line; ``damaged`` is said of a file at fault itself."""
    try:
        yield
    except (sqlite3.Error, OSError, UnicodeError, MemoryError) as exc:  # a damaged file can want any memory
        said = damaged if damaged and is_damage(exc) else doing
        raise ProfileError(f"{path}: {said} ({reason(exc, path)})") from None


def is_damage(exc: Exception) -> bool:
    """Whether the file is at fault, not the disk or another program."""
    return isinstance(exc, MemoryError) or (not isinstance(exc, OSError) and _sqlite_name(exc) in _DAMAGE)


def reason(exc: Exception, path: Path) -> str:
    """Why something failed at ``path``, and what to do where that is known."""
    name, number = _sqlite_name(exc), getattr(exc, "errno", None)
    free_bytes, read_only = _disk_of(path)
    vague = name in ("IOERR", "CANTOPEN")
    if name == "FULL" or number in (errno.ENOSPC, errno.EDQUOT) or (vague and free_bytes < _LEAST_FREE_BYTES):
        return "the disk is full: make room and try again"
    if number == errno.EROFS or (read_only and (vague or name == "READONLY")):
        return "the disk is read-only"
    if name == "BUSY":
        return "another program is using it: close that one and try again"
    return " ".join(str(getattr(exc, "strerror", None) or exc).split())


_LEAST_FREE_BYTES = 64 << 10  # bytes; the index of a write-ahead log takes half of it


def _sqlite_name(exc: Exception) -> str:
    """``FULL``, ``IOERR`` and so on."""
    parts = str(getattr(exc, "sqlite_errorname", "")).split("_")
    return parts[1] if len(parts) > 1 else ""


def _disk_of(path: Path) -> tuple[int, bool]:
    """Free bytes, and whether nothing may be written."""
    with suppress(OSError):
        disk = os.statvfs(path.parent)
        return disk.f_bavail * disk.f_frsize, bool(disk.f_flag & os.ST_RDONLY)
    return _LEAST_FREE_BYTES, False
