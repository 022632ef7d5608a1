"""Valid files made invalid, or into other valid ones: bytes, JSON, tensors, archives and databases.

Each takes a generator, a file and another valid file of the same kind, and gives the bytes of a new file: the same
for the same state of the generator.
"""

from __future__ import annotations

import gzip
import json
import math
import random
import sqlite3
import tarfile
import zlib
from collections.abc import Callable
from contextlib import closing, suppress
from copy import deepcopy
from typing import Any

from edgelm.log.entry import Entry

Mutation = Callable[[random.Random, bytes, bytes], bytes]
MOST_BYTES = 1 << 20
NUMBERS = (
    *(0, 1, 2, 3, 7, 8, 32, 64, 127, 128, 255, 256, 511, 512, 1000, 32767, 32768, 65535, 65536, 2**24, 2**31 - 1),
    *(2**31, 2**32 - 1, 2**32, 2**40, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1),
)
DEEP, LONG = "\x01deep\x01", "\x01long\x01"
"""Stand for what ``json.dumps`` cannot write: lists in lists, and a number of 5,000 digits."""
PIECES = (
    b"\0", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\r", b"\n", b"\n\n", b"\t", b"\x1b[2J", b"\x85", b"\xe2\x80\xa8",
    b"\\ud800", b"\\u0000", b"1e999", b"-1", b"NaN", b"null", b"{}", b"[]", b'"', b"9" * 5000, b"[" * 3000,
    b'{"a":' * 3000, b"../", b"PK\5\6", b"PK\6\7", b"PK\1\2", b"\x1f\x8b", b"-----BEGIN PRIVATE KEY-----", b"<|doc|>",
    b"my password is:\n", b"\xef\xb7\xba" * 400, b"a" * 3000, b" " * 3000, b"1 " * 1500,
)  # fmt: skip


def mutate_bytes(rng: random.Random, blob: bytes, other: bytes) -> bytes:
    """A few bytes or pieces flipped, deleted, repeated, written over, moved, or taken from the other file."""
    found = bytearray(blob)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        _change_bytes(rng, found, other)
    return bytes(found[:MOST_BYTES])


def _change_bytes(rng: random.Random, blob: bytearray, other: bytes) -> None:
    at = rng.randrange(len(blob) + 1)
    end = min(len(blob), at + rng.choice((1, 1, 2, 4, 8, 32, 512, 1 << 16)))
    kind = rng.randrange(11)
    if kind <= 1 and at < len(blob):
        blob[at] ^= 1 << rng.randrange(8)
    elif kind == 2 and at < len(blob):
        blob[at] = rng.randrange(256)
    elif kind == 3:
        del blob[at:end]
    elif kind == 4:
        blob[at:at] = bytes(blob[at:end]) * rng.choice((1, 1, 2, 50))
    elif kind <= 6:
        width, order = rng.choice((1, 2, 4, 8)), rng.choice(("little", "big"))
        number = (rng.choice(NUMBERS) * rng.choice((1, 1, -1))) % (1 << 8 * width)
        blob[at : at + width if kind == 5 else at] = number.to_bytes(width, order)  # type: ignore[arg-type]
    elif kind == 7:
        blob[at:at] = rng.choice(PIECES)
    elif kind == 8:
        begin = rng.randrange(len(other) + 1)
        blob[at : rng.choice((at, end, len(blob)))] = other[begin : begin + rng.choice((8, 64, 4096, 1 << 20))]
    elif kind == 9:
        blob[at:] = b""
    else:
        to = rng.randrange(len(blob) + 1)
        blob[to:to] = blob[at:end]


def mutate_json(rng: random.Random, blob: bytes, other: bytes) -> bytes:
    """Values of other types, sizes and depths; keys that are missing, doubled or new; parts of the other file."""
    try:
        value, material = json.loads(blob), json.loads(other)
    except (ValueError, RecursionError):
        return mutate_bytes(rng, blob, other)
    if rng.random() < 0.1:
        return mutate_bytes(rng, blob, other)
    holder = [value]
    for _ in range(rng.choice((1, 1, 2, 3))):
        _change_json(rng, holder, material)
    text = json.dumps(holder[0], ensure_ascii=rng.random() < 0.9)
    depth = rng.choice((60, 990, 3000))
    text = text.replace(json.dumps(DEEP), "[" * depth + "]" * depth).replace(json.dumps(LONG), "9" * 5000)
    return text.encode("utf-8", "surrogatepass")


def _descend(rng: random.Random, holder: Any, stop: float) -> tuple[Any, Any]:
    """A container somewhere below, and a key of it."""
    while True:
        key = rng.choice(list(holder)) if isinstance(holder, dict) else rng.randrange(len(holder))
        if not (isinstance(holder[key], dict | list) and holder[key]) or rng.random() < stop:
            return holder, key
        holder = holder[key]


def _change_json(rng: random.Random, root: list[Any], material: Any) -> None:
    if not root:
        root.append({})
    holder, key = _descend(rng, root, 0.2)
    kind = rng.randrange(8)
    if kind <= 3:
        holder[key] = _odd(rng, holder[key])
    elif kind == 4 and holder is not root:
        del holder[key]
    elif kind == 5:
        there, name = _descend(rng, [material], 0.3)
        holder[key] = deepcopy(there[name])
    elif kind == 6:
        there, name = _descend(rng, root, 0.2)
        holder[key] = deepcopy(there[name])
    elif isinstance(holder, dict):
        holder[rng.choice(("", "more", "__metadata__", f"{key}.q", f"{key}x", "a\nb"))] = _odd(rng, holder[key])
    else:
        holder.insert(key, holder[key] if holder is not root else None)


def _odd(rng: random.Random, near: object) -> object:
    """What nobody expects in the place of a value."""
    if isinstance(near, int | float) and rng.random() < 0.3:
        return rng.choice((-near, near * 2, float(near) if abs(near) < 1e300 else 0, near == 0))
    odd: tuple[object, ...] = (
        None, True, False, -1, 0.5, -0.0, 1e-320, 1e308, math.nan, math.inf, 10**30, -(2**63), "", "a", "0", "\ud800",
        "a\nb", "\x1b[2J\r", "\0", "é" * 2000, [], {}, [[]], {"a": {}}, [near], {"a": near}, str(near)[:99], DEEP, LONG,
        rng.choice(NUMBERS), rng.choice(NUMBERS), -rng.choice(NUMBERS),
    )  # fmt: skip
    value = rng.choice(odd)
    return value.copy() if isinstance(value, dict | list) else value


def mutate_lines(rng: random.Random, blob: bytes, other: bytes) -> bytes:
    """As JSON, one of the lines of the file; or bytes of it."""
    lines, others = blob.split(b"\n"), other.split(b"\n")
    at = rng.randrange(len(lines))
    if rng.random() < 0.3 or not lines[at].startswith(b"{"):
        return mutate_bytes(rng, blob, other)
    lines[at] = mutate_json(rng, lines[at], rng.choice(others))
    return b"\n".join(lines)


SIZES = {"F64": 8, "F32": 4, "F16": 2, "I32": 4, "I8": 1, "U8": 1, "BF16": 2, "I64": 8}
_TensorPart = tuple[str, str, list[int], bytes]


def mutate_tensors(rng: random.Random, blob: bytes, other: bytes) -> bytes:
    """Names, kinds, shapes and numbers of tensors, each tensor where it says that it is; or the header, or bytes."""
    chance = rng.random()
    if chance < 0.15:
        return mutate_bytes(rng, blob, other)
    if chance < 0.35:
        size, end = (int.from_bytes(some[:8], "little") for some in (blob, other))
        header = mutate_json(rng, blob[8 : 8 + size], other[8 : 8 + end])
        return len(header).to_bytes(8, "little") + header + blob[8 + size :]
    try:
        (metadata, parts), (_, others) = split_tensors(blob), split_tensors(other)
        for _ in range(rng.choice((1, 1, 2, 3))):
            _change_tensors(rng, parts, others)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):  # it was mutated before
        return mutate_bytes(rng, blob, other)
    return join_tensors(metadata, parts)


