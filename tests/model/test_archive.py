"""An archive gives the files of a model, or an error, and never writes anywhere else."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgelm.errors import ModelFileError
from edgelm.model import archive
from edgelm.model.archive import NAMES, unpack
from tests.model.archives import HOSTILE, KINDS, members_of, pack
from tests.model_folder import contents


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("top", ["", "./", "tiny/", "./tiny/"])
def test_what_was_packed(tiny_model: Path, tmp_path: Path, kind: str, top: str) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    unpack(pack(tmp_path / f"model.{kind}", members_of(tiny_model, top)), folder)
    assert members_of(folder) == members_of(tiny_model)


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_refused(tmp_path: Path, name: str) -> None:
    write, says = HOSTILE[name]
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    write(tmp_path / name)
    with pytest.raises(ModelFileError, match=says):
        unpack(tmp_path / name, folder)
    assert {path for path in contents(tmp_path) if path.parent != folder} == {tmp_path / name}


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_cut(tiny_model: Path, tmp_path: Path, kind: str) -> None:
    whole = pack(tmp_path / f"model.{kind}", members_of(tiny_model)).read_bytes()
    for number, size in enumerate((1, 3, len(whole) // 2, len(whole) * 3 // 4)):
        folder = tmp_path / str(number)
        folder.mkdir()
        (tmp_path / "cut").write_bytes(whole[:size])
        with pytest.raises(ModelFileError, match=r"no tar, tar.gz or zip archive, or damaged"):
            unpack(tmp_path / "cut", folder)


@pytest.mark.parametrize("kind", KINDS)
def test_a_small_file_that_unpacks_to_a_large_one(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_BYTES", 1 << 20)
    path = pack(tmp_path / f"bomb.{kind}", {"config.json": bytes(600_000), "README.md": bytes(600_000)})
    with pytest.raises(ModelFileError, match="larger than 1 MiB"):
        unpack(path, tmp_path)
    # A header may be a bomb too.
    (tmp_path / "long.gz").write_bytes(gzip.compress(pack(tmp_path / "long.tar", {"a" * 9_000_000: b""}).read_bytes()))
    with pytest.raises(ModelFileError, match="larger than 1 MiB"):
        unpack(tmp_path / "long.gz", tmp_path)


def test_an_encrypted_one(tmp_path: Path) -> None:
    path = tmp_path / "model.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("README.md", b"words")
    blob = bytearray(path.read_bytes())
    for at in (blob.index(b"PK\3\4") + 6, blob.index(b"PK\1\2") + 8):
        blob[at] |= 1
    path.write_bytes(blob)
    with pytest.raises(ModelFileError, match="encrypted"):
        unpack(path, tmp_path)


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.tuples(st.sampled_from(["", "./", "a/", "../", "/", "a/b/"]), st.sampled_from([*NAMES, "x", ".", ".."])),
        st.binary(max_size=30),
        max_size=4,
    ),
    st.sampled_from(KINDS),
)
def test_whatever_it_holds(
    tmp_path_factory: pytest.TempPathFactory, files: dict[tuple[str, str], bytes], kind: str
) -> None:
    place = tmp_path_factory.mktemp("room")
    folder = place / "in" / "out"
    folder.mkdir(parents=True)
    path = pack(place / f"model.{kind}", {top + name: blob for (top, name), blob in files.items()})
    try:
        unpack(path, folder)
    except ModelFileError:
        pass
    else:
        assert members_of(folder) == {name: blob for (_, name), blob in files.items()}
    written = set(contents(place)) - {path}
    assert all(found.parent == folder and found.name in NAMES for found in written)
