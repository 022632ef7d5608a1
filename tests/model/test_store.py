"""A model comes here whole and checked, or not at all."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgelm.errors import ModelFileError
from edgelm.model import hub, store
from edgelm.model.store import Source, folders, pull
from tests.model.archives import members_of, pack
from tests.model_folder import contents, edit_manifest, make_format_1, write_tiny_model

Answer = tuple[Path, bool]


def _no_fetch(url: str) -> Iterator[bytes]:
    raise AssertionError(url)


def _digests(folder: Path) -> list[str]:
    return list(hub.damaged(folder, hub.read_manifest(folder)))


def _pull(place: Path | str, pulled: Path, name: str | None = None, sha256: str | None = None) -> Answer:
    return pull(Source(str(place), sha256, _no_fetch), pulled, _digests, name)


@pytest.fixture
def pulled(tmp_path: Path) -> Path:
    """Where pulled models go; not made yet."""
    return tmp_path / "home" / "models"


def test_a_folder_comes_here(tiny_model: Path, pulled: Path) -> None:
    assert _pull(tiny_model, pulled) == (pulled / "tiny", True)
    assert members_of(pulled / "tiny") == members_of(tiny_model)
    assert [path.name for path in pulled.iterdir()] == ["tiny"]
    assert _pull(tiny_model, pulled) == (pulled / "tiny", False)
    assert _pull(tiny_model, pulled, "mine") == (pulled / "mine", True)
    assert folders(pulled) == {"small": hub.BUNDLED / "small", "mine": pulled / "mine", "tiny": pulled / "tiny"}


def test_it_is_found_by_its_name(
    tiny_model: Path, pulled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _pull(tiny_model, pulled, "mine")
    assert hub.find("mine", pulled) == pulled / "mine"
    assert hub.load("mine", pulled).sha256 == hub.load(str(tiny_model)).sha256
    with pytest.raises(ModelFileError, match="no model 'mine'"):
        hub.find("mine")
    # A bundled name is the bundled model, whatever else is called so.
    shutil.copytree(tiny_model, pulled / "small")
    assert hub.find("small", pulled) == folders(pulled)["small"] == hub.BUNDLED / "small"
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_model, tmp_path / "mine")
    assert hub.find("mine", pulled) == pulled / "mine"
    assert hub.find("./mine", pulled) == Path("mine")


def test_what_an_address_gives(tiny_model: Path, pulled: Path, tmp_path: Path) -> None:
    blob = pack(tmp_path / "model.tar.gz", members_of(tiny_model)).read_bytes()
    asked = []

    def fetch(url: str) -> Iterator[bytes]:
        asked.append(url)
        yield blob[:100]
        yield blob[100:]

    right = hashlib.sha256(blob).hexdigest()
    source = Source("https://models.example/a", "0" * 64, fetch)
    with pytest.raises(ModelFileError, match=f"https://models.example/a: the SHA-256 of the archive is {right}"):
        pull(source, pulled, _digests)
    assert not pulled.parent.exists()
    assert pull(Source("https://models.example/a", right.upper(), fetch), pulled, _digests)[1]
    assert asked == ["https://models.example/a"] * 2


def test_the_digest_of_a_folder_is_that_of_its_manifest(tiny_model: Path, pulled: Path) -> None:
    digest = hashlib.sha256((tiny_model / "config.json").read_bytes()).hexdigest()
    with pytest.raises(ModelFileError, match=r"the SHA-256 of its config\.json"):
        _pull(tiny_model, pulled, sha256="12")
    assert _pull(tiny_model, pulled, sha256=digest)[1]


def test_a_model_of_an_older_format_is_converted_and_stays_itself(
    tiny_model: Path, pulled: Path, tmp_path: Path
) -> None:
    old = make_format_1(Path(shutil.copytree(tiny_model, tmp_path / "old")))
    before, identity = contents(old), hub.read_manifest(old).sha256
    digest = hashlib.sha256((old / "config.json").read_bytes()).hexdigest()
    folder, is_new = _pull(old, pulled, sha256=digest)
    assert is_new and contents(old) == before
    manifest = hub.read_manifest(folder)
    assert (manifest.file_format, manifest.sha256) == (hub.FORMAT, identity)
    assert hub.load("tiny", pulled).sha256 == identity
    assert _pull(old, pulled) == (folder, False)
    # One that an older edgelm has pulled is the same model too.
    shutil.copytree(old, pulled / "older")
    assert _pull(old, pulled, "older") == (pulled / "older", False)


@pytest.mark.parametrize("name", ["", ".", "..", "../up", "/etc", "a/b", ".hidden", "a" * 65, "a\n", "ä"])
def test_a_name_that_is_none(tiny_model: Path, pulled: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelFileError, match="model name"):
        _pull(tiny_model, pulled, name)
    folder = shutil.copytree(tiny_model, tmp_path / "named")
    edit_manifest(folder, name=name)
    with pytest.raises(ModelFileError, match="model name"):
        _pull(folder, pulled)
    assert not pulled.parent.exists()


def test_a_name_that_is_taken(tiny_model: Path, pulled: Path, tmp_path: Path) -> None:
    other = write_tiny_model(tmp_path / "other", seed=1, name="tiny")
    _pull(tiny_model, pulled)
    (pulled / "file").write_bytes(b"mine")
    (pulled / "link").symlink_to(tmp_path / "nowhere")
    before = contents(pulled)
    for place, name, says in (
        (other, None, "another model is called 'tiny' here"),
        (other, "small", "another model is called 'small' here"),
        (other, "file", "is here but damaged"),
        (other, "link", "is here but damaged"),
    ):
        with pytest.raises(ModelFileError, match=says):
            _pull(place, pulled, name)
    # The same model with other scales of its gradients is not the same for whoever runs it.
    changed = shutil.copytree(tiny_model, tmp_path / "changed")
    manifest = hub.read_manifest(changed)
    edit_manifest(changed, sha256=manifest.digests | {"learning.safetensors": hashlib.sha256(b"").hexdigest()})
    (changed / "learning.safetensors").write_bytes(b"")
    with pytest.raises(ModelFileError, match="another model"):
        _pull(changed, pulled)
    assert contents(pulled) == before
    assert sorted(path.name for path in pulled.iterdir()) == ["file", "link", "tiny"]


def test_one_that_was_damaged_here(tiny_model: Path, pulled: Path) -> None:
    _pull(tiny_model, pulled)
    (pulled / "tiny" / "tokenizer.json").write_bytes(b"")
    with pytest.raises(ModelFileError, match=r"is here but damaged: .*tokenizer.json: altered .*remove"):
        _pull(tiny_model, pulled)


@pytest.mark.parametrize(
    "place", ["nosuch", "", ".", "ftp://models.example/a.tar", "file:///etc/passwd", "~nobody-such/a"]
)
def test_no_source(place: str, pulled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelFileError, match=r"neither a model folder nor a file"):
        _pull(place, pulled)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_other_things(tiny_model: Path, pulled: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "mixed")
    (folder / "notes.txt").write_text("mine", encoding="utf-8")
    _pull(folder, pulled)
    assert members_of(pulled / "tiny") == members_of(tiny_model)
    (folder / "tokenizer.json").unlink()
    os.mkfifo(folder / "tokenizer.json")
    with pytest.raises(ModelFileError, match=r"tokenizer\.json: cannot be read"):
        _pull(folder, pulled, "other")


def test_nothing_is_left_when_it_cannot_be_written(
    tiny_model: Path, pulled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _pull(tiny_model, pulled)
    archive = pack(tmp_path / "model.tar", members_of(tiny_model))
    before = contents(tmp_path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for module, function in ((store, "unpack"), (store, "save"), (store, "_sync"), (os, "replace")):
        with monkeypatch.context() as patch, pytest.raises(ModelFileError, match="No space left"):
            patch.setattr(module, function, full)
            _pull(archive if function == "unpack" else tiny_model, pulled, "other")
        assert contents(tmp_path) == before
        assert [path.name for path in pulled.iterdir()] == ["tiny"]


def test_nothing_is_left_of_what_is_interrupted(tiny_model: Path, pulled: Path) -> None:
    def interrupted(url: str) -> Iterator[bytes]:
        yield b"some"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull(Source("http://models.example/a", None, interrupted), pulled, _digests)
    assert not pulled.parent.exists()


def test_two_that_pull_at_once(tiny_model: Path, pulled: Path) -> None:
    def slow(folder: Path) -> list[str]:
        if not (pulled / "tiny").exists():
            _pull(tiny_model, pulled)
        return _digests(folder)

    assert pull(Source(str(tiny_model), None, _no_fetch), pulled, slow) == (pulled / "tiny", False)


def test_what_a_killed_pull_left_is_removed(tiny_model: Path, pulled: Path, tmp_path: Path) -> None:
    other = shutil.copytree(tiny_model, tmp_path / "other")
    for room in (pulled / ".pull-dead" / "model", pulled / ".pull-alive" / "model"):
        shutil.copytree(tiny_model, room)
    (pulled / ".pull-link").symlink_to(other)
    (pulled / ".pull-file").write_bytes(b"mine")
    handle = os.open(pulled / ".pull-alive", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    before = contents(pulled / ".pull-alive", other)
    _pull(tiny_model, pulled)
    assert sorted(path.name for path in pulled.iterdir()) == [".pull-alive", ".pull-file", ".pull-link", "tiny"]
    assert contents(pulled / ".pull-alive", other) == before
    os.close(handle)
    _pull(tiny_model, pulled)
    assert not (pulled / ".pull-alive").exists()


def test_a_folder_that_another_pull_took_for_dead(
    tiny_model: Path, pulled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []
    make = tempfile.mkdtemp

    def swept(**place: Any) -> str:
        room = Path(make(**place))
        if not made:
            room.rmdir()
        made.append(room)
        return str(room)

    monkeypatch.setattr(tempfile, "mkdtemp", swept)
    assert _pull(tiny_model, pulled)[1]
    assert len(made) == 2
    assert [path.name for path in pulled.iterdir()] == ["tiny"]


def test_what_was_hashed_is_what_is_unpacked(
    tiny_model: Path, pulled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pack(tmp_path / "model.tar", members_of(tiny_model))
    other = pack(tmp_path / "other.tar", members_of(write_tiny_model(tmp_path / "other", seed=1)))
    check = store._check_digest

    def exchanged(*args: Any) -> None:
        check(*args)
        os.replace(other, path)

    monkeypatch.setattr(store, "_check_digest", exchanged)
    _pull(path, pulled, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    assert members_of(pulled / "tiny") == members_of(tiny_model)


@pytest.mark.parametrize("name", [*hub.FILES, hub.MANIFEST, hub.CARD])
def test_what_has_not_the_size_of_a_model_is_not_read(
    tiny_model: Path, pulled: Path, tmp_path: Path, name: str
) -> None:
    def check(folder: Path) -> list[str]:
        raise AssertionError("it was read")

    folder = shutil.copytree(tiny_model, tmp_path / "model")
    with (folder / name).open("ab") as file:
        file.write(bytes(17 << 20))
    for source in (folder, pack(tmp_path / "model.tar.gz", members_of(folder))):
        with pytest.raises(ModelFileError, match=rf"{name}: .*(larger than|at most)"):
            pull(Source(str(source), None, _no_fetch), pulled, check)
    assert not pulled.parent.exists()


def test_an_archive_larger_than_any_model(pulled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MAX_BYTES", 1000)
    (tmp_path / "model.tar").write_bytes(bytes(1001))
    with pytest.raises(ModelFileError, match="1,001 bytes, larger than a model"):
        _pull(tmp_path / "model.tar", pulled, sha256="0" * 64)


def test_a_source_that_cannot_be_read(pulled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    (tmp_path / "model.tar").write_bytes(b"")
    for place, says in ((tmp_path / "model.tar", "Permission denied"), ("a" * 5000, "File name too long")):
        with monkeypatch.context() as patch, pytest.raises(ModelFileError, match=rf"cannot be read \({says}"):
            if says == "Permission denied":
                patch.setattr(Path, "open", closed)
            _pull(place, pulled)
    assert not pulled.parent.exists()


def test_summaries(tiny_model: Path) -> None:
    row = store.summary(tiny_model, tiny_model.parent)
    assert (row["name"], row["where"], row["folder"], row["default"]) == ("tiny", "pulled", str(tiny_model), False)
    assert row["bytes"] == sum(map(len, contents(tiny_model).values()))
    assert row["parameters"] == hub.load(str(tiny_model)).n_parameters
    assert row["precision"] == "int8"
    bundled = store.summary(hub.find(None), tiny_model.parent)
    assert (bundled["where"], bundled["default"]) == ("bundled", True)
    assert store.details(hub.find(None), tiny_model.parent)["state_bytes"] == 331_808
