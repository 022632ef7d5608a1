"""Every reader of files from elsewhere: what nobody meant is read, or refused in one line.

``python -m tools.measure.fuzz`` gives them millions of inputs instead of thousands.
"""

from __future__ import annotations

import io
import json
import sqlite3
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from edgelm.errors import ConfigError, EdgelmError, InputError, ModelFileError, ProfileError
from edgelm.log.entry import CHAT
from edgelm.log.profile import Profile
from edgelm.measure.point import read_pairs
from edgelm.measure.recall import read_told
from edgelm.memory.bank import PackedExchanges
from edgelm.model import hub, tensorfile
from edgelm.model.archive import unpack
from edgelm.model.config import ModelConfig
from edgelm.model.weights import random_weights
from tests.fuzz import mutations as m
from tests.fuzz.readers import Reader, Room
from tests.fuzz.registry import READERS
from tests.model_folder import edit_manifest, sign, write_tiny_model
from tools.measure import forks

MANY, LEAST = 12, 40
"""Inputs for each one of ``Reader.share``; and at least."""
SLOW = {"import-change": pytest.mark.jit_only}


@pytest.fixture
def room(tiny_model: Path) -> Iterator[Room]:
    with forks.room() as folder:
        yield Room(folder, tiny_model)


def _count(reader: Reader) -> int:
    return max(LEAST, MANY * reader.share)


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
def test_an_input_is_always_the_same(name: str, room: Room, tmp_path: Path) -> None:
    (again := tmp_path / "again").mkdir()
    one, other = READERS[name](room), READERS[name](Room(again, room.model_folder))
    first = [one.input(3, number) for number in range(20)]
    assert first == [other.input(3, number) for number in range(20)]
    assert first != [one.input(4, number) for number in range(20)]


DEEP = "[" * 3000 + "]" * 3000


# What follows was found by fuzzing; each is the least that showed it.
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
        ModelConfig.flat(300, d_model, 2, 1, 8, value_dim, 20, 4, 32, 2, 32, n_channels, "mcsd")


@pytest.mark.parametrize("shape", [[4], [1, 1], [2, 2]])
def test_scales_of_another_shape(tmp_path: Path, shape: list[int]) -> None:
    folder = write_tiny_model(tmp_path / "scales")
    metadata, parts = m.split_tensors((folder / hub.SCALES).read_bytes())
    parts.append(("final_norm", "F32", shape, np.ones(shape, np.float32).tobytes()))
    (folder / hub.SCALES).write_bytes(m.join_tensors(metadata, parts))
    sign(folder)
    with pytest.raises(ModelFileError, match="final_norm"):
        hub.load(str(folder))


def test_numbers_that_would_not_fit_integers(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "large")
    weights = random_weights(hub.read_manifest(folder).config, np.random.default_rng(1))
    weights["layers.0.ffn.w1"][0, 0, 0] = 1e30
    tensorfile.write(folder / hub.WEIGHTS, weights)
    sign(folder)
    with pytest.raises(ModelFileError, match=r"layers\.0\.ffn\.w1"):
        hub.load(str(folder))


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


def test_an_error_quotes_little_of_an_archive(tmp_path: Path) -> None:
    """A name in a zip may have 64 KiB."""
    with zipfile.ZipFile(blob := io.BytesIO(), "w") as archive:
        archive.writestr("README.md", "")
        archive.writestr("a" * 9000, "")
    data = blob.getvalue()
    begin, at = data.index(b"PK\3\4", 4), data.index(b"PK\1\2") + 42
    # In the directory there is README.md, now where the long name is.
    data = data[:at] + begin.to_bytes(4, "little") + data[at + 4 :]
    with pytest.raises(ModelFileError, match="damaged") as raised:
        unpack(io.BytesIO(data), tmp_path)
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
