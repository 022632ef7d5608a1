"""A mapped file: what was checked is what is used, nobody writes to it, and what is written is a copy of one's own."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from edgelm.errors import ModelFileError
from edgelm.model import tensorfile
from edgelm.model.mapped import MappedFile

RNG = np.random.default_rng(0)
TENSORS = {
    "odd": np.arange(13, dtype=np.int8),
    "a": RNG.standard_normal((5, 3)).astype(np.float32),
    "q": RNG.integers(0, 256, (40, 64)).astype(np.uint8),
    "half": np.float16([0.5, 2, 3]),
    "none": np.zeros((3, 0), np.float32),
    "one": np.array(7, np.float64),
}


def _write(path: Path, blob: bytes) -> tuple[Path, str]:
    path.write_bytes(blob)
    return path, hashlib.sha256(blob).hexdigest()


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, str]:
    return _write(tmp_path / "weights.safetensors", tensorfile.to_bytes(TENSORS, {"note": "ü"}))


def test_tensors_are_views_of_the_file(written: tuple[Path, str]) -> None:
    mapped = MappedFile(*written)
    assert mapped.keys() == TENSORS.keys() and len(mapped) == len(TENSORS) and mapped.metadata == {"note": "ü"}
    for name, array in TENSORS.items():
        assert (mapped[name].dtype, mapped[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(mapped[name], array)
        assert mapped[name].ctypes.data % tensorfile.ALIGNMENT == 0
        assert np.shares_memory(mapped[name], mapped[name]) or not array.size
        with pytest.raises(ValueError, match="read-only"):
            mapped[name][...] = 0


def test_the_library_reads_it_with_its_padding(written: tuple[Path, str]) -> None:
    found = load(written[0].read_bytes())
    assert {name for name in found if not name.startswith(tensorfile.PADDING)} == TENSORS.keys()
    for name, array in TENSORS.items():
        np.testing.assert_array_equal(found[name], array)


def test_tensors_of_even_sizes_need_no_padding() -> None:
    blob = tensorfile.to_bytes({"a": np.zeros((2, 16), np.float32), "b": np.zeros(64, np.uint8), "end": np.zeros(3)})
    assert load(blob).keys() == {"a", "b", "end"}


def test_what_is_not_aligned_is_copied(tmp_path: Path) -> None:
    tensors = {"a": np.arange(5, dtype=np.uint8), "b": np.arange(6, dtype=np.uint8)}
    mapped = MappedFile(*_write(tmp_path / "a", save(tensors)))
    for name, array in tensors.items():
        np.testing.assert_array_equal(mapped[name], array)
        assert mapped[name].ctypes.data % 8 == 0 and not mapped[name].flags.writeable


def test_another_file_is_refused(written: tuple[Path, str], tmp_path: Path) -> None:
    path, digest = written
    blob = path.read_bytes()
    for bad in (b"", blob[:-1], blob + b"\0", blob[:-1] + b"\1"):
        path.write_bytes(bad)
        with pytest.raises(ModelFileError, match="altered or truncated"):
            MappedFile(path, digest)
    with pytest.raises(ModelFileError, match="not a safetensors file"):
        MappedFile(*_write(path, b"no tensors at all"))
    with pytest.raises(ModelFileError, match="no such file"):
        MappedFile(tmp_path / "none", digest)


def test_a_file_system_that_cannot_map(written: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("Operation not supported")

    monkeypatch.setattr(mmap, "mmap", refuse)
    with pytest.raises(ModelFileError, match="cannot be mapped"):
        MappedFile(*written)


def test_a_file_that_is_replaced_is_kept(written: tuple[Path, str], tmp_path: Path) -> None:
    mapped, other = MappedFile(*written), tmp_path / "other"
    views = dict(mapped)
    other.write_bytes(b"something else")
    os.replace(other, written[0])
    written[0].unlink()
    mapped.release()
    for found in (views, mapped, mapped.private()):
        assert all(np.array_equal(found[name], array) for name, array in TENSORS.items())


def test_the_pages_of_a_tensor_are_read_again(tmp_path: Path) -> None:
    tensors = {name: np.random.default_rng(i).random((300, 50)) for i, name in enumerate("abc")} | {"d": np.ones(3)}
    mapped = MappedFile(*_write(tmp_path / "large", tensorfile.to_bytes(tensors)))
    views = dict(mapped)
    for name, array in tensors.items():
        mapped.release_of(name)
        np.testing.assert_array_equal(views[name], array)


def test_what_is_written_is_ones_own(written: tuple[Path, str]) -> None:
    mapped = MappedFile(*written)
    first, second = mapped.private(), mapped.private()
    first["q"][:] = 0
    assert not first["q"].any()
    for found in (mapped, second, MappedFile(*written)):
        np.testing.assert_array_equal(found["q"], TENSORS["q"])
    del mapped
    np.testing.assert_array_equal(second["a"], TENSORS["a"])


def test_bfloat16_is_read_as_float32(tmp_path: Path) -> None:
    values = np.array([[1.0, -2.5, 0.0], [3.140625, 1e30, -0.0]], np.float32)
    data = (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    exact = ((values.view(np.uint32) >> 16) << 16).view(np.float32)
    header = json.dumps({"a": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}}).encode()
    path, digest = _write(tmp_path / "a", struct.pack("<Q", len(header)) + header + data)
    for found in (tensorfile.read(path)[0], tensorfile.TensorFile(path), MappedFile(path, digest)):
        assert found["a"].dtype == np.float32
        np.testing.assert_array_equal(found["a"].view(np.uint32), exact.view(np.uint32))
    path.write_bytes(path.read_bytes().replace(b"[0, 12]", b"[0, 24]"))
    with pytest.raises(ModelFileError, match="not where it must be"):
        tensorfile.read(path)
