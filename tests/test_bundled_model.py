"""The model that comes with the package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgelm.engine.kernel_session import KernelSession
from edgelm.engine.ort_session import OrtSession
from edgelm.engine.sampler import log_softmax
from edgelm.export.step import build_graph
from edgelm.model import hub
from edgelm.model.reference import forward
from edgelm.model.state import empty_state
from edgelm.network.network import Network
from edgelm.text.general import general_text
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


@pytest.mark.jit_only
@pytest.mark.parametrize("start", [0, 4000, 8000])
def test_parity_over_200_steps(start: int) -> None:
    """On the weights that people use; ``tests/test_parity.py`` has the states and the odd sizes."""
    model = hub.load()
    text = (ROOT / "edgelm" / "data" / "general.txt").read_text(encoding="utf-8")[start : start + 1400]
    ids = np.array([0, *model.tokenizer.encode(text)])[:201]
    expected, _, _ = forward(ids[:-1], model.weights, empty_state(model.config), model.config)
    session = OrtSession(build_graph(model.config), model.weights)
    logits = np.concatenate([session.run(ids[i : i + 1]).copy() for i in range(200)])
    assert np.abs(logits - expected).max() <= 1e-5 * np.abs(expected).max()
    losses = Network(model.config, model.weights, [], 256).forward(ids[:-1], ids[1:], empty_state(model.config))
    wanted = -log_softmax(expected)[np.arange(200), ids[1:]]
    assert np.abs(losses - wanted).max() <= 1e-5 * np.abs(wanted).max()


@pytest.mark.jit_only
def test_integers_cost_no_bits() -> None:
    """Answers of the kernels, whose weights and activations are integers, beside the reference on general text."""
    model = hub.load()
    ids = np.array([0, *model.tokenizer.encode(general_text())])[:1601]
    expected, _, _ = forward(ids[:-1], model.weights, empty_state(model.config), model.config)
    logits = KernelSession(model).run(ids[:-1], 0)
    assert np.abs(logits - expected).mean() <= 0.005 * np.abs(expected).max()
    found, wanted = (-log_softmax(x)[np.arange(len(ids) - 1), ids[1:]].mean() for x in (logits, expected))
    assert abs(found / wanted - 1) <= 0.001


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
