"""``edgelm pack``: a layer is made, added, compared, merged and taken away, and a crash leaves no half of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgelm.learn.packs import merged, parts_of
from edgelm.log.packs import path_of, read_pack
from edgelm.memory.reading import Reading
from edgelm.model import hub, tensorfile
from edgelm.model.weights import shapes
from edgelm.runtime import Engine, EngineOptions
from tests.cli.conftest import Cli
from tests.command import ROOT, assert_one_line
from tests.learn.packed import make_pack
from tests.model_folder import TEXT, contents, write_tiny_model

pytestmark = pytest.mark.jit_only
PROSE = "The ferry leaves the island at seven, and the baker is the first on board. The fog is thick.\n" * 12


@pytest.fixture
def folder(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the command, with the packs ``sea`` and ``hill`` and a text."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    model = hub.load(str(tiny_model))
    make_pack(folder / "sea.safetensors", model, 1, name="sea")
    make_pack(folder / "hill.safetensors", model, 2, name="hill")
    (folder / "ferry.txt").write_text(PROSE, encoding="utf-8")
    return folder


def _shown(cli: Cli) -> dict[str, Any]:
    fields: dict[str, Any] = cli("profile", "show", "--json").json
    return fields


def test_from_making_to_removing(cli: Cli, folder: Path, tiny_model: Path) -> None:
    assert cli("chat", "--json", "--max-tokens", "1", input="My boat is called Heron.\n").code == 0
    before = _shown(cli)
    assert before["layers"] == []
    made = cli("pack", "make", "ferry", "ferry.txt", "--licence", "CC0-1.0", "--card", "A ferry.", "--json").json
    assert made["path"] == "ferry.safetensors"
    assert made["from"][0]["title"] == "ferry.txt"
    assert made["bytes"] == Path("ferry.safetensors").stat().st_size
    assert made["tokens"] > 100
    for word in ("ferry leaves", "baker", "island"):
        assert word.encode() not in Path("ferry.safetensors").read_bytes()
    added = [cli("pack", "add", file, "--json").json for file in ("sea.safetensors", "hill.safetensors")]
    assert [fields["layers"] for fields in added] == [["sea"], ["sea", "hill"]]
    assert len({before["weights_sha256"], *(fields["weights_sha256"] for fields in added)}) == 3
    shown = _shown(cli)
    assert [layer["name"] for layer in shown["layers"]] == ["sea", "hill"]
    assert shown["weights_sha256"] == added[1]["weights_sha256"]
    assert "beneath the log: sea" in cli("profile", "log", "-v").stderr
    rows = cli("pack", "list", "--json").json["packs"]
    assert [(row["name"], row["in_profile"]) for row in rows] == [("hill", True), ("sea", True)]
    assert {"name", "sha256", "bytes", "from"} <= set(rows[0])
    card = cli("pack", "show", "ferry.safetensors", "--json").json
    assert (card["licence"], card["card"], card["sha256"]) == ("CC0-1.0", "A ferry.", made["sha256"])
    # Added again nothing changes; another one of the same name takes its place.
    assert cli("pack", "add", "sea.safetensors", "--json").code == 0
    make_pack(Path("new.safetensors"), hub.load(str(tiny_model)), 7, name="sea")
    updated = cli("pack", "add", "new.safetensors", "--json").json
    assert updated["layers"] == ["sea", "hill"]
    assert updated["weights_sha256"] != added[1]["weights_sha256"]
    assert_one_line(cli("pack", "show", "sea"))  # two are called so by now
    assert cli("pack", "show", updated["sha256"][:12], "--json").json["sha256"] == updated["sha256"]
    # Another profile has none of it.
    assert cli("profile", "show", "--profile", "other", "--json").json["layers"] == []
    assert not any(row["in_profile"] for row in cli("pack", "list", "--profile", "other", "--json").json["packs"])
    assert cli("pack", "remove", "sea", "--json").json["layers"] == ["hill"]
    removed = cli("pack", "remove", "hill", "--json").json
    assert removed["weights_sha256"] == before["weights_sha256"]
    assert _shown(cli)["weights_sha256"] == before["weights_sha256"]


def test_forgetting_with_a_layer_beneath(cli: Cli, folder: Path) -> None:
    """What was forgotten on a layer is as if it had never been told on it."""
    for profile, lines in (("me", "It rains.\nThe lamps are lit.\n"), ("without", "It rains.\n")):
        cli("pack", "add", "sea.safetensors", "--profile", profile)
        assert cli("chat", "--json", "--max-tokens", "1", "--profile", profile, input=lines).code == 0
    log = cli("profile", "log", "--profile", "me", "--json").json_lines
    entry = next(row["id"] for row in log if row["text"] == "The lamps are lit.")
    assert cli("profile", "forget", entry, "--profile", "me", "--json").json["removed"] == 1
    found = [cli("profile", "show", "--profile", name, "--json").json["weights_sha256"] for name in ("me", "without")]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (TEXT.replace("The", "User: the"), ""),
        ("User: Hello\nAssistant: Hello to you\n" * 9, "looks like a chat"),
        (PROSE + "My password is: hunter2zebra!\n", "1 lines look like secrets"),
    ],
    ids=["prose", "chat", "secret"],
)
def test_packs_are_made_of_public_texts(cli: Cli, folder: Path, text: str, says: str) -> None:
    Path("a.txt").write_text(text, encoding="utf-8")
    if says:
        assert says in assert_one_line(cli("pack", "make", "a", "a.txt", "--licence", "none"))
        assert not Path("a.safetensors").exists()
    done = cli("pack", "make", "a", "a.txt", "--licence", "none", "--force", "--json")
    assert done.json["secrets_skipped"] == int("password" in text)


def test_a_pack_with_its_words(cli: Cli, folder: Path, tiny_model: Path) -> None:
    """The fast memory knows them while the pack is there; what was said then is forgotten exactly."""
    told = "Our cat is called Juniper.\n"
    assert cli("chat", "--json", "--max-tokens", "1", input=told).code == 0
    before = _shown(cli)["weights_sha256"]
    for licence in ("all rights reserved", "CC-BY-NC-4.0", "CC0-1.0 AND secret"):
        line = assert_one_line(cli("pack", "make", "a", "ferry.txt", "--licence", licence, "--with-text"))
        assert "is everybody allowed to pass on texts" in line
    make = ["pack", "make", "ferry", "ferry.txt", "--with-text", "--licence"]
    assert cli(*make, "public domain, CC BY-SA 4.0").code == 0
    model = hub.load(str(tiny_model))
    assert read_pack(Path("ferry.safetensors"), model).text == PROSE
    assert cli("pack", "add", "ferry.safetensors").code == 0
    ids = np.array([0, *model.tokenizer.encode("The ferry leaves the island at seven, and the baker")])
    with Engine(EngineOptions(str(tiny_model))) as engine:
        memory, plain = engine.adaptation.memory, np.full(model.config.vocab_size, 1 / model.config.vocab_size)
        assert memory is not None
        mixed = memory.mix(Reading(list(ids[:-1])), plain)
        assert int(mixed.argmax()) == ids[-1]
    assert cli("chat", "--json", "--max-tokens", "1", input="It rains.\n").code == 0
    log = cli("profile", "log", "--json").json_lines
    entry = next(row["id"] for row in log if row["text"] == "It rains.")
    assert cli("profile", "forget", entry, "--json").json["removed"] == 1
    assert cli("pack", "remove", "ferry", "--json").json["weights_sha256"] == before
    assert cli("pack", "merge", "both", "ferry.safetensors", "sea.safetensors").code == 0
    assert read_pack(Path("both.safetensors"), model).text == PROSE


def test_what_cannot_be_added(cli: Cli, folder: Path, home: Path, tmp_path: Path, tiny_model: Path) -> None:
    assert cli("chat", "--json", "--max-tokens", "1", input="It rains.\n").code == 0
    before = _shown(cli)["weights_sha256"]
    model = hub.load(str(tiny_model))
    make_pack(Path("loud.safetensors"), model, 3, name="loud", size=0.2)
    other = hub.load(str(write_tiny_model(tmp_path / "other", seed=5, name="other")))
    make_pack(Path("foreign.safetensors"), other, name="foreign")
    whole = Path("sea.safetensors").read_bytes()
    Path("cut.safetensors").write_bytes(whole[:-9])
    packs = contents(home)
    for file, says in (
        ("foreign.safetensors", "was made on another model"), ("cut.safetensors", "damaged"),
        ("none.safetensors", "no such file"), ("ferry.txt", "damaged or not a safetensors file"),
    ):  # fmt: skip
        assert says in assert_one_line(cli("pack", "add", file))
    assert "no layer 'sea' lies beneath" in assert_one_line(cli("pack", "remove", "sea"))
    assert "no layer 'sea' lies beneath" in assert_one_line(cli("pack", "remove", "sea", "--profile", "fresh"))
    assert "no pack that was added has this name" in assert_one_line(cli("pack", "show", "sea"))
    assert assert_one_line(cli("pack", "merge", "a", "sea.safetensors"), 2)
    assert_one_line(cli("pack", "make", "two words", "ferry.txt", "--licence", "CC0-1.0"))
    assert contents(home).keys() == packs.keys()
    assert _shown(cli)["weights_sha256"] == before


def test_a_pack_that_harms_is_not_kept(cli: Cli, folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgelm.learn.layering.SHARE", -1e9)
    line = assert_one_line(cli("pack", "add", "sea.safetensors"))
    assert "with the layers sea general text would cost" in line
    assert not (home / "packs").exists()
    assert _shown(cli)["layers"] == []


def test_a_pack_that_is_missing(cli: Cli, folder: Path, home: Path) -> None:
    sha256 = cli("pack", "add", "sea.safetensors", "--json").json["sha256"]
    before = _shown(cli)["weights_sha256"]
    path_of(home / "packs", sha256).unlink()
    for args in (["chat", "--no-learn"], ["profile", "show"], ["pack", "add", "hill.safetensors"]):
        line = assert_one_line(cli(*args, input="Hello\n"))
        assert "the layer 'sea' lies beneath this profile and cannot be read" in line
    assert cli("profile", "log").code == 0
    assert cli("pack", "list").code == 0
    assert cli("pack", "add", "sea.safetensors").code == 0
    assert _shown(cli)["weights_sha256"] == before
    path_of(home / "packs", sha256).unlink()
    assert cli("pack", "remove", "sea", "--json").json["layers"] == []
    assert cli("chat", "--no-learn", "--max-tokens", "1", input="Hello\n").code == 0


def test_diff_and_merge(cli: Cli, folder: Path, tiny_model: Path) -> None:
    found = cli("pack", "diff", "sea.safetensors", "ferry.txt", "--json").json
    assert [row["path"] for row in found["texts"]] == ["ferry.txt", "general text"]
    assert all(row["bits_per_byte_with"] != row["bits_per_byte_without"] for row in found["texts"])
    part = next(part for part in found["tensors"] if part["name"] == "layers.0.ffn.w2")
    assert (part["blocks"], part["of_blocks"]) == (3, 4)
    assert 0 < part["relative_norm"] < part["largest_block"] < 1
    model = hub.load(str(tiny_model))
    changes = [read_pack(Path(f"{name}.safetensors"), model).changes for name in ("sea", "hill")]
    for method in ("sum", "ties"):
        fields = cli("pack", "merge", "both", "sea.safetensors", "hill.safetensors", "--method", method, "--json").json
        whole = read_pack(Path("both.safetensors"), model)
        assert fields["sha256"] == whole.sha256
        assert whole.licence == "CC0-1.0"
        assert len(whole.sources) == 1
        assert parts_of(whole.changes, model)
    plain = merged(changes, model, "sum", 1.0)["final_norm"].astype(float)
    gains = np.stack([change["final_norm"].astype(float) for change in changes])
    size = np.abs(gains).max(0) / np.maximum(np.linalg.norm(gains, axis=0), 1e-12)
    np.testing.assert_allclose(plain, size * gains.sum(0), atol=1e-5)
    elected = merged(changes, model, "ties", 1.0)["final_norm"].astype(float)
    assert (np.sign(elected) * np.sign(plain) >= 0).all()
    assert cli("pack", "add", "both.safetensors").code == 0


def test_a_merged_block_is_as_long_as_the_longest(tiny_model: Path) -> None:
    """Blocks at right angles; of one that a single pack changed all is left."""
    model, name = hub.load(str(tiny_model)), "layers.0.ffn.w2"
    shape = shapes(model.config)[name]
    one, other = np.zeros((2, *shape[1:]), np.float16), np.zeros((1, *shape[1:]), np.float16)
    one[0, 0, 0], one[1, 0, 0], other[0, 0, 1] = 3 / 64, 1 / 64, 4 / 64
    packs = [
        {name: one, f"{name}.blocks": np.array([0, 2], np.int32)},
        {name: other, f"{name}.blocks": np.array([0], np.int32)},
    ]
    found = merged(packs, model, "sum", 1.0)
    assert found[f"{name}.blocks"].tolist() == [0, 2]
    np.testing.assert_allclose(found[name][0, 0, :2], np.array([3, 4]) / 64 * 0.8, rtol=1e-3)
    np.testing.assert_array_equal(found[name][1], one[1])


def test_a_layer_comes_while_answers_go_on(home: Path, tiny_model: Path, folder: Path) -> None:
    with Engine(EngineOptions(str(tiny_model)), writable=True) as engine:
        entry = engine.adaptation.tell("chat", "The ferry waits.", conversation=1)
        engine.worker.learn(entry).result()
        before = engine.adaptation.sha256
        pack = read_pack(folder / "sea.safetensors", engine.model)
        first = engine.session.run(np.array([0, 1])).copy()
        engine.set_layers([pack.layer], wait=False)
        assert engine.session.run(np.array([0, 1])).shape == first.shape
        engine.set_layers([pack.layer])
        assert engine.adaptation.sha256 != before
        engine.set_layers([])
        assert engine.adaptation.sha256 == before


CRASH = """
import os, sys
from edgelm.cli.main import main
from edgelm.log import packs, profile
where, sys.argv = sys.argv[1], ["edgelm", *sys.argv[2:]]
whole, tidy = profile.write_layers, profile.Profile._tidy
def write(database, layers):
    whole(database, layers)
    if where == "within":
        os._exit(9)
