"""A converted model is the same model: its numbers, its identity, and the profiles that were learned on it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from edgelm.errors import ModelFileError
from edgelm.matrices.quantize import PRECISIONS
from edgelm.model import hub, tensorfile
from edgelm.model.conversion import convert
from edgelm.model.mapped import MappedFile
from edgelm.model.origin import HEAD
from edgelm.model.packing import pack
from edgelm.model.weights import random_weights, shapes
from tests.learn.acts import DAY, close, open_adaptation, perform
from tests.model_folder import contents, edit_manifest, make_format_1, sign

Tensors = dict[str, np.ndarray]


@pytest.fixture
def old(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny model in format 1."""
    return make_format_1(Path(shutil.copytree(tiny_model, tmp_path / "old")))


@pytest.fixture
def new(old: Path, tmp_path: Path) -> Path:
    """The same, converted."""
    convert(old, tmp_path / "new")
    return tmp_path / "new"


def _rewrite(folder: Path, change: Callable[[Tensors, dict[str, str]], object]) -> None:
    """Changes tensors and metadata of the weights and signs the folder, as somebody hostile would."""
    path = folder / hub.WEIGHTS
    mapped = MappedFile(path, hub.read_manifest(folder).digest(hub.WEIGHTS))
    tensors, metadata = {name: array.copy() for name, array in mapped.items()}, dict(mapped.metadata)
    change(tensors, metadata)
    path.write_bytes(tensorfile.to_bytes(tensors, metadata))
    sign(folder)


@pytest.mark.parametrize("precision", ["none", "int8", "int4"])
def test_numbers_and_identity_stay(tiny_model: Path, tmp_path: Path, precision: str) -> None:
    old = Path(shutil.copytree(tiny_model, tmp_path / "old"))
    config = hub.read_manifest(old).config
    packed = pack(random_weights(config, np.random.default_rng(3)), PRECISIONS[precision])
    (old / hub.WEIGHTS).write_bytes(save(packed))
    make_format_1(old)
    (old / hub.CARD).write_text("# A card\n", encoding="utf-8")
    before, model = contents(old), hub.load(str(old))
    convert(old, tmp_path / "new")
    assert contents(old) == before
    converted = hub.load(str(tmp_path / "new"))
    assert isinstance(converted.packed, MappedFile)
    assert (converted.sha256, converted.config, converted.name) == (model.sha256, model.config, model.name)
    for name in shapes(config):
        np.testing.assert_array_equal(converted.now(name), model.now(name))
    assert (tmp_path / "new" / hub.CARD).read_text(encoding="utf-8") == "# A card\n"
    assert hub.read_manifest(tmp_path / "new").given_config["mixer"]["kind"] == "gated_delta"


def test_the_bundled_model_opens_and_converts(tmp_path: Path) -> None:
    convert(hub.BUNDLED / hub.DEFAULT, tmp_path / "new")
    assert hub.load(str(tmp_path / "new")).sha256 == hub.read_manifest(hub.BUNDLED / hub.DEFAULT).sha256


def test_converted_twice_is_the_same_file(new: Path, old: Path, tmp_path: Path) -> None:
    convert(new, tmp_path / "again")
    convert(old, tmp_path / "twice")
    for folder in (tmp_path / "again", tmp_path / "twice"):
        assert {p.name: b for p, b in contents(folder).items()} == {p.name: b for p, b in contents(new).items()}


def test_a_profile_goes_on_with_the_converted_model(old: Path, new: Path, tmp_path: Path) -> None:
    learned = open_adaptation(old, tmp_path / "profiles")
    perform(learned, DAY)
    learned.catch_up()
    expected = learned.sha256
    close(learned)
    goes_on = open_adaptation(new, tmp_path / "profiles")
    goes_on.catch_up()
    assert goes_on.sha256 == expected
    close(goes_on)


def _a_number(tensors: Tensors, metadata: dict[str, str]) -> None:
    tensors["embed.q"][3, 4] ^= 1


def _a_scale_that_float16_would_round(tensors: Tensors, metadata: dict[str, str]) -> None:
    tensors["embed.scale"][0] = np.nextafter(tensors["embed.scale"][0], np.float32(1))


def _a_gain(tensors: Tensors, metadata: dict[str, str]) -> None:
    tensors["final_norm"][0] += 1


def _no_head(tensors: Tensors, metadata: dict[str, str]) -> None:
    del metadata[HEAD]


def _another_head(tensors: Tensors, metadata: dict[str, str]) -> None:
    metadata[HEAD] = metadata[HEAD].replace("F16", "F64")


def _a_head_with_other_shapes(tensors: Tensors, metadata: dict[str, str]) -> None:
    metadata[HEAD] = metadata[HEAD].replace("[300,32]", "[32,300]")


def _a_head_without_a_tensor(tensors: Tensors, metadata: dict[str, str]) -> None:
    metadata[HEAD] = "{}"


def _a_head_that_is_none(tensors: Tensors, metadata: dict[str, str]) -> None:
    metadata[HEAD] = "[" * 10_000


@pytest.mark.parametrize(
    "change",
    [
        _a_number, _a_scale_that_float16_would_round, _a_gain, _no_head, _another_head, _a_head_with_other_shapes,
        _a_head_without_a_tensor, _a_head_that_is_none,
    ],
)  # fmt: skip
def test_other_weights_do_not_take_the_identity(new: Path, change: Callable[[Tensors, dict[str, str]], None]) -> None:
    _rewrite(new, change)
    with pytest.raises(ModelFileError, match="not the model that it says it was converted from"):
        hub.load(str(new))


def test_an_origin_that_is_changed_is_another_identity_or_none(new: Path) -> None:
    manifest = json.loads((new / hub.MANIFEST).read_text(encoding="utf-8"))
    origin, identity = manifest["origin"], hub.read_manifest(new).sha256
    for bad in (3, {}, origin | {"sha256": 3}, origin | {"config": []}, origin | {"config": {}}):
        edit_manifest(new, origin=bad)
        with pytest.raises(ModelFileError, match=r"origin|incomplete"):
            hub.read_manifest(new)
    edit_manifest(new, origin=origin | {"config": origin["config"] | {"max_awake": 1}})
    with pytest.raises(ModelFileError, match="other sizes"):
        hub.read_manifest(new)
    edit_manifest(new, origin=origin | {"sha256": "0" * 64})
    with pytest.raises(ModelFileError, match="converted from"):
        hub.load(str(new))
    edit_manifest(new, origin=None)
    assert hub.load(str(new)).sha256 != identity


def test_a_file_of_another_kind_than_its_format(old: Path, new: Path) -> None:
    edit_manifest(old, format=2)
    edit_manifest(new, format=1)
    for folder in (old, new):
        with pytest.raises(ModelFileError, match=r"embed\.q is int8 .*, expected uint8|unknown tensor"):
            hub.load(str(folder))
