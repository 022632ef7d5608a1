"""The README's tree and the figures that it quotes, against what they are quoted from."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from edgelm.model import hub
from tests.command import ROOT
from tests.model_folder import contents

README = (ROOT / "README.md").read_text(encoding="utf-8")
WORDS = " ".join(README.split())
BUNDLED = hub.BUNDLED / hub.DEFAULT
CARD = (BUNDLED / "README.md").read_text(encoding="utf-8")
FOLDER = re.compile(r"(?:^|  )((?:edgelm|tools|tests|docs|ports)(?:/\w+)*)  ", re.MULTILINE)


def _tree() -> str:
    """The block under the heading ``Layout``."""
    found = re.search(r"^## Layout\n+```\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def _rooms(folder: str) -> set[str]:
    """Packages of Python right under a folder."""
    return {path.parent.name for path in (ROOT / folder).glob("*/__init__.py")}


def test_what_the_tree_names_exists() -> None:
    named = FOLDER.findall(_tree())
    assert len(named) == len(set(named)) > 10
    assert [name for name in named if not (ROOT / name).is_dir()] == []


def test_the_tree_names_every_room() -> None:
    assert {name for name in FOLDER.findall(_tree()) if name.startswith("edgelm/")} == {
        f"edgelm/{room}" for room in _rooms("edgelm")
    }
    assert [room for room in _rooms("tools") if not re.search(rf"\b{room}\b", _tree())] == []


def test_the_size_of_the_model() -> None:
    model = hub.load()
    millions = f"{sum(array.size for array in model.weights.values()) / 1e6:.1f}"
    read = [contents(BUNDLED)[BUNDLED / name] for name in (*hub.FILES, "config.json")]
    megabytes, tokens = f"{sum(map(len, read)) / 1e6:.1f}", round(model.card["tokens"] / 1e6)
    assert f"{millions} million parameters, {megabytes} MB" in WORDS
    assert f"trained from nothing on {tokens} million tokens" in WORDS
    assert f"{model.name}, {millions} M parameters." in README
    assert f"blocks of {model.config.ffn.block_size} neurons" in WORDS


def test_the_bank() -> None:
    with gzip.open(ROOT / "edgelm" / "models" / "talk" / "bank.tsv.gz", "rt", encoding="utf-8") as lines:
        assert f"a bank of {sum(1 for _ in lines):,} exchanges" in WORDS


def test_bits_per_byte_are_those_of_the_card() -> None:
    row = re.compile(r"^\| ([^|]*\(`\w+`\)) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|", re.MULTILINE)
    of_card = {file: figures for name, *figures in row.findall(CARD) for file in re.findall(r"`(\w+)`", name)}
    quoted = {file: figures for name, *figures in row.findall(README) for file in re.findall(r"`(\w+)`", name)}
    assert len(quoted) == 4
    assert quoted == {file: of_card[file] for file in quoted}
    awake = re.search(r"(\d+) % of its feed-forward neurons are awake for a token", WORDS)
    assert awake is not None
    assert awake[0] in " ".join(CARD.split())


def test_what_is_recalled_is_what_the_pages_say() -> None:
    page = " ".join((ROOT / "docs" / "adapting.md").read_text(encoding="utf-8").split())
    right = re.search(
        r"Of 100 things told .*?, (\d+) written answers hold the right word, (\d+) asserts? something", WORDS
    )
    assert right is not None
    assert f"{right[1]} written answers hold the right word" in page
    assert f"{right[2]} asserts anything else" in page
    less = re.search(r"What it read 256 tokens ago costs it (\d+) % less", WORDS)
    assert less is not None
    assert f"{less[1]} % after 256" in CARD


@pytest.fixture(scope="module")
def bench() -> dict[str, Any]:
    """What ``edgelm bench --json`` printed on the machine whose figures are quoted."""
    path: Path = ROOT / "docs" / "benchmarks" / "cloud-2-cores.json"
    fields: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return fields


@pytest.mark.parametrize(
    ("field", "quoted"),
    [
        ("decode_tokens_per_s", "{:,.0f} tokens a second in int8"),
        ("decode_onnx_tokens_per_s", "through ONNX Runtime {:,.0f}"),
        ("decode_while_learning_tokens_per_s", ", {:,.0f} while it learns"),
        ("learn_tokens_per_s", "It learns {:,.0f} tokens"),
        ("learn_vs_torch_eager", ", {:.1f} times PyTorch eager"),
    ],
)
def test_speeds_are_those_of_the_benchmark(bench: dict[str, Any], field: str, quoted: str) -> None:
    assert quoted.format(bench[field]) in WORDS


def test_the_wheel_is_that_of_its_benchmark() -> None:
    path = ROOT / "docs" / "benchmarks" / "cloud-2-cores-wheel.json"
    wheel = json.loads(path.read_text(encoding="utf-8"))
    speeds = "{decode_tokens_per_s:,.0f}, {decode_while_learning_tokens_per_s:,.0f}".format_map(wheel)
    assert f"with compiled kernels {speeds} and {wheel['first_token_ms'] / 1e3:.2f} s" in WORDS


def test_the_first_token_is_that_of_the_benchmark(bench: dict[str, Any]) -> None:
    assert f"first token after {bench['first_token_ms'] / 1e3:.2f} s" in WORDS
