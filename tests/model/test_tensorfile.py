"""Tensor files: whole or absent, and checked when read."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from edgelm.errors import ModelFileError
from edgelm.model import tensorfile

TENSORS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b.q": np.array([-1, 2], np.int8), "c": np.float16([0.5])}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that is there already."""
    path = tmp_path / "weights.safetensors"
    tensorfile.write(path, TENSORS, {"note": "ü"})
    return path


def _file(header: object, data: bytes = b"") -> bytes:
    blob = json.dumps(header).encode()
    return struct.pack("<Q", len(blob)) + blob + data


def test_tensors_come_back(path: Path) -> None:
    tensors, metadata = tensorfile.read(path)
    assert metadata == {"note": "ü"}
    assert tensors.keys() == TENSORS.keys()
    for name, array in tensors.items():
        assert array.dtype == TENSORS[name].dtype
        np.testing.assert_array_equal(array, TENSORS[name])


def test_tensors_are_read_one_by_one(path: Path) -> None:
    file = tensorfile.TensorFile(path)
    assert file.keys() == TENSORS.keys() and len(file) == len(TENSORS)
    assert all(np.array_equal(file[name], array) for name, array in TENSORS.items())
    assert file["a"] is not file["a"] and file.get("d") is None
    for bad in (path.parent / "nowhere", path.parent):
        with pytest.raises(ModelFileError, match=r"no such file|cannot be read"):
            tensorfile.TensorFile(bad)


def test_what_is_read_is_what_the_digest_is_of(path: Path) -> None:
    tensorfile.write(path, TENSORS | {"none": np.zeros((3, 0)), "one": np.float32(7)}, {"note": "ü"})
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert tensorfile.read(path, digest)[0].keys() == tensorfile.TensorFile(path, digest).keys()
    for read in (tensorfile.read, tensorfile.TensorFile):
        with pytest.raises(ModelFileError, match="altered or truncated"):
            read(path, "0" * 64)


def test_one_opening_serves_the_digest_and_the_tensors(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest, other = hashlib.sha256(path.read_bytes()).hexdigest(), path.with_name("other")
    tensorfile.write(other, {name: array + 1 for name, array in TENSORS.items()})
    opened = tensorfile.open_file

    def exchanged(path: Path) -> object:
        file = opened(path)
        os.replace(other, path)
        return file

    with monkeypatch.context() as patch:
        patch.setattr(tensorfile, "open_file", exchanged)
        file = tensorfile.TensorFile(path, digest)
    assert all(np.array_equal(file[name], array) for name, array in TENSORS.items())
    assert not np.array_equal(tensorfile.read(path)[0]["a"], TENSORS["a"])
    with pytest.raises(ModelFileError, match="altered"):
        tensorfile.read(path, digest)


def test_a_file_cut_short_while_it_is_used(path: Path) -> None:
    first, last = np.arange(50_000, dtype=np.float32), np.arange(50_000, dtype=np.int8)
    tensorfile.write(path, {"first": first, "last": last})
    tensors, file = tensorfile.read(path)[0], tensorfile.TensorFile(path)
    os.truncate(path, path.stat().st_size - 1)
    np.testing.assert_array_equal(file["first"], first)
    with pytest.raises(ModelFileError, match="it became shorter"):
        file["last"]
    os.truncate(path, 0)
    with pytest.raises(ModelFileError, match="it became shorter"):
        file["first"]
    np.testing.assert_array_equal(tensors["first"], first)


def test_tensors_can_be_written_to(path: Path) -> None:
    for tensors in (tensorfile.read(path)[0], tensorfile.TensorFile(path)):
        array = tensors["a"]
        array += 1
        np.testing.assert_array_equal(array, TENSORS["a"] + 1)


def test_a_large_header_is_not_read(path: Path) -> None:
    with path.open("wb") as file:
        file.write(struct.pack("<Q", tensorfile.MAX_HEADER + 1))
        file.truncate(tensorfile.MAX_HEADER + 9)
    for read in (tensorfile.read, tensorfile.TensorFile):
        tracemalloc.start()
        try:
            with pytest.raises(ModelFileError, match="its header has 2,097,153 bytes"):
                read(path)
            assert tracemalloc.get_traced_memory()[1] < 1 << 20
        finally:
            tracemalloc.stop()


def test_a_tensor_may_be_written_in_parts(path: Path) -> None:
    a, b = np.arange(15, dtype=np.float32).reshape(5, 3), np.arange(4, dtype=np.uint8)
    table = {"a": (a.dtype, a.shape), "b": (b.dtype, b.shape)}
    path.unlink()
    tensorfile.write_streamed(path, table, [("a", a[:2]), ("b", b), ("a", a[2:3]), ("a", a[3:])])
    found, _ = tensorfile.read(path)
    np.testing.assert_array_equal(found["a"], a)
    np.testing.assert_array_equal(found["b"], b)
    np.testing.assert_array_equal(tensorfile.TensorFile(path).part("a", 4, 5), a.reshape(-1)[4:9])
    for parts, says in (([("a", a[:2]), ("b", b)], "not all of it"), ([("a", a), ("a", a[:1])], r"\(1, 3\), not")):
        path.unlink()
        with pytest.raises(ValueError, match=says):
            tensorfile.write_streamed(path, table, parts)


def test_nothing_at_all_comes_back(path: Path) -> None:
    tensorfile.write(path, {})
    assert tensorfile.read(path) == ({}, {})


def test_a_view_is_written_as_it_looks(path: Path) -> None:
    tensorfile.write(path, {"a": TENSORS["a"].T})
    np.testing.assert_array_equal(tensorfile.read(path)[0]["a"], TENSORS["a"].T)


@pytest.mark.parametrize("kind", ["float64", "float32", "float16", "int32", "int8", "uint8"])
@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (3,), (2, 1, 5), (700, 800)])
def test_the_library_reads_what_is_written(path: Path, kind: str, shape: tuple[int, ...]) -> None:
    tensors = {"a": np.full(shape, 7, kind), "odd": np.arange(3, dtype=np.int8), "ä": np.linspace(0, 1, 5)}
    tensorfile.write(path, tensors)
    found = load_file(path)
    assert found.keys() == tensors.keys()
    for name, array in tensors.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array)


