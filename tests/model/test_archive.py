"""An archive gives the files of a model, or an error, and never writes anywhere else."""

from __future__ import annotations

import os
import shutil
import tarfile
import tracemalloc
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgelm.errors import ModelFileError
from edgelm.model import archive, hub
from edgelm.model.archive import LARGEST, NAMES, check_sizes
from tests.model.archives import HOSTILE, KINDS, members_of, pack
from tests.model_folder import contents


def unpack(path: Path, folder: Path) -> None:
    with path.open("rb") as file:
        archive.unpack(file, folder)


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
    tracemalloc.start()
    try:
        with pytest.raises(ModelFileError, match=says) as raised:
            unpack(tmp_path / name, folder)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    assert len(str(raised.value)) < 500
    assert {path for path in contents(tmp_path) if path.parent != folder} == {tmp_path / name}


def test_every_file_has_a_largest_size() -> None:
    assert set(LARGEST) == {hub.MANIFEST, *hub.FILES, *hub.GRAPHS, hub.CARD}
    assert max(LARGEST, key=LARGEST.__getitem__) == hub.WEIGHTS


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", LARGEST)
def test_the_largest_size_of_a_file(tmp_path: Path, kind: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LARGEST, name, 100_000)
    for size, folder in ((100_000, tmp_path / "fits"), (100_001, tmp_path / "too large")):
        folder.mkdir()
        path = pack(tmp_path / f"{size}.{kind}", {name: bytes(size)})
        if size == 100_000:
            unpack(path, folder)
        else:
            with pytest.raises(ModelFileError, match=rf"{name}: 100,001 bytes, larger than .* \(100,000\)"):
                unpack(path, folder)
            assert list(folder.iterdir()) == []


@pytest.mark.parametrize("kind", KINDS)
def test_graphs_of_older_models_are_passed_over(tiny_model: Path, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    graphs = dict.fromkeys(hub.GRAPHS, b"a graph" * 100)
    unpack(pack(tmp_path / f"model.{kind}", graphs | members_of(tiny_model)), folder)
    assert members_of(folder) == members_of(tiny_model)
    with pytest.raises(ModelFileError, match="twice"):
        path = pack(tmp_path / f"twice.{kind}", {"step.onnx": b"", "./step.onnx": b""})
        unpack(path, folder)


def test_what_packers_say_about_files_is_passed_over(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    with tarfile.open(tmp_path / "model.tar", "w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "mine"}) as tar:
        for path in tiny_model.iterdir():
            member = tar.gettarinfo(path, f"mödel/{path.name}")
            member.mtime = 0.5
            with path.open("rb") as file:
                tar.addfile(member, file)
    unpack(tmp_path / "model.tar", folder)
    assert members_of(folder) == members_of(tiny_model)


def test_a_zip_with_a_comment(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    path = pack(tmp_path / "model.zip", members_of(tiny_model))
    with zipfile.ZipFile(path, "a") as file:
        file.comment = b"of the commit" * 5000
    unpack(path, folder)
    assert members_of(folder) == members_of(tiny_model)


def test_sizes_that_no_model_has(tiny_model: Path, tmp_path: Path) -> None:
    check_sizes(tiny_model)
    for name in NAMES:
        folder = Path(shutil.copytree(tiny_model, tmp_path / name))
        with (folder / name).open("ab") as file:
            file.truncate(LARGEST[name] + 1)
        with pytest.raises(ModelFileError, match=f"{name}: .* larger than"):
            check_sizes(folder)
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    with (folder / hub.WEIGHTS).open("r+b") as file:
        file.truncate(8 << 20)
    with pytest.raises(ModelFileError, match=f"{hub.WEIGHTS}: 8,388,608 bytes, but at most .* by its {hub.MANIFEST}"):
        check_sizes(folder)
    (folder / hub.WEIGHTS).unlink()
    os.mkfifo(folder / hub.WEIGHTS)
    with pytest.raises(ModelFileError, match="not a plain file"):
        check_sizes(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_cut(tiny_model: Path, tmp_path: Path, kind: str) -> None:
    whole = pack(tmp_path / f"model.{kind}", members_of(tiny_model)).read_bytes()
    for number, size in enumerate((1, 3, len(whole) // 2, len(whole) * 3 // 4)):
        folder = tmp_path / str(number)
        folder.mkdir()
        (tmp_path / "cut").write_bytes(whole[:size])
        with pytest.raises(ModelFileError, match=r"no tar, tar.gz or zip archive, or damaged"):
            unpack(tmp_path / "cut", folder)


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
        st.tuples(st.sampled_from(["", "./", "a/", "../", "/", "a/b/"]), st.sampled_from([*LARGEST, "x", ".", ".."])),
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
        assert members_of(folder) == {name: blob for (_, name), blob in files.items() if name in NAMES}
    written = set(contents(place)) - {path}
    assert all(found.parent == folder and found.name in NAMES for found in written)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(KINDS), st.lists(st.tuples(st.integers(0), st.integers(0, 255)), min_size=1, max_size=4))
def test_whatever_bytes_are_others(
    tmp_path_factory: pytest.TempPathFactory, kind: str, changes: list[tuple[int, int]]
) -> None:
    place = tmp_path_factory.mktemp("room")
    (place / "out").mkdir()
    path = pack(place / f"model.{kind}", {"config.json": b"{}", "README.md": b"words " * 20})
    blob = bytearray(path.read_bytes())
    for at, value in changes:
        blob[at % len(blob)] = value
    path.write_bytes(blob)
    with suppress(ModelFileError):
        unpack(path, place / "out")
    assert {found.name for found in contents(place)} <= {path.name, *NAMES}
