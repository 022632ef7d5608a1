"""Packs from elsewhere: what edgelm would not have written is refused, and nothing is kept of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgelm.errors import ModelFileError, ProfileError
from edgelm.log.packs import CLIP, clipped, keep, kept_in, load_layers, path_of, read_card, read_pack, write_pack
from edgelm.model import hub, tensorfile
from edgelm.model.hub import Model
from edgelm.model.layers import BLOCKS
from edgelm.model.weights import Weights, block_names
from tests.learn.packed import make_pack, random_changes
from tests.model_folder import contents, write_tiny_model

NAME = "layers.0.ffn.w2"


@pytest.fixture
def file(tmp_path: Path, model: Model) -> Path:
    make_pack(tmp_path / "sea.safetensors", model)
    return tmp_path / "sea.safetensors"


def test_a_pack_is_read_as_it_was_written(tmp_path: Path, model: Model) -> None:
    path = tmp_path / "sea.safetensors"
    written = make_pack(path, model)
    read = read_pack(path, model, written.sha256)
    assert read == written == read_card(path)
    assert read.n_bytes == path.stat().st_size
    for name, array in random_changes(model, 1).items():
        np.testing.assert_array_equal(read.changes[name], array)
    assert NAME in read.changes
    # The same again is the same file.
    assert make_pack(tmp_path / "again.safetensors", model).sha256 == written.sha256
    assert make_pack(tmp_path / "other.safetensors", model, 2).sha256 != written.sha256


def _set(**values: Any) -> Callable[[Weights, dict[str, str]], object]:
    return lambda tensors, metadata: metadata.update(values)


def _tensor(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Weights, dict[str, str]], object]:
    return lambda tensors, metadata: tensors.update({name: change(tensors[name])})


HOSTILE: dict[str, tuple[Callable[[Weights, dict[str, str]], object], str]] = {
    "kind": (_set(kind="edgelm learned change"), "not a pack"),
    "format": (_set(format="2"), "a pack of format '2', this edgelm reads 1"),
    "more metadata": (_set(runs="rm"), "its tensors is missing"),
    "name": (_set(name="../up"), "its name is missing"),
    "long name": (_set(name="a" * 65), "its name is missing"),
    "licence": (_set(licence=""), "its licence is missing"),
    "escape": (_set(licence="\x1b[2J"), "its licence is missing"),
    "date": (_set(made="yesterday"), "its made is missing"),
    "card": (_set(card="a" * 4001), "its card is missing"),
    "no sources": (_set(**{"from": "[]"}), "its from is missing"),
    "strange sources": (_set(**{"from": json.dumps([["a", "b"]])}), "its from is missing"),
    "nested sources": (_set(**{"from": "[" * 9000}), "its from is missing"),
    "many sources": (_set(**{"from": json.dumps([["a", "0" * 64]] * 257)}), "its from is missing"),
    "text of numbers": (lambda t, m: t.update(text=np.zeros(4, np.float16)), "damaged at 'text'"),
    "text of bytes": (lambda t, m: t.update(text=np.full(4, 255, np.uint8)), "damaged at 'text'"),
    "long text": (lambda t, m: t.update(text=np.full((4 << 20) + 1, 32, np.uint8)), "damaged at 'text'"),
    "no base": (lambda tensors, metadata: metadata.pop("base"), "its from is missing"),
    "unknown tensor": (lambda t, m: t.update(embed=np.zeros((300, 32), np.float16)), "damaged at 'embed'"),
    "frozen tensor": (lambda t, m: t.update({"layers.0.ffn.w1": np.zeros(1, np.float16)}), "damaged at"),
    "shape": (_tensor("final_norm", lambda a: a[:-1]), "damaged at 'final_norm'"),
    "float32": (_tensor("final_norm", lambda a: a.astype(np.float32)), "damaged at 'final_norm'"),
    "nan": (_tensor(NAME, lambda a: a * np.float16("nan")), f"damaged at '{NAME}"),
    "infinite": (_tensor("final_norm", lambda a: a + np.float16("inf")), "damaged at 'final_norm'"),
    "huge": (_tensor(NAME, lambda a: np.full_like(a, 60000)), f"damaged at '{NAME}"),
    "large gains": (_tensor("final_norm", lambda a: np.full_like(a, 3)), "damaged at 'final_norm'"),
    "wild block": (_tensor(NAME + BLOCKS, lambda a: a + np.int32(1000)), "damaged at"),
    "block twice": (_tensor(NAME + BLOCKS, lambda a: np.zeros_like(a)), "damaged at"),
    "no list of blocks": (lambda t, m: t.pop(NAME + BLOCKS), "damaged at"),
    "list alone": (lambda t, m: t.pop(NAME), "damaged at"),
    "list of gains": (lambda t, m: t.update({"final_norm.blocks": np.arange(32, dtype=np.int32)}), "damaged at"),
    "nothing": (lambda t, m: t.clear(), "it changes nothing"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_what_edgelm_would_not_have_written_is_refused(tmp_path: Path, file: Path, model: Model, case: str) -> None:
    change, says = HOSTILE[case]
    tensors, metadata = tensorfile.read(file)
    change(tensors, metadata)
    tensorfile.write(file, tensors, metadata)
    for read in (read_pack, lambda path, model: keep(tmp_path / "packs", path, model)):
        with pytest.raises(ModelFileError, match=says) as raised:
            read(file, model)
        assert str(file) in str(raised.value)
        assert "\n" not in str(raised.value)
    assert not (tmp_path / "packs").exists()


def test_damaged_packs(tmp_path: Path, file: Path, model: Model) -> None:
    whole = file.read_bytes()
    digest = read_pack(file, model).sha256
    for blob in (b"", whole[:-1], whole + b"\0", whole[:100], b"\xff" * 200, bytes(len(whole))):
        file.write_bytes(blob)
        with pytest.raises(ModelFileError, match="damaged or not a safetensors file"):
            read_pack(file, model)
        with pytest.raises(ModelFileError, match="damaged or not a safetensors file"):
            read_card(file)
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ModelFileError, match="altered or truncated"):
        read_pack(file, model, digest)
    with file.open("ab") as grown:
        grown.truncate(1 << 30)
    with pytest.raises(ModelFileError, match="larger than any pack of 'tiny' can be"):
        read_pack(file, model)
    with pytest.raises(ModelFileError, match="no such file"):
        read_pack(tmp_path / "none", model)


def test_a_pack_of_another_model(tmp_path: Path, file: Path) -> None:
    other = hub.load(str(write_tiny_model(tmp_path / "other", seed=5, name="other")))
    with pytest.raises(ModelFileError, match="was made on another model \\('tiny'\\), not on 'other'"):
        read_pack(file, other)
    assert read_card(file).base_name == "tiny"


def test_what_cannot_be_read_again_is_not_written(tmp_path: Path, model: Model) -> None:
    pack = make_pack(tmp_path / "a.safetensors", model)
    before = contents(tmp_path)
    with pytest.raises(ModelFileError, match="its name is missing"):
        write_pack(tmp_path / "a.safetensors", type(pack)(**{**vars(pack), "name": "two words"}))
    with pytest.raises(ModelFileError, match="cannot be written"):
        write_pack(tmp_path / "none" / "a.safetensors", pack)
    assert contents(tmp_path) == before


def test_a_change_is_clipped_block_by_block(model: Model) -> None:
    changes = random_changes(model, 1)
    name = block_names(model.config)[0]
    changes[name][0] *= 3000
    found = clipped(changes, model)
    base = np.asarray(model.bare()[name])[changes[name + BLOCKS][0]]
    norm, limit = (float(np.linalg.norm(array.astype(np.float64))) for array in (found[name][0], base))
    assert norm == pytest.approx(CLIP * limit + 0.01 * np.sqrt(base.size), rel=1e-3)
    np.testing.assert_array_equal(found[name][1:], changes[name][1:])
    np.testing.assert_array_equal(found["final_norm"], changes["final_norm"])
    again = clipped(found, model)
    np.testing.assert_allclose(again[name].astype(float), found[name].astype(float), rtol=2e-3)


def test_the_folder_of_packs(tmp_path: Path, file: Path, model: Model) -> None:
    folder = tmp_path / "packs"
    assert kept_in(folder) == []
    pack = keep(folder, file, model)
    assert kept_in(folder) == [pack]
    file.unlink()
    (layer,) = load_layers(folder, [pack.layer], model)
    assert layer == pack.layer
    np.testing.assert_array_equal(layer.changes["final_norm"], pack.changes["final_norm"])
    # What is damaged or called otherwise is not listed; put back, it is whole again.
    kept = path_of(folder, pack.sha256)
    kept.rename(folder / "other.safetensors")
    (folder / "bad.safetensors").write_bytes(b"none")
    assert kept_in(folder) == []
    with pytest.raises(ProfileError, match="the layer 'sea' lies beneath this profile and cannot be read") as raised:
        load_layers(folder, [pack.layer], model)
    assert "\n" not in str(raised.value)
    kept.write_bytes(b"damaged")
    with pytest.raises(ProfileError, match="the layer 'sea' lies beneath this profile"):
        load_layers(folder, [pack.layer], model)
    assert keep(folder, folder / "other.safetensors", model) == pack
    assert load_layers(folder, [pack.layer], model) == [pack.layer]
