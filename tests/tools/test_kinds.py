"""Kinds of turns are learned from turns whose kind is given."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs PyTorch")

from edgelm.memory.kinds import Bags, Kinds, bags, read_kinds  # noqa: E402
from edgelm.memory.meaning import Meaning  # noqa: E402
from edgelm.model import tensorfile  # noqa: E402
from tools.pretrain import kinds as module  # noqa: E402
from tools.pretrain.kinds import Net, read_labelled, tensors_of, train  # noqa: E402

KINDS = "loss\tsad\t\tI am sorry.\ngain\tglad\t\tWell done.\n"
WON = ["we won the match", "I won a prize today", "my son won the race", "our team won again"]
LOST = ["we lost the match", "I lost my keys today", "my son lost his hat", "our team lost again"]


@pytest.fixture(scope="module")
def meaning() -> Meaning:
    return Meaning()


def _allowed(labels: list[int], n_kinds: int) -> np.ndarray:
    return np.eye(n_kinds + 1, dtype=bool)[labels]


def labelled(times: int = 40) -> list[tuple[str, int]]:
    return [(f"{turn} {n}", label) for n in range(times) for label, turns in enumerate((LOST, WON)) for turn in turns]


def test_what_is_learned_is_what_is_read(meaning: Meaning) -> None:
    torch.manual_seed(0)
    rows = labelled()
    found = bags(meaning, [turn for turn, _ in rows], 4000)
    net = Net(meaning, 2, n_words=4000, width=16)
    train(net, found, _allowed([label for _, label in rows], 2), epochs=60)
    shipped = Kinds(read_kinds(KINDS), tensors_of(net))
    asked = ["I won the race", "I lost the race", "our cat lost a tooth"]
    chances = shipped.chances(meaning, asked)
    assert chances.argmax(1).tolist() == [1, 0, 0] and np.allclose(chances.sum(1), 1, atol=1e-5)
    with torch.no_grad():
        exact = torch.softmax(net(Bags(*bags(meaning, asked, 4000))), 1).numpy()
    assert np.allclose(chances, exact, atol=0.02)  # int8


def test_a_turn_of_a_broad_kind_may_be_of_a_finer_one(meaning: Meaning, tmp_path: Path) -> None:
    """What is marked with the broad kind alone teaches nothing against the finer one that its words tell, unless it is
    said that it is not of that."""
    torch.manual_seed(0)
    kinds = read_kinds(KINDS + "match-lost\tsad\tloss\tA pity about the match.\n")
    match, other = ["we lost the match", "our team lost again"], ["I lost my keys today", "my son lost his hat"]
    lines = [f"{turn} {n}\tmatch-lost" for n in range(40) for turn in match]
    lines += [f"{turn} {n}\tloss" for n in range(40) for turn in match]
    lines += [f"{turn} {n}\tloss\tmatch-lost" for n in range(40) for turn in other]
    lines += [f"{turn} {n}\tgain" for n in range(40) for turn in WON]
    rows = read_labelled(_written(tmp_path / "turns.tsv", "\n".join(lines)), kinds)
    net = Net(meaning, 3, n_words=4000, width=16)
    train(net, bags(meaning, [turn for turn, _ in rows], 4000), np.array([allowed for _, allowed in rows]), epochs=60)
    shipped = Kinds(kinds, tensors_of(net))
    chances = shipped.chances(meaning, [*match, *other])
    assert (chances[:2, 2] > 0.5).all() and (chances[2:, 0] > 0.5).all()
    assert (shipped.broad(chances)[:, 0] > 0.8).all() and not shipped.broad(chances)[:, 2].any()


def test_the_command_writes_a_file_that_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("loss", "gain")
    (tmp_path / "kinds.tsv").write_text(KINDS)
    (tmp_path / "turns.tsv").write_text("".join(f"{turn}\t{names[label]}\n" for turn, label in labelled(20)))
    out = tmp_path / "kinds.safetensors"
    monkeypatch.setattr(module, "EPOCHS", 1)
    monkeypatch.setattr(
        sys, "argv", ["kinds", str(tmp_path / "turns.tsv"), "--out", str(out), "--kinds", str(tmp_path / "kinds.tsv")]
    )
    module.main()
    said = json.loads(capsys.readouterr().out)
    assert said["turns"] == 160 and 0 < said["held_out"] < 30 and said["bytes"] == out.stat().st_size
    tensors, metadata = tensorfile.read(out)
    assert metadata["kind"] == "edgelm kinds" and tensors["out"].shape == (3, module.WIDTH)


@pytest.mark.parametrize(
    "line", ["no tab", "a turn\tnothing like it", "\tloss\tgain\tx", "a turn\tloss\tluck", "a turn\tloss\tloss"]
)
def test_a_line_without_a_kind_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "turns.tsv").write_text(f"my dog died\tloss\n{line}\n")
    with pytest.raises(ValueError, match=r"line 2: (?:not a turn, a tab and a kind|it may be nothing)"):
        read_labelled(tmp_path / "turns.tsv", read_kinds(KINDS))
    [(turn, allowed)] = read_labelled(_written(tmp_path / "fine.tsv", "x y\tnone\n"), read_kinds(KINDS))
    assert turn == "x y" and allowed.tolist() == [False, False, True]
    rows = read_labelled(_written(tmp_path / "any.tsv", "x y\t*\tloss\nx\tloss none\n"), read_kinds(KINDS))
    assert [allowed.tolist() for _, allowed in rows] == [[False, True, True], [True, False, True]]


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path
