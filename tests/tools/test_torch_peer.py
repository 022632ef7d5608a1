"""The peer does the same work: it learns what the learner learns."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from edgelm.bench.peers import torch_peer  # noqa: E402
from edgelm.bench.peers.twins import scan  # noqa: E402
from edgelm.config import LearnConfig  # noqa: E402
from edgelm.engine.ort_session import OrtSession  # noqa: E402
from edgelm.export.step import build_graph  # noqa: E402
from edgelm.learn.learner import Learner  # noqa: E402
from edgelm.measure.score import score_text  # noqa: E402
from edgelm.model import hub  # noqa: E402
from edgelm.model.weights import adaptable_names  # noqa: E402
from edgelm.text.tokenizer import DOC_ID, DOC_LINE  # noqa: E402
from tests.model_folder import TEXT, write_tiny_model  # noqa: E402

pytestmark = pytest.mark.jit_only
SEGMENTS = 3
LINE = "The ferry leaves the island at seven in the morning.\n"


@pytest.fixture(scope="module", params=["mcsd_g", "rwkv7"])
def model_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of either kind."""
    return write_tiny_model(tmp_path_factory.mktemp("models") / request.param, mixer=request.param)


@pytest.mark.parametrize("text", [TEXT * 3, f"{DOC_LINE}\n{TEXT}{DOC_LINE}\n{DOC_LINE}\n{LINE}{DOC_LINE}\n"])
@pytest.mark.parametrize("window", [32, 100])
def test_its_score_is_that_of_edgelm(model_folder: Path, text: str, window: int) -> None:
    model = hub.load(str(model_folder))
    session = OrtSession(build_graph(model.config), model.weights)
    expected = score_text(session, model.tokenizer, model.config, text).bits_per_byte
    with torch.no_grad():
        ids = model.tokenizer.encode_document_lines(text)
        losses = torch.cat([*torch_peer.window_losses(torch_peer.twin(model), ids, window)])
    found = float(losses.double().sum()) / math.log(2) / len(text.encode())
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("chunk", [None, 32], ids=["our kernels", "alone"])
def test_it_learns_the_same(model_folder: Path, chunk: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    model, config = hub.load(str(model_folder)), LearnConfig(rate=30.0, pull=0.01)
    ids = model.tokenizer.encode(TEXT)[: SEGMENTS * config.segment]
    made = torch_peer.twin(model)
    step = torch_peer.learner(made, model, ids, config)
    if chunk:
        step = torch_peer.alone(step, chunk)
        monkeypatch.setattr(scan, "_over_rows", None)
    assert sum(step(0) for _ in range(SEGMENTS)) == len(ids)
    base = {name: model.weights[name].copy() for name in adaptable_names(model.config)}
    Learner(model.config, model.weights, base, model.grad_rms, config).learn([DOC_ID, *ids])
    for name, parameter in made.named_parameters():
        learned = model.weights[name]
        assert np.array_equal(learned, base.get(name, learned)) == (name not in base)
        np.testing.assert_allclose(parameter.detach().numpy(), learned, rtol=1e-4, atol=1e-5, err_msg=name)


def test_its_line(model_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    # As it is: another test's number of threads would be changed.
    threads = str(torch.get_num_threads())
    options = ["--seconds", "0.01", "--eager", "--threads", threads]
    options += ["--blocks", "1"] if model_folder.name == "mcsd_g" else []
    monkeypatch.setattr(sys, "argv", ["torch_peer", "--model", str(model_folder), *options])
    torch_peer.main()
    fields = json.loads(capsys.readouterr().out)
    assert fields["decode_tokens_per_s"] > 0
    assert fields["learn_eager_tokens_per_s"] > 0
    assert fields["learn_alone_tokens_per_s"] > 0
    assert "learn_compiled_tokens_per_s" not in fields