def split_tensors(blob: bytes) -> tuple[object, list[_TensorPart]]:
    """The metadata of a valid file, and name, kind, shape and bytes of each tensor."""
    begin = 8 + int.from_bytes(blob[:8], "little")
    header = json.loads(blob[8:begin])
    metadata = header.pop("__metadata__", None)
    places = {name: [begin + offset for offset in entry["data_offsets"]] for name, entry in header.items()}
    return metadata, [(n, e["dtype"], e["shape"], blob[slice(*places[n])]) for n, e in header.items()]


def join_tensors(metadata: object, parts: list[_TensorPart]) -> bytes:
    """The inverse of ``split_tensors``; of two tensors of one name the last counts."""
    header: dict[str, object] = {} if metadata is None else {"__metadata__": metadata}
    at, blobs = 0, []
    for name, kind, shape, blob in {part[0]: part for part in parts}.values():
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, at + len(blob)]}
        at += len(blob)
        blobs.append(blob)
    head = json.dumps(header).encode()
    return len(head).to_bytes(8, "little") + head + b"".join(blobs)


def _change_tensors(rng: random.Random, parts: list[_TensorPart], others: list[_TensorPart]) -> None:
    if not parts:
        return
    at = rng.randrange(len(parts))
    name, kind, shape, blob = parts[at]
    there = rng.choice(parts + others)[0]
    change = rng.randrange(9)
    if change == 0:
        del parts[at]
    elif change <= 2:
        ends = ("", ".q", ".scale", ".zero", ".blocks")
        new = rng.choice((there, name.rsplit(".", 1)[0], *(name.removesuffix(end) + end for end in ends)))
        parts[at if change == 1 else len(parts) :] = [(new, kind, shape, blob), *parts[at + 1 :] * (change == 1)]
    elif change == 3:
        parts[at] = _fitted(name, rng.choice(list(SIZES)), shape, blob)
    elif change == 4:
        parts[at] = _fitted(name, kind, _other_shape(rng, shape), blob)
    elif change <= 6 and blob:
        size = SIZES[kind]
        spoiled = bytearray(blob)
        for _ in range(rng.choice((1, 1, 4))):
            place = rng.randrange(len(blob) // size) * size
            pattern = rng.choice((b"\xff" * 8, b"\0" * 7 + b"\x80", b"\0" * 8, b"\xff" * 7 + b"\x7f", rng.randbytes(8)))
            inf = {2: b"\0\x7c", 4: b"\0\0\x80\x7f", 8: b"\0\0\0\0\0\0\xf0\x7f"}.get(size, b"\x80")
            spoiled[place : place + size] = rng.choice((inf, pattern[-size:]))
        parts[at] = name, kind, shape, bytes(spoiled)
    elif others:
        parts.extend(others if change == 7 else [rng.choice(others)])


def _other_shape(rng: random.Random, shape: list[int]) -> list[int]:
    sizes = list(shape)
    if sizes and rng.random() < 0.7:
        sizes[rng.randrange(len(sizes))] = rng.choice((0, 1, 2, 3, 4, 8, 32, 33, 64))
        return sizes
    return rng.choice(([], [1, *sizes], [*sizes, 1], sizes[::-1], [math.prod(sizes)], sizes[1:], [2, 2], [0]))


def _fitted(name: str, kind: str, shape: list[int], blob: bytes) -> _TensorPart:
    """A tensor with as many bytes as it must have."""
    size = math.prod(shape) * SIZES[kind]
    return name, kind, shape, (blob + bytes(max(0, size - len(blob))))[:size]


def mutate_archive(rng: random.Random, blob: bytes, other: bytes) -> bytes:
    """Bytes of a zip, of a tar, of what a tar.gz packs or of the gz; headers of a tar mostly with a right checksum."""
    if blob.startswith(b"PK") or rng.random() < 0.1:
        return mutate_bytes(rng, blob, other)
    if blob.startswith(b"\x1f\x8b"):
        with suppress(EOFError, OSError, zlib.error):
            return gzip.compress(_mutate_tar(rng, gzip.decompress(blob), other), 1, mtime=0)
    return _mutate_tar(rng, blob, other)


def _mutate_tar(rng: random.Random, blob: bytes, other: bytes) -> bytes:
    size, found = tarfile.BLOCKSIZE, bytearray(blob)
    heads = [at for at in range(0, len(blob) - size + 1, size) if blob[at + 257 : at + 262] == b"ustar"]
    if not heads or rng.random() < 0.2:
        return mutate_bytes(rng, blob, other)
    for _ in range(rng.choice((1, 1, 2))):
        begin, width = rng.choice(((0, 100), (124, 12), (124, 12), (156, 1), (156, 1), (257, 8), (345, 155)))
        texts = (b"", b"\xff", b"\x80" + b"\0" * 7 + b"\xff" * 4, b"77777777777", b"../x", b"/", b"x/config.json", b"0")
        values = (*texts, rng.randbytes(width), b"%o" % rng.choice(NUMBERS), rng.choice(b"0157xgLKSDV").to_bytes(1))
        at = rng.choice(heads)
        found[at + begin : at + begin + width] = (rng.choice(values) + bytes(width))[:width]
        if rng.random() < 0.9:
            found[at + 148 : at + 156] = b" " * 8
            found[at + 148 : at + 156] = b"%06o\0 " % sum(found[at : at + size])
    return bytes(found)


def mutate_database(rng: random.Random, blob: bytes, other: bytes) -> bytes:
    """Bytes of a profile's log; or what SQL can change, the digests of its rows made right again."""
    if rng.random() < 0.6:
        return mutate_bytes(rng, blob, other)
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        # One with a write-ahead log does not open in memory.
        with suppress(sqlite3.Error):
            database.deserialize(blob[:18] + b"\1\1" + blob[20:])
        for _ in range(rng.choice((1, 1, 2))):
            with suppress(sqlite3.Error, OverflowError, UnicodeError):
                _change_rows(rng, database)
        with suppress(sqlite3.Error, TypeError, OverflowError, UnicodeError):
            columns = "id, time, kind, text, conversation, parent, amount, note"
            for row in database.execute(f"SELECT {columns} FROM log").fetchall():
                database.execute("UPDATE log SET digest = ? WHERE id = ?", (Entry(*row).digest, row[0]))
        try:
            return database.serialize()
        except sqlite3.Error:  # it was mutated before
            return mutate_bytes(rng, blob, other)


def _change_rows(rng: random.Random, database: sqlite3.Connection) -> None:
    value = rng.choice(
        (None, -1, 2, 0.5, math.inf, 1e300, "", "0", "a:1:1", "chat", "import", "ta\nble", "\x1b[2J", b"a", b"\xff",
         "9" * 400, rng.choice(NUMBERS), "CREATE TABLE x(a)", "²:1:1", "a" * 3000)
    )  # fmt: skip
    kind = rng.randrange(7)
    if kind <= 2:
        field = rng.choice(["id", "time", "kind", "text", "conversation", "parent", "amount", "note", "digest"])
        database.execute(f"UPDATE log SET {field} = ? WHERE id = ?", (value, rng.randrange(1, 5)))
    elif kind == 3:
        key = rng.choice(("base", "base_name", "progress", "removed", "more"))
        database.execute("REPLACE INTO meta VALUES (?, ?)", (key, value))
    elif kind == 4:
        database.execute("INSERT INTO checkpoint VALUES (?, ?)", (rng.choice((1, 2, 99, value)), value))
    elif kind == 5:
        database.execute("PRAGMA writable_schema = 1")
        field = rng.choice(["type", "name", "tbl_name", "rootpage", "sql"])
        where = rng.choice(("log", "meta", "checkpoint"))
        database.execute(f"UPDATE sqlite_master SET {field} = ? WHERE name = ?", (value, where))
    else:
        statements = (
            "CREATE VIEW v AS SELECT * FROM log", "CREATE INDEX i ON log(text)", "DROP TABLE checkpoint",
            "CREATE TRIGGER t AFTER DELETE ON log BEGIN DELETE FROM meta; END", "PRAGMA user_version = 3",
            "PRAGMA application_id = 0", "DELETE FROM log", "DELETE FROM meta", "CREATE TABLE \"a\nb\"(x)",
            "UPDATE log SET text = CAST(x'ff41' AS TEXT)", "UPDATE meta SET value = CAST(x'ff41' AS TEXT)",
        )  # fmt: skip
        database.execute(rng.choice(statements))
