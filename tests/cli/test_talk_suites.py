"""``evaluate --suite recall`` and ``--suite point``."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import Cli

PAIRS = [(f"I saw {n} birds today", f"{n} birds, how nice!") for n in range(24)]


def test_the_command_prints_its_fields(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(json.dumps({"said": said, "reply": reply}) for said, reply in PAIRS))
    fields = cli("evaluate", "--suite", "point", path, "--json").json
    assert fields["suite"] == "point"
    assert fields["pairs"] == 24


def test_the_command_says_what_it_lacks(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "facts.jsonl"
    path.write_text("nothing\n")
    result = cli("evaluate", "--suite", "recall", path)
    assert result.code == 1
    assert "line 1" in result.stderr
    assert cli("evaluate", "--suite", "point").code == 2
