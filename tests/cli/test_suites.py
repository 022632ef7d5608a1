"""``evaluate --suite``: the measures of learning, in a throw-away copy of the profile."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgelm.measure.facts import made_up
from tests.cli.conftest import Cli
from tests.command import assert_one_line
from tests.model_folder import TEXT, contents


@pytest.mark.jit_only
@pytest.mark.parametrize("suite", ["facts", "correction"])
def test_suites_of_facts(cli: Cli, home: Path, tmp_path: Path, suite: str) -> None:
    cli("chat", "--json", "--max-tokens", "1", input="The harbour sleeps.\n")
    before, file = contents(home), tmp_path / "facts.jsonl"
    lines = [json.dumps({**fact.__dict__, "others": list(fact.others)}) for fact in made_up(45, 3)]
    file.write_text("\n".join(lines), encoding="utf-8")
    fields = cli("evaluate", "--suite", suite, file, "--json").json
    assert fields["suite"] == suite
    assert contents(home) == before
    # Even the tiny model, which knows no English, has the words told by heart.
    assert fields["in_words"] >= 0.9
    if suite == "facts":
        assert fields["facts"] == 45
        assert 0 <= fields["parroting"] <= 1
    else:
        assert fields["corrected"] == 40
        assert set(fields["disturbed"]) == {"in_words", "as_reply"}


@pytest.mark.jit_only
def test_suites_of_texts(cli: Cli, home: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text(TEXT * 12, encoding="utf-8")
    author = cli("evaluate", "--suite", "author", file, "--json").json
    assert author["bits_per_byte_after"] < author["bits_per_byte_before"]
    assert author["gain"] == pytest.approx(1 - author["bits_per_byte_after"] / author["bits_per_byte_before"], abs=1e-3)
    suggest = cli("evaluate", "--suite", "suggest", file, "--json").json
    assert suggest["after"]["first_three"] >= suggest["before"]["first_three"]
    forgetting = cli("evaluate", "--suite", "forgetting", file, file, "--json").json
    assert [row["path"] for row in forgetting["files"]] == [str(file)] * 2
    assert forgetting["files"][0]["tokens"] > 0
    assert not home.exists()


@pytest.mark.parametrize("suite", ["author", "forgetting", "suggest"])
def test_a_suite_of_texts_needs_one(cli: Cli, suite: str) -> None:
    assert "PATH" in assert_one_line(cli("evaluate", "--suite", suite), 2)
