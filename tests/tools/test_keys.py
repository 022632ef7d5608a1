"""What heads write with: rank, cosine and strength, against what is known of made-up keys."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from edgelm.bench.peers.twins import (  # noqa: E402
    chunked,
    functions,
    model,
)
from edgelm.model.config import ModelConfig  # noqa: E402
from tools.pretrain import keys  # noqa: E402

CONFIG = ModelConfig.flat(40, 64, 2, 2, 8, 16, 32, 8, 16, 8, 16)


def test_rank_and_cosine_of_keys_that_are_known() -> None:
    basis = torch.eye(8)[torch.arange(64) % 4]  # four directions, as often each
    one = torch.eye(8)[torch.zeros(64, dtype=torch.long)]
    both = torch.stack([basis, one], 1)
    np.testing.assert_allclose(keys.effective_rank(both), [4, 1], rtol=1e-4)
    np.testing.assert_allclose(keys.mean_cosine(both), [15 / 63, 1], rtol=1e-4)


def test_a_row_for_each_head_of_each_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functions, "recurrences", lambda x: chunked)
    torch.manual_seed(0)
    made = model.Model(CONFIG)
    rows = keys.key_statistics(made, torch.randint(1, CONFIG.vocab_size, (3, 50)))
    assert [(row["layer"], row["head"]) for row in rows] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    for row in rows:
        assert 1 <= row["key_rank"] <= 8 and abs(row["key_cosine"]) < 1
        assert 0.05 < row["beta"] < 0.3  # writes are rare at the start
    assert set(rows[0]) | {"step"} == set(keys.KEY_FIELDS)


def test_the_log_of_a_run_holds_them(make_trainer: Callable[..., Any], tmp_path: Path) -> None:
    from tools.pretrain.log import Log

    trainer = make_trainer(tmp_path)
    with Log(trainer) as log:
        row = trainer.train_step()
        trainer.step = 250
        log.add(row)
    with (tmp_path / "keys.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == trainer.plan.config.n_layers * trainer.plan.config.mixer.n_heads
    assert {row["step"] for row in rows} == {"250"}
