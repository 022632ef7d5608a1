"""``bench``: its fields, its options, and that it leaves no trace."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from edgelm.bench.process import Commands
from edgelm.cli.bench import _measured_engines, table
from tests.cli.conftest import Cli
from tests.command import assert_one_line
from tests.model_folder import TEXT, contents

CHOICE = "engines.json"
"""What the choice of an engine leaves in the data folder."""
BENCH = ("bench", "--seconds", "0.01")
FIELDS = {
    "decode_tokens_per_s", "prefill_tokens_per_s", "learn_tokens_per_s", "decode_while_learning_tokens_per_s",
    "first_token_ms", "rss_mb", "learn_rss_mb", "awake_fraction", "bytes_per_token", "bandwidth_gb_s",
    "roofline_ratio", "state_bytes", "position_ratio", "forward_tokens_per_s", "learn_over_forward", "overhead_ms",
    "threads", "cpu", "versions", "variants", "ranges", "rounds", "engine", "engine_why", "engine_without_learning",
    "decode_kernels_tokens_per_s", "decode_onnx_tokens_per_s", "prefill_kernels_tokens_per_s",
    "prefill_onnx_tokens_per_s", "decode_vs_onnx", "prefill_vs_onnx", "decode_fixed_tokens_per_s",
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_engine_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGELM_ENGINE", raising=False)


@pytest.fixture
def no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """New processes take a while, and one test of them will do."""
    monkeypatch.setattr(Commands, "first_token_ms", lambda self: [3.0, 1.0, 2.0])
    monkeypatch.setattr(Commands, "chat_rss_mb", lambda self, *, learn: 200.0 if learn else 100.0)


@pytest.mark.jit_only
def test_all_is_measured_and_the_profile_stays(cli: Cli, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgelm.bench.process.STARTS", 1)
    cli("adapt", "-", input=TEXT)
    # With compiled kernels the engine was chosen by then.
    (home / CHOICE).unlink(missing_ok=True)
    before = contents(home)
    result = cli(*BENCH, "--json")
    fields = result.json
    assert fields.keys() >= FIELDS
    assert result.stdout.count("\n") == 1
    assert contents(home).keys() - before.keys() <= {home / CHOICE}
    assert {path: kept for path, kept in contents(home).items() if path.name != CHOICE} == before
    numbers = {name: value for name, value in fields.items() if isinstance(value, int | float)}
    assert min(numbers.values()) > 0
    assert fields["awake_fraction"] <= 1
    # Both are processes that run Python with numpy and more; the one that learns has its kernels, too.
    assert 10 < fields["rss_mb"] < fields["learn_rss_mb"] < 4000
    for name, (low, high) in fields["ranges"].items():
        assert low <= fields[name] <= high
    assert [row["name"] for row in fields["variants"]] == ["kernels", "float32", "int8", "int4", "fixed"]
    assert fields["engine_why"].startswith("measured here")
    assert fields["decode_tokens_per_s"] == fields[f"decode_{fields['engine']}_tokens_per_s"]
    # Nothing is compiled for a command that does not learn.
    assert fields["engine_without_learning"] == ("onnx" if fields["kernels"] == "jit" else fields["engine"])


@pytest.mark.jit_only
@pytest.mark.usefixtures("no_processes")
@pytest.mark.parametrize(("engine", "other"), [("kernels", "onnx"), ("onnx", "kernels")])
def test_an_engine_that_is_asked_for(cli: Cli, home: Path, engine: str, other: str) -> None:
    fields = cli(*BENCH, "--json", "--engine", engine).json
    assert (fields["engine"], fields["engine_without_learning"], fields["engine_why"]) == (engine, engine, "asked for")
    assert f"decode_{engine}_tokens_per_s" in fields
    assert f"decode_{other}_tokens_per_s" not in fields
    assert not home.exists()


@pytest.mark.jit_only
@pytest.mark.usefixtures("no_processes")
def test_an_engine_of_the_environment_answers_and_both_are_measured(
    cli: Cli, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGELM_ENGINE", "onnx")
    fields = cli(*BENCH, "--json").json
    assert fields["engine"] == "onnx"
    assert fields["decode_tokens_per_s"] == fields["decode_onnx_tokens_per_s"]
    assert fields["decode_vs_onnx"] > 0


def test_kernels_in_plain_python_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGELM_KERNELS", "python")
    assert _measured_engines(None, "onnx") == ("onnx",)
    assert _measured_engines(None, "kernels") == ("kernels", "onnx")
    assert _measured_engines("kernels", "kernels") == ("kernels",)


def test_results_of_one_engine_are_shown_too() -> None:
    path = Path(__file__).parents[2] / "docs" / "benchmarks" / "cloud-2-cores.json"
    fields = json.loads(path.read_text(encoding="utf-8"))
    old = {name: value for name, value in fields.items() if "kernels_" not in name and "onnx" not in name}
    shown = table({name: value for name, value in old.items() if not name.startswith("engine")})
    assert "answers in int8\n" in shown
    assert "decode, onnx, fixed" in shown
    assert "decode, kernels" not in shown
    assert "answers in int8 by onnx\n" in table(old | {"engine": "onnx"})


@pytest.mark.jit_only
@pytest.mark.usefixtures("no_processes")
def test_fewer_blocks(cli: Cli, home: Path) -> None:
    few, all_ = (cli(*BENCH, "--json", "--blocks", n).json for n in (1, 4))
    assert (few["blocks"], all_["blocks"]) == (1, 4)
    assert few["awake_fraction"] < all_["awake_fraction"]
    assert few["bytes_per_token"] < all_["bytes_per_token"]
    assert [path.name for path in home.iterdir()] == [CHOICE]


@pytest.mark.jit_only
@pytest.mark.usefixtures("no_processes")
def test_no_profile_is_read(cli: Cli, home: Path) -> None:
    (home / "profiles").mkdir(parents=True)
    (home / "profiles" / "default.db").write_text("no profile at all")
    before = contents(home)
    assert cli(*BENCH, "--json").json.keys() >= FIELDS
    assert contents(home).keys() - before.keys() <= {home / CHOICE}
    assert {path: kept for path, kept in contents(home).items() if path.name != CHOICE} == before


@pytest.mark.jit_only
@pytest.mark.usefixtures("no_processes")
def test_table_and_what_a_peer_lacks(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("torch", "llama_cpp"):
        monkeypatch.setitem(sys.modules, package, None)
    result = cli(*BENCH, "--compare", "torch, llama-cpp", "--threads", "2")
    assert result.code == 0
    torch_line, llama_line = result.stderr.splitlines()
    assert torch_line == "no comparison with torch: torch is not installed"
    assert llama_line == "no comparison with llama-cpp: llama_cpp is not installed"
    rows = {line[:24].strip(): line[24:].split() for line in result.stdout.splitlines()}
    assert rows["first token"] == ["2.0", "ms", "1.0", "to", "3.0"]
    assert rows["memory, learning"] == ["200.0", "MB"]
    assert "2 threads" in result.stdout
    assert all(line == line.rstrip() for line in result.stdout.splitlines())


@pytest.mark.jit_only
@pytest.mark.usefixtures("no_processes")
def test_peers(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = {}

    def run(peer: str, arguments: list[str]) -> dict[str, float]:
        asked[peer] = arguments
        return {"decode_tokens_per_s": 0.5}

    monkeypatch.setattr("edgelm.cli.bench.lacking", lambda peer: "")
    monkeypatch.setattr("edgelm.cli.bench.run_peer", run)
    result = cli(*BENCH, "--compare", "llama-cpp,torch", "--json", "--blocks", "1")
    assert result.stderr == "no comparison with llama-cpp: it needs a model, --gguf PATH\n"
    assert result.json["decode_vs_torch"] == round(2 * result.json["decode_tokens_per_s"], 3)
    assert "--blocks 1 --seconds 0.01 --threads 1" in " ".join(asked.pop("torch"))
    path = tmp_path / "model.gguf"
    path.touch()
    result = cli(*BENCH, "--compare", "llama-cpp", "--gguf", path)
    assert "decode vs llama cpp" in result.stdout
    assert asked == {"llama-cpp": ["--gguf", str(path), "--seconds", "0.01", "--threads", "1"]}


@pytest.mark.parametrize(
    "args",
    [
        ["--blocks", "0"],
        ["--blocks", "few"],
        ["--compare", "torch,tensor"],
        ["--seconds", "0"],
        ["--seconds", "-1"],
        ["--seconds", "nan"],
        ["--gguf", "/nowhere.gguf"],
        ["--threads", "0"],
        ["TEXT"],
    ],
)
def test_wrong_usage(cli: Cli, args: list[str], home: Path) -> None:
    assert "edgelm bench --help" in assert_one_line(cli("bench", *args), code=2)
    assert not home.exists()


def test_more_blocks_than_there_are(cli: Cli) -> None:
    assert "between 1 and 4" in assert_one_line(cli("bench", "--blocks", "5"))
