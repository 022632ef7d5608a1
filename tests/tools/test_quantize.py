"""The table of precisions."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from edgelm.model import hub
from tests.model_folder import TEXT
from tools.measure import quantize


def test_a_row_for_each_precision(tiny_model: Path) -> None:
    rows = quantize.measure(hub.load(str(tiny_model)), [TEXT, TEXT[:300]])
    assert [row["precision"] for row in rows] == [
        "float32", "int8", "int4", "int4, embedding int8", "ternary, embedding int8",
    ]  # fmt: skip
    assert rows[0]["change"] == [0, 0] and rows[0]["max_abs_error"] == 0
    assert all(len(row["bits_per_byte"]) == 2 and min(row["bits_per_byte"]) > 0 for row in rows)
    assert all(0 < row["max_abs_error"] < 4 for row in rows[1:])
    assert abs(rows[1]["change"][0]) < 0.01
    assert rows[0]["graph_bytes"] > rows[1]["graph_bytes"] > rows[3]["graph_bytes"] > rows[2]["graph_bytes"]


def test_the_command(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    words = ["quantize", str(tmp_path / "text.txt"), "--model", str(tiny_model), "--bytes", "200"]
    monkeypatch.setattr(sys, "argv", words)
    quantize.main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len(quantize.ROWS) and "text" in lines[0]
    monkeypatch.setattr(sys, "argv", [*words, "--json"])
    quantize.main()
    assert len(json.loads(capsys.readouterr().out)["rows"]) == len(quantize.ROWS)
