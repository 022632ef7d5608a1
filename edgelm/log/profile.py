"""The profile: the ordered log of what was learned, and the newest checkpoint of its replay.

``NAME.db`` (SQLite, write-ahead log, ``synchronous=FULL``) holds the log: what a turn or a file said is
durable once ``append`` returns. The weights are a function of the base model and the log
(``edgelm.learn.replay``); ``NAME.weights-ID.safetensors`` keeps those after entry ID, so that only what came
later has to be replayed. It is written outside the database, rarely, and may be lost: nothing is lost with it
but time. One process at a time may hold a profile for writing.
"""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, replace
from pathlib import Path
from typing import IO

from edgelm.errors import ModelFileError, ProfileError
from edgelm.interrupt import held_back
from edgelm.log.database import (
    connect,
    create,
    empty_journal,
    layers_of,
    misfit,
    prepare,
    read_log,
    read_meta,
    reason,
    reporting,
    write_layers,
)
from edgelm.log.entry import GOOD, PAIRED, WORDLESS, Entry
from edgelm.log.folder import check_name, files_of, hold, keep_private, remove_files
from edgelm.model import tensorfile
from edgelm.model.hub import Model
from edgelm.model.layers import Layer, identity
from edgelm.model.weights import Weights


class Profile:
    """One profile of one model.

    Parameters
    ----------
    folder : Path
        Where profiles are kept; made, readable by its owner only, when first written.
    name : str
        Letters, digits, ``.``, ``_`` and ``-``.
    model : Model
    writable : bool
        Holds the profile against other writers until ``close``.
    any_base : bool
        Opens a profile of another model too, to rebase or to show it.

    Attributes
    ----------
    entries : list of Entry
        The log, oldest first.
    layers : tuple of Layer
        Names and digests of what lies beneath the log, lowest first.
    problem : str
        What a person should know: the checkpoint was damaged and not used, or others could write the files.
    is_new : bool
        Whether opening it for writing made it.
    lingers : bool
        Whether what was removed may still be in the write-ahead log, because another program was reading it.

    Raises
    ------
    ProfileError
        The name is no good, another process holds it, it is damaged, or belongs to another model.
    """

    def __init__(self, folder: Path, name: str, model: Model, *, writable: bool, any_base: bool = False) -> None:
        check_name(name)
        self.folder, self.name, self.path = folder, name, folder / f"{name}.db"
        self.entries: list[Entry] = []
        self.base, self.base_name, self.problem = model.sha256, model.name, ""
        self.layers: tuple[Layer, ...] = ()
        self.is_new = self.lingers = False
        self._mutex = threading.RLock()
        self._database: sqlite3.Connection | None = None
        self._lock: IO[bytes] | None = hold(folder, name) if writable else None
        try:
            self._open(writable)
            if self.base != model.sha256 and not any_base:
                raise ProfileError(
                    f"profile {name!r} was learned on another model ({self.base_name!r}); use that one, or move it: "
                    f"`edgelm profile rebase --profile {name}`"
                )
        except BaseException:
            self.close()
            raise

    @contextmanager
    def _reporting(self, doing: str) -> Iterator[sqlite3.Connection]:
        """Turns what SQLite and the system report into one line."""
        with self._mutex:
            assert self._database is not None
            with reporting(self.path, doing):
                yield self._database

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._reporting("cannot be written") as database:
            try:
                database.execute("BEGIN IMMEDIATE")
                yield database
                database.execute("COMMIT")
            except BaseException:
                if database.in_transaction:
                    database.execute("ROLLBACK")
                raise

    def _open(self, writable: bool) -> None:
        damaged = "damaged or not a profile; move the file away to start anew"
        with reporting(self.path, "cannot be opened; nothing was lost", damaged):
            if not writable and not self.path.exists():
                return
            self.problem = keep_private(self.folder, self.name, repair=writable)
            if writable and (not self.path.exists() or self.path.stat().st_size == 0):
                self.is_new = True
                for path in files_of(self.folder, self.name):
                    # A write-ahead log without its database would be taken for that of the new one.
                    if path.name.startswith((self.path.name, f".{self.path.name}.new")):
                        path.unlink()
                create(self.path, self.base, self.base_name)
            self._database = connect(self.path, writable=writable)
            meta = read_meta(self._database, self.path)
            self.base, self.base_name = meta.get("base", ""), meta.get("base_name", "")
            self.layers = layers_of(meta)
            self.entries = read_log(self._database, self.path)
            if writable:
                prepare(self._database)
        if writable:
            self._tidy()

    def _tidy(self) -> None:
        """Ends what a crash cut short: the write-ahead log, and weights that nothing refers to."""
        with self._reporting("cannot be written") as database:
            kept = {self._weights_path(entry) for (entry,) in database.execute("SELECT entry FROM checkpoint")}
            if empty_journal(database):
                self.lingers = False
            for path in files_of(self.folder, self.name):
                if not path.name.startswith(self.path.name) and path not in kept:
                    path.unlink(missing_ok=True)

    def _weights_path(self, entry_id: int) -> Path:
        return self.folder / f"{self.name}.weights-{entry_id}.safetensors"

    @property
    def n_bytes(self) -> int:
        """Bytes of all its files."""
        return sum(path.stat().st_size for path in files_of(self.folder, self.name) if path.exists())

    def append(
        self, kind: str, text: str = "", *, time: float, conversation: int = 0, parent: int | None = None,
        note: str = "", progress: str = "", tensors: Weights | None = None,
    ) -> Entry:  # fmt: skip
        """Adds an entry; it is durable when this returns.

        Parameters
        ----------
        kind, text, time, conversation, parent, note
            Those of the ``Entry``.
        progress : str
            How far the adaptation came that it belongs to.
        tensors : dict of ndarray, optional
            The change and the gates after it, kept as a checkpoint in place of older ones.

        Raises
        ------
        ProfileError
            The disk is full or fails; the log and the older checkpoint are as they were.
        """
        with held_back(), self._reporting("cannot be written; nothing was lost") as database:
            # The ids of what was removed are not given again.
            row = database.execute("SELECT value FROM meta WHERE key = 'removed'").fetchone()
            last = max(self.entries[-1].id if self.entries else 0, int(row[0]) if row else 0)
            entry = Entry(last + 1, float(time), kind, text, conversation, parent, None, note)
            if field := misfit(entry):
                raise ProfileError(f"{self.path}: cannot be written (no entry can have such a {field})")
            sha256 = self._write_weights(entry.id, tensors) if tensors is not None else ""
            with self._writing():
                database.execute("INSERT INTO log VALUES (?,?,?,?,?,?,?,?,?)", (*astuple(entry), entry.digest))
                if progress:
                    database.execute("REPLACE INTO meta VALUES ('progress', ?)", (progress,))
                if sha256:
                    self._refer(database, entry.id, sha256)
            self.entries.append(entry)
        if sha256:
            self._tidy()
        return entry

    def copy_log(self, entries: list[Entry]) -> None:
        """Fills an empty log with the entries of another."""
        if wordless := next((entry for entry in entries if entry.kind in WORDLESS), None):
            raise ProfileError(f"the words of entry {wordless.id} were not kept: copy the profile's weights file too")
        with self._writing() as database:
            rows = [(*astuple(entry), entry.digest) for entry in entries]
            database.executemany("INSERT INTO log VALUES (?,?,?,?,?,?,?,?,?)", rows)
        self.entries = list(entries)

    def write_checkpoint(self, tensors: Weights) -> None:
        """Keeps the change after the last entry, in place of older ones."""
        entry_id = self.entries[-1].id
        with self._reporting("what was learned is in the log, but its weights cannot be kept"):
            sha256 = self._write_weights(entry_id, tensors)
            with self._writing() as database:
                self._refer(database, entry_id, sha256)
        self._tidy()

    def _refer(self, database: sqlite3.Connection, entry_id: int, sha256: str) -> None:
        """The weights after an entry become the checkpoint; what cannot be replayed from the log stays beside."""
        database.execute(
            "DELETE FROM checkpoint WHERE entry NOT IN (SELECT id FROM log WHERE kind IN (?, ?))", WORDLESS
        )
        database.execute("REPLACE INTO checkpoint VALUES (?, ?)", (entry_id, sha256))

    def _write_weights(self, entry_id: int, tensors: Weights) -> str:
        path = self._weights_path(entry_id)
        tensorfile.write(path, tensors, {"base": self.identity, "base_name": self.base_name, "entry": str(entry_id)})
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def change(self, entry_id: int, *, note: str | None = None, amount: int | None = None) -> None:
        """Writes down what became of an entry."""
        with self._mutex:
            index = next((i for i, entry in enumerate(self.entries) if entry.id == entry_id), None)
            if index is None:
                return
            old = self.entries[index]
            new = replace(old, note=old.note if note is None else note, amount=old.amount if amount is None else amount)
            with self._writing() as database:
                values = (new.note, new.amount, new.digest, entry_id)
                database.execute("UPDATE log SET note = ?, amount = ?, digest = ? WHERE id = ?", values)
            self.entries[index] = new

    def conversation(self) -> int:
        """A number for a new conversation."""
        return max((entry.conversation for entry in self.entries), default=0) + 1

    @property
    def progress(self) -> str:
        """How far an adaptation came that was not finished."""
        if self._database is None:
            return ""
        with self._reporting("cannot be read") as database:
            row = database.execute("SELECT value FROM meta WHERE key = 'progress'").fetchone()
        return row[0] if row else ""

    def finish(self) -> None:
        """Says that the last adaptation is complete."""
        with self._writing() as database:
            database.execute("DELETE FROM meta WHERE key = 'progress'")

    def dependents(self, ids: Iterable[int]) -> set[int]:
        """``ids``, answers to them, and approved answers given later in their conversations, which may repeat them."""
        gone = set(ids)
        first: dict[int, int] = {}
        for entry in self.entries:
            if entry.id in gone:
                first.setdefault(entry.conversation, entry.id)
        for entry in self.entries:
            later = entry.kind == GOOD and first.get(entry.conversation, entry.id) < entry.id
            if later or (entry.parent in gone and entry.kind in PAIRED):
                gone.add(entry.id)
        return gone

    def remove(self, ids: Iterable[int]) -> list[int]:
        """Takes entries out of the log and out of every file; returns those that went.

        Checkpoints that knew them go too: the weights have to be replayed.

        Raises
        ------
        ProfileError
            There is no such entry, or something learned later cannot be replayed.
        """
        wanted = set(ids)
        if missing := wanted - {entry.id for entry in self.entries}:
            raise ProfileError(f"the log of {self.name!r} has no entry {min(missing)}; see `edgelm profile log`")
        if not (gone := self.dependents(wanted)):
            return []
        last = max((entry.id for entry in self.entries if entry.kind in WORDLESS and entry.id not in gone), default=0)
        if last > min(gone):
            raise ProfileError(f"the words of entry {last} were not kept: nothing before it can be forgotten")
        unfinished = self.progress.split(":")[1:2]  # is learned from its beginning if a part of it goes

        def update(database: sqlite3.Connection) -> None:
            database.executemany("DELETE FROM log WHERE id = ?", [(i,) for i in gone])
            row = database.execute("SELECT value FROM meta WHERE key = 'removed'").fetchone()
            removed = max(*gone, int(row[0]) if row else 0)
            database.execute("REPLACE INTO meta VALUES ('removed', ?)", (str(removed),))
            if any([str(entry.conversation)] == unfinished for entry in self.entries if entry.id in gone):
                database.execute("DELETE FROM meta WHERE key = 'progress'")

        self._reset(update, gone)
        self.lingers = True
        self.entries = [entry for entry in self.entries if entry.id not in gone]
        self._tidy()
        return sorted(gone)

    def is_wiped(self) -> bool:
        """Whether no file holds what was removed any more; where another program was reading, tries once more."""
        if self.lingers:
            self._tidy()
        return not self.lingers

    def still_in(self) -> str:
        """The journal in which words still are that were taken out of the log, or nothing."""
        return "" if self.is_wiped() else f"{self.path}-wal"

    def rebase(self, model: Model) -> None:
        """Makes this the profile of another model, without layers; the log has to be replayed on it."""
        self._refuse_wordless("moved")

        def update(database: sqlite3.Connection) -> None:
            database.execute("UPDATE meta SET value = ? WHERE key = 'base'", (model.sha256,))
            database.execute("UPDATE meta SET value = ? WHERE key = 'base_name'", (model.name,))
            write_layers(database, ())

        self._reset(update, {0})
        self.base, self.base_name, self.layers = model.sha256, model.name, ()
        self._tidy()

    @property
    def identity(self) -> str:
        """Of the model and the layers beneath the log, as ``Model.identity``."""
        return identity(self.base, self.layers)

    def set_layers(self, layers: Sequence[Layer]) -> None:
        """Makes these the layers beneath the log, which has to be replayed. It is one transaction."""
        self._refuse_wordless("replayed on other layers")
        self._reset(lambda database: write_layers(database, layers), {0})
        self.layers = tuple(Layer(layer.name, layer.sha256) for layer in layers)
        self._tidy()

    def _refuse_wordless(self, what: str) -> None:
        for wordless in (entry for entry in self.entries if entry.kind in WORDLESS):
            raise ProfileError(f"entry {wordless.id} was learned without keeping its words: it cannot be {what}")

    def _reset(self, update, gone: set[int]) -> None:  # type: ignore[no-untyped-def]
        """``_tidy`` is to follow: it writes pages out that ``secure_delete`` zeroed, and empties the journal."""
        with self._writing() as database:
            update(database)
            database.execute("DELETE FROM checkpoint WHERE entry >= ?", (min(gone),))

    def checkpoint(self) -> tuple[int, Weights, dict[str, str]] | None:
        """(entry, tensors, metadata) of the newest checkpoint that is whole, if there is one.

        Raises
        ------
        ProfileError
            It is damaged, and the log cannot replace it.
        """
        if self._database is None:
            return None
        with self._reporting("cannot be read") as database:
            rows = list(database.execute("SELECT entry, sha256 FROM checkpoint ORDER BY entry DESC"))
        for entry_id, sha256 in rows:
            path = self._weights_path(entry_id)
            try:
                if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
                    raise ModelFileError(f"{path}: damaged")
                return (entry_id, *tensorfile.read(path))
            except (OSError, ModelFileError) as exc:
                self.problem = f"{path.name} cannot be used ({reason(exc, path)}); the log is replayed instead"
        if any(entry.kind in WORDLESS for entry in self.entries):
            raise ProfileError(f"{self.path}: the weights are damaged, and the words were not kept to replay them")
        return None

    @staticmethod
    def delete(folder: Path, name: str) -> None:
        """Removes all files of a profile, damaged or not, that no other process holds."""
        check_name(name)
        with hold(folder, name):
            remove_files(folder, name)

    def discard(self) -> None:
        """Removes all its files while it is still held, and closes it."""
        assert self._lock is not None
        if self._database is not None:
            self._database.close()
            self._database = None
        remove_files(self.folder, self.name)
        self.close()

    def close(self) -> None:
        """Lets other processes write."""
        self._database, database = None, self._database
        if database is not None:
            database.close()
        if self._lock is not None:
            self._lock.close()
            self._lock = None
