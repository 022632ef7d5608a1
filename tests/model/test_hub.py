"""Models are found, verified, and refused when anything about them is wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from edgelm.errors import ModelFileError
from edgelm.matrices.integer_products import IntegerProducts
from edgelm.matrices.matrix import Int8
from edgelm.matrices.strips import Strips
from edgelm.model import hub
from edgelm.model.mapped import MappedFile
from edgelm.model.packing import Shifted, unpack_one
from edgelm.model.weights import count_parameters, shapes
from edgelm.text.template import USUAL, Template
from tests.model_folder import contents, edit_manifest, make_format_1, sign, write_tiny_model


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may break."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def _edit_tensors(path: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    tensors = load(path.read_bytes())
    change(tensors)
    path.write_bytes(save(tensors))
    sign(path.parent)


def test_a_model_is_whole(tiny_model: Path) -> None:
    model = hub.load(str(tiny_model))
    assert (model.name, model.folder, model.card) == ("tiny", tiny_model, {})
    assert model.tokenizer.vocab_size == model.config.vocab_size
    assert model.n_parameters == count_parameters(model.config)
    assert {name: array.shape for name, array in model.weights.items()} == shapes(model.config)
    assert all(array.dtype == np.float32 for array in model.weights.values())
    assert all(array.flags.writeable for array in model.adaptable.values())
    assert len(model.sha256) == 64


def test_what_was_released_is_read_again(folder: Path) -> None:
    make_format_1(folder)
    model = hub.load(str(folder))
    before = {
        name: unpack_one(model.packed, name).copy() for name in shapes(model.config) if name not in model.adaptable
    }
    model.release()
    assert isinstance(model.packed, Shifted)
    assert all((model.weights[name] == array).all() for name, array in before.items())
    assert all(model.weights[name] is array for name, array in model.adaptable.items())
    model = hub.load(str(folder))
    model.release()
    write_tiny_model(folder, seed=1)
    with pytest.raises(ModelFileError, match="was exchanged while it was in use"):
        model.weights  # noqa: B018
    make_format_1(folder)
    other = hub.load(str(folder))
    other.release()
    (folder / hub.WEIGHTS).write_bytes((folder / hub.WEIGHTS).read_bytes()[:-1])
    with pytest.raises(ModelFileError, match="was exchanged"):
        other.packed  # noqa: B018


def test_what_is_mapped_stays_when_another_model_is_written_in_its_place(folder: Path) -> None:
    model = hub.load(str(folder))
    before = {name: model.now(name).copy() for name in shapes(model.config)}
    write_tiny_model(folder, seed=1)
    model.release()
    assert isinstance(model.packed, MappedFile)
    assert all((model.weights[name] == array).all() for name, array in before.items())
    assert not np.array_equal(hub.load(str(folder)).now("embed"), before["embed"])


@pytest.mark.parametrize("file_format", hub.FORMATS)
def test_nothing_is_copied_that_nobody_writes(folder: Path, file_format: int) -> None:
    if file_format == 1:
        make_format_1(folder)
    model = hub.load(str(folder))
    frozen = [name for name in model.operands if name not in model.adaptable]
    for name in frozen:
        tensor = model.operands[name]
        if isinstance(tensor, IntegerProducts):
            assert tensor.strips is model.strips(name)
        elif isinstance(tensor, Strips):
            assert tensor is model.strips(name)
        elif isinstance(tensor, Int8):
            assert np.shares_memory(tensor.q, model.packed[name + ".q"])
            assert np.shares_memory(tensor.scale, model.packed[name + ".scale"])
        else:
            assert np.shares_memory(tensor, model.packed[name])
    base = model.base()
    assert np.shares_memory(base["layers.0.ffn.w2"].q, model.packed["layers.0.ffn.w2.q"])
    for array in model.adaptable.values():
        array += 1
    for name, tensor in base.items():
        np.testing.assert_array_equal(np.asarray(tensor) + 1, model.now(name))
        np.testing.assert_array_equal(np.asarray(tensor), unpack_one(hub.load(str(folder)).packed, name))


@pytest.mark.parametrize("file_format", hub.FORMATS)
def test_what_is_private_is_nobody_elses(folder: Path, file_format: int) -> None:
    if file_format == 1:
        make_format_1(folder)
    model, name = hub.load(str(folder)), "layers.0.ffn.w2"
    before = model.packed[name + ".q"].copy()
    first, second = model.private([name]), model.private([name])
    first[name + ".q"][:] = 7
    assert (first[name + ".q"] == 7).all()
    for other in (second, model.packed, hub.load(str(folder)).packed):
        np.testing.assert_array_equal(other[name + ".q"], before)


def test_the_hash_names_weights_tokenizer_and_sizes(tiny_model: Path, folder: Path, tmp_path: Path) -> None:
    sha256 = hub.load(str(tiny_model)).sha256
    edit_manifest(folder, name="other", card={"tokens": 3})
    assert hub.load(str(folder)).sha256 == sha256
    assert hub.load(str(write_tiny_model(tmp_path / "other", seed=1))).sha256 != sha256
    manifest = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    edit_manifest(folder, config=manifest["config"] | {"ffn": manifest["config"]["ffn"] | {"max_awake": 1}})
    assert hub.load(str(folder)).sha256 != sha256


@pytest.mark.parametrize("name", ["", "nosuch", "../small", "/nosuch", "~nobody-of-that-name/model"])
def test_there_is_no_such_model(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelFileError, match="no model"):
        hub.load(name)


@pytest.mark.parametrize("file", hub.FILES)
def test_every_file_is_verified(folder: Path, file: str) -> None:
    path = folder / file
    blob = path.read_bytes()
    flipped = bytearray(blob)
    flipped[len(blob) // 2] ^= 1
    for damaged in (b"", blob[:-1], blob + b"\0", bytes(flipped)):
        path.write_bytes(damaged)
        before = contents(folder)
        with pytest.raises(ModelFileError, match=f"{file}: (altered or truncated|damaged)"):
            hub.load(str(folder))
        assert contents(folder) == before
    path.unlink()
    with pytest.raises(ModelFileError, match=f"{file}: (cannot be read|no such file)"):
        hub.load(str(folder))


@pytest.mark.parametrize(
    "blob", [b"", b"{", b"\xff", b"[" * 100_000, b"{}", b"[]", b"3", b'{"format": 3}', b'{"format": true}', b"null"]
)
def test_a_foreign_manifest(folder: Path, blob: bytes) -> None:
    (folder / "config.json").write_bytes(blob)
    with pytest.raises(ModelFileError, match=r"not readable as JSON|model format .*, this edgelm reads 1 and 2"):
        hub.load(str(folder))


@pytest.mark.parametrize("key", ["name", "config", "sha256", "card"])
@pytest.mark.parametrize("value", [None, 3])
def test_a_manifest_that_lacks_a_part(folder: Path, key: str, value: object) -> None:
    edit_manifest(folder, **{key: value})
    with pytest.raises(ModelFileError, match=f"lacks '{key}'"):
        hub.load(str(folder))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"depth": 3}, "unknown model configuration field 'depth'"),
        ({"d_model": -32}, "d_model must be between"),
        ({"d_model": 64}, "embed.q is"),
        ({"n_layers": 3}, "lacks 'layers.2"),
        ({"n_layers": 1}, "has an unknown tensor 'layers.1"),
        ({"mixer": {"kind": "published", "n_heads": 2, "value_dim": 8, "slope_dim": 16, "n_channels": 4}}, "tensor"),
    ],
)
def test_a_configuration_that_does_not_fit(folder: Path, changes: dict[str, object], says: str) -> None:
    manifest = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    edit_manifest(folder, config=manifest["config"] | changes)
    with pytest.raises(ModelFileError, match=says):
        hub.load(str(folder))


def test_the_template_comes_with_the_model(tiny_model: Path, folder: Path) -> None:
    assert hub.load(str(tiny_model)).template == USUAL
    fields = {"user_label": "Human", "turn": "{label}: {text}\n\n", "stops": ["\n\n"]}
    edit_manifest(folder, template=fields)
    model = hub.load(str(folder))
    assert model.template == Template("Human", turn="{label}: {text}\n\n", stops=("\n\n",))
    assert model.sha256 != hub.load(str(tiny_model)).sha256, "it learns other words from the same turn"
    hub.write_model(folder / "again", "again", model.config, {}, {}, model.template)
    assert hub.read_manifest(folder / "again").template == model.template
    edit_manifest(folder, template={})
    assert hub.load(str(folder)).sha256 == hub.load(str(tiny_model)).sha256


@pytest.mark.parametrize(
    ("template", "says"),
    [("User", "an object"), ({"turn": "{text}"}, "once"), ({"document_id": 5}, "the tokenizer has 0")],
)
def test_a_template_that_does_not_fit(folder: Path, template: object, says: str) -> None:
    edit_manifest(folder, template=template)
    with pytest.raises(ModelFileError, match=says):
        hub.load(str(folder))


@pytest.mark.parametrize("digest", [None, "0" * 64, 3])
def test_a_digest_that_is_wrong(folder: Path, digest: object) -> None:
    manifest = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    edit_manifest(folder, sha256=manifest["sha256"] | {"tokenizer.json": digest})
    with pytest.raises(ModelFileError, match="altered or truncated"):
        hub.load(str(folder))


def test_a_tokenizer_of_another_vocabulary(folder: Path, tmp_path: Path) -> None:
    other = write_tiny_model(tmp_path / "other", vocab_size=270)
    shutil.copy(other / "tokenizer.json", folder)
    sign(folder)
    with pytest.raises(ModelFileError, match="the tokenizer has 270 tokens, the model 300"):
        hub.load(str(folder))


def test_tensors_that_do_not_fit_though_signed(folder: Path) -> None:
    path = folder / "weights.safetensors"
    whole = path.read_bytes()
    cases = {
        r"embed.scale is missing, expected float32 \(300, 1\)": lambda t: t.pop("embed.scale"),
        r"embed.scale is float32 \(299, 1\)": lambda t: t.update({"embed.scale": t["embed.scale"][:-1]}),
        r"embed.q is uint8 \(300, 31\)": lambda t: t.update({"embed.q": t["embed.q"][:, 1:].copy()}),
        "lacks 'final_norm'": lambda t: t.pop("final_norm"),
        "final_norm is float64": lambda t: t.update(final_norm=t["final_norm"].astype(np.float64)),
        "not finite": lambda t: t.update(final_norm=t["final_norm"] * np.inf),
    }
    for says, change in cases.items():
        path.write_bytes(whole)
        _edit_tensors(path, change)
        with pytest.raises(ModelFileError, match=says):
            hub.load(str(folder))
    path.write_bytes(b"no tensors")
    sign(folder)
    with pytest.raises(ModelFileError, match="not a safetensors file"):
        hub.load(str(folder))


@pytest.mark.parametrize("rms", [None, [], [0.0], [np.nan], [-1.0], [1.0, 1.0]])
def test_gradient_scales_that_cannot_be_used(folder: Path, rms: list[float] | None) -> None:
    def change(tensors: dict[str, np.ndarray]) -> None:
        del tensors["final_norm"]
        if rms is not None:
            tensors["final_norm"] = np.array(rms, np.float32)

    _edit_tensors(folder / "learning.safetensors", change)
    with pytest.raises(ModelFileError, match="final_norm"):
        hub.load(str(folder))


def test_the_bundled_models_are_listed() -> None:
    assert hub.DEFAULT in hub.available()
    assert hub.find(None) == hub.find(hub.DEFAULT) == hub.BUNDLED / hub.DEFAULT
