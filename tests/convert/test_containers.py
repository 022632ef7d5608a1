"""Checkpoints in every container: the same tensors come out, and what is wrong is said in one line."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgelm.convert import pth as pth_module
from edgelm.convert.checkpoint import MAX_NUMBERS
from edgelm.convert.opening import open_checkpoint
from edgelm.errors import ModelFileError
from tests.convert import checkpoints as c

MAKERS: dict[str, Callable[..., bytes]] = {"pth": c.pth, "safetensors": c.safetensors, "gguf": c.gguf}
TENSORS = {
    "matrix": np.arange(96, dtype=np.float32).reshape(3, 32) / 7 - 5,
    "blocks.0.att.x_r": np.linspace(-1, 1, 32, dtype=np.float32).reshape(1, 1, 32),
    "vector": np.array([1.5, -0.0, 65504.0], np.float32),
}


def _write(folder: Path, name: str, blob: bytes) -> Path:
    path = folder / name
    path.write_bytes(blob)
    return path


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("container", MAKERS)
def test_the_same_tensors_come_out(tmp_path: Path, container: str, kind: str) -> None:
    checkpoint = open_checkpoint(_write(tmp_path, f"a.{container}", MAKERS[container](TENSORS, kind)))
    assert sorted(checkpoint.names()) == sorted(TENSORS)
    for name, array in TENSORS.items():
        found = checkpoint.read(name)
        assert (found.dtype, found.shape, checkpoint.shape(name)) == (np.float32, array.shape, array.shape)
        np.testing.assert_array_equal(found, c.as_kind(array, kind))
        found[...] = 0  # it is nobody else's
        np.testing.assert_array_equal(checkpoint.read(name), c.as_kind(array, kind))
        parts = list(checkpoint.read_rows(name, 2))
        assert all(len(part) == 2 for part in parts[:-1])
        np.testing.assert_array_equal(np.concatenate(parts), c.as_kind(array, kind).reshape(-1, *array.shape[1:]))


@pytest.mark.parametrize("container", MAKERS)
def test_a_tensor_that_is_not_there(tmp_path: Path, container: str) -> None:
    checkpoint = open_checkpoint(_write(tmp_path, f"a.{container}", MAKERS[container](TENSORS)))
    for ask in (checkpoint.shape, checkpoint.read):
        with pytest.raises(ModelFileError, match="lacks the tensor 'other'"):
            ask("other")


@pytest.mark.parametrize("container", MAKERS)
def test_a_file_that_is_cut(tmp_path: Path, container: str) -> None:
    blob = MAKERS[container](TENSORS)
    for size in (0, 1, 7, 23, 24, len(blob) // 2, len(blob) - 60):
        with pytest.raises(ModelFileError) as raised:
            open_checkpoint(_write(tmp_path, f"a.{container}", blob[:size]))
        assert len(str(raised.value).splitlines()) == 1
    with pytest.raises(ModelFileError, match="no such file"):
        open_checkpoint(tmp_path / f"none.{container}")


@pytest.mark.parametrize("container", MAKERS)
def test_a_file_that_becomes_shorter(tmp_path: Path, container: str) -> None:
    large = {"matrix": np.ones((512, 1024), np.float32)}  # more than is read ahead
    path = _write(tmp_path, f"a.{container}", MAKERS[container](large))
    checkpoint = open_checkpoint(path)
    path.write_bytes(b"")
    with pytest.raises(ModelFileError, match=r"shorter|cannot be read|damaged"):
        checkpoint.read("matrix")


def test_another_kind_of_file(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"must be a file \.safetensors, \.pth, \.gguf"):
        open_checkpoint(tmp_path / "a.bin")


def test_metadata(tmp_path: Path) -> None:
    entries = [
        c.gguf_entry("name", 8, c.gguf_text("é")), c.gguf_entry("size", 4, struct.pack("<I", 7)),
        c.gguf_entry("eps", 6, struct.pack("<f", 0.5)), c.gguf_entry("yes", 7, b"\1"),
    ]  # fmt: skip
    found = open_checkpoint(_write(tmp_path, "a.gguf", c.gguf(TENSORS, "F32", entries))).metadata
    assert found == {"name": "é", "size": 7, "eps": 0.5, "yes": True}
    assert open_checkpoint(_write(tmp_path, "a.safetensors", c.safetensors(TENSORS))).metadata == {"from": "here"}
    assert open_checkpoint(_write(tmp_path, "a.pth", c.pth(TENSORS))).metadata == {}


def test_a_view_of_a_storage(tmp_path: Path) -> None:
    numbers = np.arange(10, dtype=np.float32)
    table = c.program({"part": c.tensor("0", 10, (2, 3), offset=3), "one": c.tensor("0", 10, (), offset=9)})
    checkpoint = open_checkpoint(_write(tmp_path, "a.pth", c.pth({"all": numbers}, table=table)))
    np.testing.assert_array_equal(checkpoint.read("part"), numbers[3:9].reshape(2, 3))
    assert checkpoint.read("one") == 9


T = c.tensor("0", 96, (3, 32))


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (b"\x80\x04}.", "protocol 2"),
        (b"\x80\x02cos\nsystem\n(X\x02\0\0\0lstR.", "names 'os.system'"),
        (b"\x80\x02cbuiltins\neval\n.", r"names 'builtins\.eval'"),
        (b"\x80\x02ctorch\nDoubleStorage\n.", "DoubleStorage"),
        (b"\x80\x02(dp0\n.", "instruction 0x64"),
        (b"\x80\x02}.}.", "more than one"),
        (b"\x80\x02)", "byte 3: it ends too early"),
        (b"\x80\x02K\x01.", "no dictionary"),
        (b"\x80\x02h\x05.", "takes what is not there"),
        (b"\x80\x02(q\x00.", "takes what is not there"),
        (b"\x80\x02X\xff\xff\xff\xffa.", "ends too early"),
        (b"\x80\x02X\x01\0\0\0\xff.", "byte 8"),
        (b"\x80\x02co", "byte 3"),
        (b"\x80\x02K\x01Q.", "no storage"),
        (b"\x80\x02K\x01)R.", "something else than"),
        (b"\x80\x02" + c.ORDERED + b")R.", "something else than"),
        (b"\x80\x02ccollections\nOrderedDict\n)b.", "attributes"),
        (b"\x80\x02)K\x01K\x02s.", "no dictionary"),
        (b"\x80\x02}K\x01K\x02s.", "no text"),
        (b"\x80\x02}" + (c.text("a") + T + b"s") * 2 + b".", "one twice"),
        (b"\x80\x02}" + c.text("epoch") + b"K\x01s.", "'epoch' is no tensor"),
        (c.program({"a": c.program({"b": T})[2:-1]}), "'a' is no tensor"),
        (c.program({"a": T.replace(b"\x89", b"N")}), "hooks"),
        (c.program({"a": T.replace(c.ORDERED, b"}" + c.text("a") + b"Ns")}), "hooks"),
        (c.program({"a": T.replace(b"Q", b"")}), "something else than a storage"),
        (c.program({"a": T.replace(c.integers((3, 32)), b"N")}), "something else than a storage"),
        (c.program({"a": T.replace(c.text("0"), c.integer(0))}), "without a name"),
        (c.program({"a": T.replace(b"ctorch\nFloatStorage\n", c.text("x"))}), "no known kind"),
        (c.program({"a": T.replace(c.text("storage"), c.text("module"))}), "no storage"),
        (c.program({"a": c.tensor("9", 96, (3, 32))}), "has no numbers"),
        (c.program({"a": c.tensor("0", 95, (3, 31))}), "not as many"),
        (c.program({"a": c.tensor("0", 96, (3, 32), "F16")}), "not as many"),
        (c.program({"a": c.tensor("0", 96, (3, 33))}), "beyond"),
        (c.program({"a": c.tensor("0", 96, (3, 32), offset=1)}), "beyond"),
        (c.program({"a": c.tensor("0", 96, (3, 31), offset=-1)}), "beyond"),
        (c.program({"a": c.tensor("0", 96, (32, 3), stride=(1, 32))}), "not contiguous"),
        (c.program({"a": c.tensor("0", 96, (3, 32), stride=(32,))}), "no shape"),
        (c.program({"a": c.tensor("0", 96, (-3, -32))}), "no shape"),
        (c.program({"a": c.tensor("0", 96, (0, 2**31 - 1, 2**31 - 1), stride=(1, 1, 1))}), "no shape"),
        (c.program({"a": c.tensor("0", 96, (1,) * 9)}), "no shape"),
        (b"\x80\x02" + b"N" * (1 << 20), "more than 1,048,576"),
    ],
)  # fmt: skip
def test_programs_that_are_refused(tmp_path: Path, table: bytes, says: str) -> None:
    path = _write(tmp_path, "a.pth", c.pth({"matrix": TENSORS["matrix"]}, table=table))
    with pytest.raises(ModelFileError, match=says) as raised:
        open_checkpoint(path)
    assert len(str(raised.value).splitlines()) == 1


def test_attributes_and_what_is_remembered_are_read(tmp_path: Path) -> None:
    """A state dict of a module has its versions as attributes; names come again by number, numbers in short forms."""
    attributes = b"}" + c.text("_metadata") + c.ORDERED + b"sb"
    table = b"\x80\x02" + c.ORDERED + b"q\x00r\x01\0\0\0" + c.text("a") + T + b"s" + attributes + b"j\x01\0\0\0h\x00"
    table += c.text("b") + T.replace(c.integers((32, 1)), b"K\x20\x8a\x01\x01\x86").replace(
        c.integers((3, 32)), b"M\x03\0K\x20\x86"
    )
    # Two dictionaries too many are put into tuples, of which hooks alone may be none.
    table += b"s\x85\x86"
    with pytest.raises(ModelFileError, match="no dictionary"):
        open_checkpoint(_write(tmp_path, "a.pth", c.pth({"m": TENSORS["matrix"]}, table=table + b".")))
    once = b"\x80\x02" + c.ORDERED + b"q\x00" + c.text("a") + T + b"s" + attributes + b"."
    assert open_checkpoint(_write(tmp_path, "b.pth", c.pth({"m": TENSORS["matrix"]}, table=once))).names() == ["a"]


RECORDS = {"m/data.pkl": c.program({"matrix": T}), "m/data/0": c.encoded(TENSORS["matrix"], "F32")}


@pytest.mark.parametrize(
    ("blob", "says"),
    [
        (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19." * 9, "torch 1.6"),
        (c.zipped(RECORDS, zipfile.ZIP_DEFLATED), "not stored as it is"),
        (c.zipped(RECORDS | {"n/more": b""}), "more than one folder"),
        (c.zipped({"m/data/0": b""}), "no data.pkl"),
        (c.zipped(RECORDS | {"m/byteorder": b"big"}), "little endian"),
        (c.zipped(RECORDS | {"m/byteorder": b"middle"}), "little endian"),
        (c.zipped(RECORDS) + b"more", "no zip"),
        (c.zipped(RECORDS)[:-10] + b"\xff\xff\xff\xff" + c.zipped(RECORDS)[-6:], "a directory of"),
    ],
)
def test_zips_that_are_refused(tmp_path: Path, blob: bytes, says: str) -> None:
    with pytest.raises(ModelFileError, match=says):
        open_checkpoint(_write(tmp_path, "a.pth", blob))


def test_a_record_that_is_altered(tmp_path: Path) -> None:
    blob = c.zipped(RECORDS).replace(RECORDS["m/data/0"], bytes(384))
    with pytest.raises(ModelFileError, match="CRC"):
        open_checkpoint(_write(tmp_path, "a.pth", blob)).read("matrix")
    with pytest.raises(ModelFileError, match="CRC"):
        list(open_checkpoint(_write(tmp_path, "a.pth", blob)).read_rows("matrix", 1))


def test_directories_and_programs_have_a_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _write(tmp_path, "a.pth", c.zipped(RECORDS))
    monkeypatch.setattr(pth_module, "MAX_PROGRAM", 10)
    with pytest.raises(ModelFileError, match="too many bytes"):
        open_checkpoint(path)
    monkeypatch.setattr(pth_module, "MAX_DIRECTORY", 10)
    with pytest.raises(ModelFileError, match="a directory of"):
        open_checkpoint(path)


INFO = c.gguf_info("a", (2, 32), 0, 0)
SAID = c.gguf_entry("a", 4, bytes(4))


@pytest.mark.parametrize(
    ("blob", "says"),
    [
        (b"GGML" + bytes(60), "does not begin"),
        (c.gguf_head([], [], 1), "version 1 "),
        (c.gguf_head([], [], 3 << 24), "other byte order"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0), "says that it has"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 60), "says that it has"),
        (c.gguf_head([SAID, SAID], []), "'a' twice"),
        (c.gguf_head([c.gguf_entry("a", 13, b"")], []), "no GGUF"),
        (c.gguf_head([c.gguf_entry("a", 9, struct.pack("<IQ", 9, 1))], []), "no GGUF"),
        (c.gguf_head([c.gguf_entry("a", 9, struct.pack("<IQ", 0, 1 << 63))], []), "beyond the end"),
        (c.gguf_head([c.gguf_entry("a", 9, struct.pack("<IQ", 8, 1 << 63))], []), "a list of"),
        (c.gguf_head([c.gguf_entry("a", 8, struct.pack("<Q", 1 << 63))], []), "a text of"),
        (c.gguf_head([c.gguf_entry("a", 8, struct.pack("<Q", 1 << 19))], []), "too early"),
        (c.gguf_head([c.gguf_entry("general.alignment", 4, bytes(4))], [INFO]) + bytes(256), "alignment"),
        (c.gguf_head([c.gguf_entry("general.alignment", 7, b"\1")], [INFO]) + bytes(256), "alignment"),
        (c.gguf_head([], [INFO, INFO]) + bytes(256), "there twice"),
        (c.gguf_head([], [c.gguf_text("a") + struct.pack("<I", 1 << 30)]), "dimensions"),
        (c.gguf_head([], [c.gguf_info("a", (2, 32), 2, 0)]) + bytes(256), "type 2; F32, F16, Q8_0, BF16 are"),
        (c.gguf_head([], [c.gguf_info("a", (32, 2), 8, 0)]) + bytes(256), "no shape of Q8_0"),
        (c.gguf_head([], [c.gguf_info("a", (MAX_NUMBERS, 0), 0, 0)]) + bytes(256), "no shape"),
        (c.gguf_head([], [INFO]) + bytes(255), "beyond the end"),
        (c.gguf_head([], [c.gguf_info("a", (2, 32), 0, 1 << 63)]) + bytes(256), "beyond the end"),
    ],
)  # fmt: skip
def test_ggufs_that_are_refused(tmp_path: Path, blob: bytes, says: str) -> None:
    with pytest.raises(ModelFileError, match=says) as raised:
        open_checkpoint(_write(tmp_path, "a.gguf", blob))
    assert len(str(raised.value).splitlines()) == 1


def test_numbers_of_q8_0(tmp_path: Path) -> None:
    scales, numbers = np.array([0.5, -2], "<f2"), np.arange(-32, 32, dtype=np.int8).reshape(2, 32)
    blob = b"".join(s.tobytes() + n.tobytes() for s, n in zip(scales, numbers, strict=True))
    blob = c.gguf_head([], [c.gguf_info("a", (2, 1, 32), 8, 0)]) + blob
    found = open_checkpoint(_write(tmp_path, "a.gguf", blob)).read("a")
    np.testing.assert_array_equal(found[:, 0], numbers * scales[:, None].astype(np.float32))


def test_numbers_of_another_kind_in_safetensors(tmp_path: Path) -> None:
    blob = c.safetensors({"a": TENSORS["vector"]}).replace(b'"F32"', b'"I32"')
    with pytest.raises(ModelFileError, match="'a' has numbers of kind I32"):
        open_checkpoint(_write(tmp_path, "a.safetensors", blob))