def tidied(self):
    if where == "after" and self.layers:
        os._exit(9)
    tidy(self)
def kept(path, blobs):
    os._exit(9)
profile.write_layers, profile.Profile._tidy = write, tidied
if where == "file":
    packs.tensorfile.replace = kept
main()
"""


@pytest.mark.parametrize("where", ["file", "within", "after"])
def test_a_crash_leaves_the_old_or_the_new(cli: Cli, folder: Path, home: Path, tiny_model: Path, where: str) -> None:
    assert cli("chat", "--json", "--max-tokens", "1", input="It rains.\n").code == 0
    shutil.copytree(home, home.with_name("whole"))
    old = _shown(cli)["weights_sha256"]
    new = cli("pack", "add", "sea.safetensors", "--json").json["weights_sha256"]
    shutil.rmtree(home)
    shutil.copytree(home.with_name("whole"), home)
    command = [sys.executable, "-c", CRASH, where, "pack", "add", str(folder / "sea.safetensors")]
    done = subprocess.run(
        [*command, "--model", str(tiny_model)], cwd=ROOT, capture_output=True, env=dict(os.environ), timeout=300
    )
    assert done.returncode == 9, done.stderr
    found = _shown(cli)
    assert found["weights_sha256"] == (new if where == "after" else old)
    assert len(found["layers"]) == (where == "after")
    # The next one comes to its end.
    assert cli("pack", "add", "sea.safetensors", "--json").code == 0
    assert _shown(cli)["weights_sha256"] == new


def test_a_pack_says_what_it_is_in_plain_safetensors(folder: Path) -> None:
    metadata = tensorfile.read(folder / "sea.safetensors")[1]
    assert json.loads(metadata["from"]) == [["made up", "ab" * 32]]
    assert (metadata["kind"], metadata["format"]) == ("edgelm pack", "1")
