"""Every reader of files from elsewhere: what nobody meant is read, or refused in one line.

``python -m tools.measure.fuzz`` gives them millions of inputs instead of thousands.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from edgelm.config import ModelConfig
from edgelm.errors import ConfigError, EdgelmError, InputError, ModelFileError, ProfileError
from edgelm.learn.entry import CHAT
from edgelm.learn.profile import Profile
from edgelm.measure.point import read_pairs
from edgelm.measure.recall import read_told
from edgelm.memory.bank import PackedExchanges
from edgelm.model import hub
from tests.fuzz import mutations as m
from tests.fuzz.readers import Reader, Room
from tests.fuzz.registry import READERS
from tests.model_folder import edit_manifest, sign, write_tiny_model

INPUTS, LEAST = 60_000, 40
"""Of all readers together, as ``Reader.share`` says; and of one of them at least."""
SLOW = {"take-in": pytest.mark.jit_only}


@pytest.fixture
def room(tmp_path: Path, tiny_model: Path) -> Room:
    folder = tmp_path / "room"
    folder.mkdir()
    return Room(folder, tiny_model)


def _count(reader: Reader) -> int:
    return max(LEAST, INPUTS * reader.share // 4612)


@pytest.mark.parametrize("name", [pytest.param(name, marks=SLOW.get(name, ())) for name in READERS])
def test_it_is_read_or_refused_in_one_line(name: str, room: Room) -> None:
    reader = READERS[name](room)
    assert all(reader.accepts(seed) for seed in reader.seeds)
    accepted = 0
    for number in range(_count(reader)):
        blob = reader.input(0, number)
        try:
            accepted += reader.accepts(blob)
        except Exception as exc:
            exc.add_note(f"input {number} of {name}: {blob[:2000]!r}")
            raise
    # Neither all nor nothing: else the mutations would say nothing about what is accepted, or about what is refused.
    assert 0 < accepted < _count(reader) or not reader.refuses


@pytest.mark.parametrize("name", READERS)
def test_an_input_is_always_the_same(name: str, room: Room) -> None:
    reader = READERS[name](room)
    first = [reader.input(3, number) for number in range(20)]
    assert first == [reader.input(3, number) for number in range(20)]
    assert first != [reader.input(4, number) for number in range(20)]


DEEP = "[" * 3000 + "]" * 3000


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (read_told, f'{{"told": "a", "asked": "b", "word": {DEEP}}}'),
        (read_pairs, f'{{"said": "a", "reply": {DEEP}}}'),
    ],
    ids=["facts", "pairs"],
)
def test_lists_in_lists(read: Callable[[str, str], object], text: str) -> None:
    with pytest.raises(InputError, match="line 1: not a"):
        read(text, "file")


@pytest.mark.parametrize(("said", "reply"), [(" " * 400 + "a", "b"), ("a", "\t" * 400 + "b")])
def test_a_remark_that_begins_with_nothing_is_none(said: str, reply: str) -> None:
    lines = [json.dumps({"said": f"{i}", "reply": "b"}) for i in range(20)]
    found = read_pairs("\n".join([*lines, json.dumps({"said": said, "reply": reply})]), "file")
    assert all(text.strip() for pair in found for text in pair)


@pytest.mark.parametrize("text", [b"\xff\tb\n", b"a\t\xc3\n", b"a\tb\nc", b"c"])
def test_exchanges_that_cannot_be_read(text: bytes) -> None:
    with pytest.raises(ValueError, match=r".") as raised:
        PackedExchanges(text)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("d_model", "value_dim", "n_channels"), [(2, 8, 4), (30, 8, 4), (32, 7, 5)])
def test_channels_of_the_published_mixer_divide_all_that_passes_them(
    d_model: int, value_dim: int, n_channels: int
) -> None:
    with pytest.raises(ConfigError, match="channels"):
        ModelConfig(300, d_model, 2, 1, 8, value_dim, 20, 4, 32, 2, 32, n_channels, "mcsd")


@pytest.mark.parametrize("ends", [[".q"], [".q", ".scale"], [".zero"]])
def test_a_tensor_that_is_there_twice(tmp_path: Path, ends: list[str]) -> None:
    """Plain, and a part of it as integers too: of which nobody looked whether it fits."""
    folder = write_tiny_model(tmp_path / "twice")
    metadata, parts = m.split_tensors((folder / hub.WEIGHTS).read_bytes())
    parts += [("final_norm" + end, "I8", [1], b"\0") for end in ends]
    (folder / hub.WEIGHTS).write_bytes(m.join_tensors(metadata, parts))
    sign(folder)
    with pytest.raises(ModelFileError, match="final_norm"):
        hub.load(str(folder))


@pytest.mark.parametrize("field", ["format", "config"])
def test_an_error_is_no_longer_than_a_few_lines(tmp_path: Path, field: str) -> None:
    folder = write_tiny_model(tmp_path / "long")
    edit_manifest(folder, **{field: "a" * 9000 if field == "format" else {"a" * 9000: 1}})
    with pytest.raises(ModelFileError) as raised:
        hub.read_manifest(folder)
    assert len(str(raised.value)) < 2000


@pytest.mark.parametrize("field", ["type", "name"])
def test_line_ends_in_the_names_of_tables(tmp_path: Path, tiny_model: Path, field: str) -> None:
    model = hub.load(str(tiny_model))
    with closing(Profile(tmp_path, "me", model, writable=True)) as profile:
        profile.append(CHAT, "The ferry waits.", time=1.0)
    with closing(sqlite3.connect(tmp_path / "me.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("PRAGMA writable_schema = 1")
        connection.execute(f"UPDATE sqlite_master SET {field} = ? WHERE name = 'log'", ("a\nb",))
    with pytest.raises(ProfileError) as raised:
        Profile(tmp_path, "me", model, writable=False)
    assert isinstance(raised.value, EdgelmError)
    assert "\n" not in str(raised.value)