def test_only_its_owner_can_read_it(path: Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("function", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_failing_write_leaves_the_old_file(
    path: Path, monkeypatch: pytest.MonkeyPatch, function: str, error: BaseException
) -> None:
    def fail(*_: object) -> None:
        raise error

    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, function, fail)
        with pytest.raises(type(error)):
            tensorfile.write(path, {"new": np.zeros(3)})
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        tensorfile.write(tmp_path / "none" / "a.safetensors", TENSORS)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.99])
def test_a_truncated_file(path: Path, share: float) -> None:
    blob = path.read_bytes()
    path.write_bytes(blob[: int(len(blob) * share)])
    with pytest.raises(ModelFileError, match="damaged or not a safetensors file"):
        tensorfile.read(path)


@pytest.mark.parametrize(
    "blob",
    [
        b"no safetensors at all",
        struct.pack("<Q", 1 << 62) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 100_000) + b"[" * 100_000,
        _file({"a": {"dtype": "F32", "shape": [1 << 40, 1 << 40], "data_offsets": [0, 4]}}, b"\0" * 4),
        _file({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, b"\0" * 4),
        _file({"a": {"dtype": "C64", "shape": [2], "data_offsets": [0, 4]}}, b"\0" * 4),
        _file({"__metadata__": {"note": 3}}),
        _file({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"\0" * 5),
        _file({"a": {"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]}}, b"\0" * 4),
        _file({"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}}, b"\0" * 4),
        _file({"a": {"dtype": "F32", "shape": [0, 1 << 62], "data_offsets": [0, 0]}}),
        _file({"a": {"dtype": "F32", "shape": [1] * 9, "data_offsets": [0, 4]}}, b"\0" * 4),
        _file({name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for name in "ab"}, b"\0" * 4),
        _file({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]}}, b"\0" * 4),
        _file({"a" * 10_000: {"dtype": "F32", "shape": [1], "data_offsets": [1, 5]}}, b"\0" * 5),
    ],
)
def test_what_is_no_tensor_file(tmp_path: Path, blob: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(blob)
    with pytest.raises(ModelFileError, match="damaged or not a safetensors file") as raised:
        tensorfile.read(path)
    assert len(str(raised.value)) < 500


def test_metadata_may_be_null(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(_file({"__metadata__": None}))
    assert tensorfile.read(path) == ({}, {})


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="no such file"):
        tensorfile.read(tmp_path / "none")
    with pytest.raises(ModelFileError, match="cannot be read"):
        tensorfile.read(tmp_path)
