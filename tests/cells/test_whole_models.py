"""A model with any mixer is a whole model: it answers in both precisions, learns, and a log has one outcome."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgelm.engine.opening import open_session
from edgelm.log.entry import CHAT, FIX
from edgelm.model import hub
from edgelm.model.reference import forward
from edgelm.model.state import empty_state
from tests.learn.acts import DAY, close, open_adaptation, perform
from tests.model_folder import write_tiny_model
from tests.tiny import MIXERS, random_ids

pytestmark = [pytest.mark.jit_only, pytest.mark.parametrize("mixer", MIXERS)]


@pytest.fixture
def folder(tmp_path: Path, mixer: str) -> Path:
    return write_tiny_model(tmp_path / "model", mixer=mixer)


@pytest.mark.parametrize(("precision", "bound"), [("float32", 1e-5), ("int8", 0.06)])
def test_it_answers(folder: Path, precision: str, bound: float) -> None:
    model = hub.load(str(folder))
    ids = random_ids(model.config, 50)
    expected, _, _ = forward(ids, model.weights, empty_state(model.config), model.config)
    session = open_session(model, 1, precision)
    at_once = session.run(ids, 0).copy()
    session.reset()
    one_by_one = np.concatenate([session.run(ids[i : i + 1]).copy() for i in range(len(ids))])
    for found in (at_once, one_by_one):
        assert np.abs(found - expected).mean() < bound * expected.std()


def test_it_learns_and_a_log_has_one_outcome(folder: Path, tmp_path: Path) -> None:
    adaptation = open_adaptation(folder, tmp_path / "profiles")
    entry = adaptation.tell(CHAT, "The ferry leaves at seven.", conversation=9)
    learned = adaptation.learn(entry, report=True)
    assert learned is not None and learned.loss_after < learned.loss_before
    perform(adaptation, DAY)
    assert FIX in {entry.kind for entry in adaptation.entries}
    close(adaptation)
    for path in (tmp_path / "profiles").glob("me.weights-*"):
        path.unlink()
    again = open_adaptation(folder, tmp_path / "profiles")
    again.catch_up()
    assert again.sha256 == adaptation.sha256
    close(again)
