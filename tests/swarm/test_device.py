"""A round on one device, without a network: the layer is checked and put beneath; the update holds no words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgelm.errors import InputError, ModelFileError, ProfileError
from edgelm.log.packs import path_of, read_pack, write_pack
from edgelm.model import hub
from edgelm.model.hub import Model
from edgelm.runtime import Engine, EngineOptions, packs_dir
from edgelm.swarm.device import Device, Ledger, ledger_path, noted, read_ledger, write_ledger
from edgelm.swarm.update import UpdateConfig, incoming
from edgelm.swarm.wire import LAYER, MOST_UPDATE, from_blob
from tests.cli.conftest import Cli
from tests.cli.conftest import cli as cli
from tests.learn.packed import make_pack
from tests.model_folder import contents, write_tiny_model

pytestmark = pytest.mark.jit_only
SAID = "My boat is called Heron, and the ferry leaves the island at seven in the morning."


@pytest.fixture
def model(tiny_model: Path) -> Model:
    return hub.load(str(tiny_model))


def _device(tiny_model: Path, profile: str = "default") -> Device:
    options = EngineOptions(model=str(tiny_model), profile=profile, bank=False)
    return Device(options, UpdateConfig(), np.random.default_rng(1))


def _pack(folder: Path, model: Model, seed: int = 1, *, name: str = LAYER, text: str = "") -> bytes:
    path = folder / f"{name}-{seed}.safetensors"
    make_pack(path, model, seed, name=name, text=text)
    return path.read_bytes()


def _weights(device: Device) -> str:
    """Of a process that opens the profile after it."""
    with Engine(device.options, writable=False) as engine:
        engine.adaptation.catch_up()
        return engine.adaptation.sha256


def test_the_log_is_replayed_on_the_shared_layer(cli: Cli, tiny_model: Path, model: Model, tmp_path: Path) -> None:
    cli("chat", "--json", "--max-tokens", "1", input=SAID + "\n")
    device, bare = _device(tiny_model), _weights(_device(tiny_model))
    blob = device.train(model.sha256, _pack(tmp_path, model))
    assert incoming(from_blob(blob, MOST_UPDATE), model)
    for word in SAID.replace(",", "").replace(".", "").split():
        assert len(word) < 5 or word.encode() not in blob
    shown = cli("profile", "show", "--json").json
    assert [layer["name"] for layer in shown["layers"]] == [LAYER]
    kept = _weights(device)
    assert kept == shown["weights_sha256"] != bare
    # A life on this layer from its first word comes to the same, bit for bit.
    cli("pack", "remove", LAYER)
    assert _weights(device) == bare
    cli("pack", "add", tmp_path / "swarm-1.safetensors")
    assert _weights(device) == kept


def test_what_it_learned_is_the_change_on_top_of_the_layer(
    cli: Cli, tiny_model: Path, model: Model, tmp_path: Path
) -> None:
    cli("chat", "--json", "--max-tokens", "1", input=SAID + "\n")
    exact = UpdateConfig(clip=1000, noise=0, budget_bytes=1 << 19)
    device = Device(_device(tiny_model).options, exact, np.random.default_rng(1))
    update = incoming(from_blob(device.train(model.sha256, _pack(tmp_path, model)), MOST_UPDATE), model, exact)
    with Engine(device.options, writable=False) as engine:
        engine.adaptation.catch_up()
        learned = engine.learned_change()
    total = np.sqrt(sum(float(np.square(a, dtype=np.float64).sum()) for a in update.values()))
    wanted = np.sqrt(
        sum(float(np.square(a, dtype=np.float64).sum()) for n, a in learned.items() if not n.endswith(".blocks"))
    )
    assert total == pytest.approx(wanted, rel=0.02)


def test_a_newer_layer_takes_the_place_of_the_older(cli: Cli, tiny_model: Path, model: Model, tmp_path: Path) -> None:
    cli("chat", "--json", "--max-tokens", "1", input=SAID + "\n")
    make_pack(tmp_path / "sea.safetensors", model, 5, name="sea")
    cli("pack", "add", tmp_path / "sea.safetensors")
    device = _device(tiny_model)
    first, second = _pack(tmp_path, model, 1), _pack(tmp_path, model, 2)
    found = []
    for pack in (first, second, second, b""):
        device.train(model.sha256, pack)
        found.append((device.layer(), [layer["name"] for layer in cli("profile", "show", "--json").json["layers"]]))
    assert [names for _, names in found] == [["swarm", "sea"]] * 3 + [["sea"]]
    assert found[0][0] != found[1][0] == found[2][0]
    assert found[3][0] == ""
    assert not path_of(packs_dir(), found[0][0]).exists()


def test_a_layer_that_another_profile_uses_stays(cli: Cli, tiny_model: Path, model: Model, tmp_path: Path) -> None:
    one, other = _device(tiny_model), _device(tiny_model, "other")
    first = _pack(tmp_path, model, 1)
    assert one.train(model.sha256, first) == other.train(model.sha256, first) == b""
    sha256 = one.layer()
    one.train(model.sha256, _pack(tmp_path, model, 2))
    assert other.layer() == sha256
    assert path_of(packs_dir(), sha256).exists()
    other.train(model.sha256, b"")
    assert not path_of(packs_dir(), sha256).exists()


def test_what_is_not_taken_changes_nothing(cli: Cli, tiny_model: Path, model: Model, tmp_path: Path) -> None:
    cli("chat", "--json", "--max-tokens", "1", input=SAID + "\n")
    device = _device(tiny_model)
    good = _pack(tmp_path, model)
    device.train(model.sha256, good)
    home = packs_dir().parent
    before = contents(home)
    other = hub.load(str(write_tiny_model(tmp_path / "other", seed=7)))
    strangers = {
        "another model": (other.sha256, good),
        "cut off": (model.sha256, good[:-1]),
        "noise": (model.sha256, b"\xff" * 300),
        "of another model": (model.sha256, _pack(tmp_path, other, 3)),
        "another name": (model.sha256, _pack(tmp_path, model, 4, name="sea")),
        "with words": (model.sha256, _pack(tmp_path, model, 6, text="The moon is made of cheese.")),
        "flipped": (model.sha256, good[:-40] + bytes([255] * 40)),
    }
    made = read_pack(tmp_path / "swarm-1.safetensors", model)
    write_pack(tmp_path / "text.safetensors", replace(made, text="The ferry leaves at nine."))
    strangers["with a text"] = (model.sha256, (tmp_path / "text.safetensors").read_bytes())
    for name, (sha256, pack) in strangers.items():
        with pytest.raises((InputError, ModelFileError, ProfileError)) as found:
            device.train(sha256, pack)
        assert "\n" not in str(found.value), name
        assert contents(home) == before, name


def test_a_layer_that_makes_general_text_worse_is_refused(
    cli: Cli, tiny_model: Path, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("chat", "--json", "--max-tokens", "1", input=SAID + "\n")
    device = _device(tiny_model)
    monkeypatch.setattr("edgelm.learn.layering.SHARE", -1.0)
    with pytest.raises(ProfileError, match="general text would cost"):
        device.train(model.sha256, _pack(tmp_path, model))
    assert device.layer() == ""
    assert not packs_dir().exists()


def test_words_that_were_not_kept_cannot_be_replayed(cli: Cli, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(SAID * 20, encoding="utf-8")
    cli("adapt", tmp_path / "text.txt", "--no-log", "--holdout", "0")
    with pytest.raises(ProfileError, match="were not kept"):
        _device(tiny_model).check()


def test_the_ledger_is_what_was_written(tmp_path: Path) -> None:
    path = ledger_path(tmp_path / "swarm", "me")
    assert read_ledger(path) == Ledger()
    written = noted(Ledger(), rounds=2, bytes_sent=5, address="a:1")
    write_ledger(path, written)
    assert read_ledger(path) == written
    for text in ("", "[]", "{}", '{"rounds": "2"}', path.read_text(encoding="utf-8")[:-5], "\0"):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match="damaged"):
            read_ledger(path)
