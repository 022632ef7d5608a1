"""The model that comes with the package."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgelm.model import hub
from tests.command import ROOT, run_cli
from tests.model_folder import contents

MAX_BYTES = 12_000_000
FOLDER = hub.BUNDLED / hub.DEFAULT


def test_it_loads_and_verifies() -> None:
    model = hub.load()
    assert model.name == hub.DEFAULT
    assert model.card["tokens"] > 0
    assert model.tokenizer.decode(model.tokenizer.encode("Hello, 世界 🙂")) == "Hello, 世界 🙂"


def test_it_is_small() -> None:
    assert sum(map(len, contents(FOLDER).values())) <= MAX_BYTES


def test_it_has_a_card() -> None:
    assert (FOLDER / "README.md").read_text(encoding="utf-8").strip()


def test_info(home: Path) -> None:
    fields = run_cli(["info", "--json"]).json
    assert (fields["model"], fields["model_folder"]) == (hub.DEFAULT, str(FOLDER))
    assert fields["model_bytes"] <= MAX_BYTES
    assert fields["parameters"] > 10_000_000


@pytest.mark.jit_only
def test_chat(home: Path) -> None:
    result = run_cli(["chat", "--json", "--max-tokens", "24", "--seed", "1"], "Hello, how are you?\nWhat is a river?\n")
    assert (result.code, result.stderr) == (0, "")
    turns = result.json_lines
    assert len(turns) == 2
    assert all(turn["reply"].strip() and turn["learned_tokens"] > 0 for turn in turns)
    assert all(turn["loss_nats_after"] < turn["loss_nats_before"] for turn in turns)


def test_a_quarter_of_the_neurons_is_awake(home: Path) -> None:
    fields = run_cli(["evaluate", str(ROOT / "edgelm" / "data" / "general.txt"), "--json"]).json
    assert 0.20 <= fields["awake_fraction"] <= 0.30
    assert fields["bits_per_byte"] < 3
