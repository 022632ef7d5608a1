"""A model of other layers is trained, released and learns, and no tool knows of it."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from edgelm.cells.retention.paper import Retention  # noqa: E402
from edgelm.cells.top_k_ffn.paper import TopKFfn  # noqa: E402
from edgelm.config import LearnConfig  # noqa: E402
from edgelm.engine.opening import open_session  # noqa: E402
from edgelm.learn.learner import Learner  # noqa: E402
from edgelm.model import hub  # noqa: E402
from edgelm.model.reference import forward  # noqa: E402
from edgelm.model.state import empty_state  # noqa: E402
from tests.tiny import tiny_config  # noqa: E402
from tests.tools.test_train import read_log  # noqa: E402
from tests.tools.tiny_run import CONFIG  # noqa: E402
from tools.pretrain import release  # noqa: E402

pytestmark = pytest.mark.jit_only


SHAPES = {
    "retention": dataclasses.replace(CONFIG, mixer=Retention(CONFIG.d_model, CONFIG.norm_eps, 2, 8, 16)),
    "top_k_ffn": dataclasses.replace(CONFIG, ffn=TopKFfn(CONFIG.d_model, CONFIG.norm_eps, 8, 32, 2, 32)),
    "rwkv7": tiny_config("rwkv7", vocab_size=CONFIG.vocab_size, d_model=CONFIG.d_model),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_trained_model_is_released_answers_and_learns(
    shape: str,
    make_trainer: Callable[..., Any],
    train: Callable[..., None],
    tokenizer_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = SHAPES[shape]
    trainer = make_trainer(tmp_path / "run", config=config, target_awake=1.0 if shape == "rwkv7" else 0.4)
    train(trainer)
    losses = [row["loss_nats"] for row in read_log(tmp_path / "run")]
    assert losses[-1] < losses[0] - (0.2 if shape == "top_k_ffn" else 0.3), losses

    places = [tmp_path / "run", tokenizer_file.parent, tokenizer_file, tmp_path / "model"]
    monkeypatch.setattr(sys, "argv", ["release", *map(str, places), "--name", shape, "--rms-tokens", "400"])
    release.main()
    model = hub.load(str(tmp_path / "model"))
    assert model.config == config
    ids = np.random.default_rng(0).integers(1, config.vocab_size, 40)
    expected, _, _ = forward(ids, model.weights, empty_state(config), config)
    for precision, bound in (("float32", 1e-5), ("int8", 0.06)):
        found = open_session(model, 1, precision).run(ids, 0)
        assert np.abs(found - expected).mean() < bound * expected.std()

    base = {name: array.copy() for name, array in model.adaptable.items()}
    learner = Learner(config, dict(model.weights), base, model.grad_rms, LearnConfig())
    first = learner.learn(ids).mean()
    for _ in range(3):
        learner.learn(ids)
    assert learner.score(ids).mean() < first
