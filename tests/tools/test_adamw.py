"""The peer of the learner starts from the same score, and learns."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from edgelm.engine.ort_session import OrtSession  # noqa: E402
from edgelm.export.step import build_graph  # noqa: E402
from edgelm.measure.score import score_text  # noqa: E402
from edgelm.model import hub  # noqa: E402
from edgelm.text.tokenizer import DOC_LINE  # noqa: E402
from tests.model_folder import TEXT  # noqa: E402
from tools.measure import adamw  # noqa: E402

pytestmark = pytest.mark.jit_only
LINE = "The ferry leaves the island at seven in the morning.\n"


@pytest.fixture
def loaded(tiny_model: Path) -> hub.Model:
    return hub.load(str(tiny_model))


@pytest.mark.parametrize("text", [TEXT, TEXT * 3, f"{DOC_LINE}\n{TEXT}{DOC_LINE}\n{DOC_LINE}\n{LINE}{DOC_LINE}\n"])
def test_static_score_is_that_of_edgelm(loaded: hub.Model, text: str) -> None:
    expected = score_text(OrtSession(build_graph(loaded.config), loaded.weights), loaded.tokenizer, loaded.config, text)
    found = adamw.score(adamw.twin(loaded), loaded.tokenizer, text)
    assert found == pytest.approx(expected.bits_per_byte, rel=1e-5)


@pytest.mark.parametrize("window", [7, 32])
def test_adapting_lowers_the_bits_of_a_repetitive_text(loaded: hub.Model, window: int) -> None:
    made = adamw.twin(loaded)
    before = {name: p.detach().clone() for name, p in made.named_parameters()}
    speed = adamw.adapt(made, loaded.tokenizer.encode(LINE * 20), 3e-3, window)
    assert speed > 0
    assert [name for name, p in made.named_parameters() if torch.equal(p, before[name])] == []
    assert adamw.score(made, loaded.tokenizer, LINE * 3) < 0.7 * adamw.score(adamw.twin(loaded), loaded.tokenizer, LINE)


def test_the_text_is_cut_at_a_line_end() -> None:
    assert adamw.split("one\ntwo\nthree\n", 0.5) == ("one\ntwo", "three\n")
    with pytest.raises(SystemExit, match="no line ends"):
        adamw.split("one\ntwo", 0.8)


def test_rows(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "ferry.txt"
    path.write_text(LINE * 20, encoding="utf-8")
    argv = ["adamw", str(path), "--model", str(tiny_model), "--lr", "0", "1e-3", "--bytes", "800"]
    monkeypatch.setattr(sys, "argv", [*argv, "--json"])
    adamw.main()
    idle, learned = map(json.loads, capsys.readouterr().out.splitlines())
    assert idle["gain"] == idle["general_change"] == 0
    assert learned["before"] == idle["before"] > learned["after"]
    monkeypatch.setattr(sys, "argv", argv)
    adamw.main()
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [row.split(" | ")[:2] for row in rows] == [["| ferry", "0"], ["| ferry", "0.001"]]
