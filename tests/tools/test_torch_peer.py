"""The peer does the same work: it learns what the learner learns."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from edgelm.config import LearnConfig  # noqa: E402
from edgelm.learn.learner import Learner  # noqa: E402
from edgelm.model import hub  # noqa: E402
from edgelm.model.weights import adaptable_names  # noqa: E402
from edgelm.text.tokenizer import DOC_ID  # noqa: E402
from tests.model_folder import TEXT  # noqa: E402
from tools.measure.adamw import twin  # noqa: E402
from tools.measure.peers import torch_peer  # noqa: E402

pytestmark = pytest.mark.jit_only
SEGMENTS = 3


def test_it_learns_the_same(tiny_model: Path) -> None:
    model, config = hub.load(str(tiny_model)), LearnConfig(rate=30.0, pull=0.01)
    ids = model.tokenizer.encode(TEXT)[: SEGMENTS * config.segment]
    made = twin(model)
    step = torch_peer.learner(made, model, ids, config)
    assert sum(step(0) for _ in range(SEGMENTS)) == len(ids)
    base = {name: model.weights[name].copy() for name in adaptable_names(model.config)}
    Learner(model.config, model.weights, base, model.grad_rms, config).learn([DOC_ID, *ids])
    for name, parameter in made.named_parameters():
        learned = model.weights[name]
        assert np.array_equal(learned, base.get(name, learned)) == (name not in base)
        np.testing.assert_allclose(parameter.detach().numpy(), learned, rtol=1e-4, atol=1e-5, err_msg=name)


def test_its_line(tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    # As it is: another test's number of threads would be changed.
    threads = str(torch.get_num_threads())
    options = ["--seconds", "0.01", "--blocks", "1", "--eager", "--threads", threads]
    monkeypatch.setattr(sys, "argv", ["torch_peer", "--model", str(tiny_model), *options])
    torch_peer.main()
    fields = json.loads(capsys.readouterr().out)
    assert fields["decode_tokens_per_s"] > 0
    assert fields["learn_eager_tokens_per_s"] > 0
    assert "learn_compiled_tokens_per_s" not in fields
