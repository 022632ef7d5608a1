"""A checkpoint becomes a model folder that edgelm runs."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from edgelm.bench.peers.twins import model  # noqa: E402
from edgelm.engine.ort_session import OrtSession  # noqa: E402
from edgelm.export.step import build_graph  # noqa: E402
from edgelm.model import hub, reference  # noqa: E402
from edgelm.model.state import empty_state  # noqa: E402
from edgelm.model.weights import adaptable_names, is_quantizable, ternary_names  # noqa: E402
from edgelm.text.tokenizer import DOC_ID  # noqa: E402
from tests.tools.tiny_run import CONFIG, MIXTURE  # noqa: E402
from tools.pretrain import release  # noqa: E402
from tools.pretrain.ternary import rounded  # noqa: E402

pytestmark = pytest.mark.jit_only
IDS = np.random.default_rng(0).integers(1, CONFIG.vocab_size, 40)
IDS[0] = DOC_ID


@pytest.fixture(
    params=[
        ["--precision", "none"],
        ["--precision", "none", "--raw"],
        [],
        ["--precision", "int4"],
        ["--precision", "ternary"],
    ],
    ids=["average", "last", "int8", "int4", "ternary"],
)
def options(request: pytest.FixtureRequest) -> list[str]:
    return list(request.param)


@pytest.fixture
def released(
    run_dir: Path, tokenizer_file: Path, tmp_path: Path, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> hub.Model:
    """The model of the finished run."""
    places = [run_dir, tokenizer_file.parent, tokenizer_file, tmp_path / "model"]
    argv = ["release", *map(str, places), "--name", "tiny", "--rms-tokens", "400", *options]
    monkeypatch.setattr(sys, "argv", argv)
    release.main()
    return hub.load(str(tmp_path / "model"))


def reference_logits(found: hub.Model) -> np.ndarray:
    logits, _, _ = reference.forward(IDS, found.weights, empty_state(CONFIG), CONFIG)
    return logits


def test_folder_holds_the_checkpoint(released: hub.Model, run_dir: Path, options: list[str]) -> None:
    assert (released.name, released.config) == ("tiny", CONFIG)
    assert released.card["steps"] == 40
    assert released.card["tokens"] == 5120
    assert released.card["mixture"] == MIXTURE
    saved = torch.load(run_dir / "checkpoint.pt", weights_only=True)["model" if "--raw" in options else "ema"]
    ternary = ternary_names(CONFIG) if "ternary" in options else set()
    for name, array in released.weights.items():
        if name in ternary:
            expected = rounded(saved[name]).numpy()
            assert (np.abs(array - expected) > 2e-3 * np.abs(array).max()).mean() < 0.01, name
            continue
        steps = {"none": np.inf, "int4": 5}.get(options[1] if options else "", 127)
        error = np.abs(array - saved[name].numpy()).max()
        assert error <= (np.abs(array).max() / steps if is_quantizable(name) else 0), name
    assert set(adaptable_names(CONFIG)) <= set(released.grad_rms)
    for name, rms in released.grad_rms.items():
        assert np.isfinite(rms).all(), name
        assert (rms > 0).all(), name


def test_graph_gives_the_logits_of_the_reference(released: hub.Model) -> None:
    expected = reference_logits(released)
    session = OrtSession(build_graph(released.config), released.weights)
    assert np.abs(session.run(IDS, 0) - expected).max() <= 1e-5 * np.abs(expected).max()
    session.reset()
    step_by_step = np.concatenate([session.run(IDS[i : i + 1]).copy() for i in range(len(IDS))])
    assert np.abs(step_by_step - expected).max() <= 1e-5 * np.abs(expected).max()


def test_twin_gives_the_logits_of_the_reference(released: hub.Model) -> None:
    expected = reference_logits(released)
    twin = model.Model(CONFIG)
    twin.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in released.weights.items()})
    ids, carried = torch.from_numpy(IDS[None]), torch.ones(1, 3, dtype=torch.bool)
    starts, same_doc, _ = model.document_masks(ids, DOC_ID, carried)
    hidden, _, _ = twin(ids, starts, same_doc, twin.initial_state(1), CONFIG.max_awake)
    logits = (hidden[0] @ twin.embed.t()).detach().numpy()
    assert np.abs(logits - expected).max() <= 1e-5 * np.abs(expected).max()


def test_released_model_predicts_its_corpus(released: hub.Model, corpus: Path, options: list[str]) -> None:
    ids = np.array([DOC_ID, *released.tokenizer.encode((corpus / "more.txt").read_text()[:2000])])
    logits, _, _ = reference.forward(ids[:-1], released.weights, empty_state(CONFIG), CONFIG)
    log_p = logits - np.logaddexp.reduce(logits, -1, keepdims=True)
    loss = -log_p[np.arange(len(ids) - 1), ids[1:]].mean()
    # Rounded to so few numbers after training it has lost a part of what it learned.
    assert loss < (0.97 if "ternary" in options else 0.95) * np.log(CONFIG.vocab_size)
