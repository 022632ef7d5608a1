"""What a benchmark counts is what is there; nothing is said here about how long anything takes."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgelm.bench import process, report
from edgelm.bench.limit import bytes_per_token, narrow, read_rate, weights_per_token
from edgelm.bench.process import Commands, lacking, run_peer
from edgelm.bench.speed import EARLY, LATE, Speeds
from edgelm.bench.timing import medians, rate
from edgelm.bench.variants import GRAPHS, variants
from edgelm.engine.choice import ENGINES
from edgelm.engine.kernel_session import KernelSession
from edgelm.engine.opening import open_session
from edgelm.errors import EdgelmError
from edgelm.export.step import build_graph, weight_bytes
from edgelm.kernels.stream import read_words
from edgelm.matrices.quantize import PRECISIONS
from edgelm.model.config import ModelConfig
from edgelm.model.weights import random_weights, shapes
from edgelm.ports import cpu_name
from edgelm.runtime import Engine, EngineOptions
from tests.tiny import MIXERS, tiny_config

PACKABLE = ModelConfig.flat(
    vocab_size=100, d_model=32, n_layers=2, n_heads=2, key_dim=4, value_dim=16, slope_dim=32, n_channels=4,
    n_blocks=6, block_size=32, max_awake=3, shared_size=64,
)  # fmt: skip


@pytest.fixture(autouse=True)
def no_engine_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGELM_ENGINE", raising=False)


@pytest.fixture
def engine(tiny_model: Path, home: Path) -> Engine:
    """An engine that answers by ONNX Runtime."""
    return Engine(EngineOptions(str(tiny_model), engine="onnx"))


def graph(config: ModelConfig, precision: str) -> onnx.GraphProto:
    weights = None if precision == "none" else random_weights(config, np.random.default_rng(0))
    return onnx.load_from_string(build_graph(config, weights, PRECISIONS[precision])).graph


# 5 of the 6 blocks of each layer could wake; 3.5 of 12 do.


def test_bytes_of_a_token_by_hand() -> None:
    mixer_in, conv = 32 * (32 + 2 * 2 * 4 + 32 + 64 + 2 * 2), (32 + 16 + 32) * 4
    small = 32 + 2 + 2 + 1 + 2 + 16 + 32 + 6 + 6
    mixer_out, router, shared, block = 64 * 32, 32 * 6, 2 * 32 * 64, 2 * 32 * 32
    head, row, final_norm = 100 * 32, 32, 32
    state = 4 + 2 * (32 + 3 * 80 + 2 * 4 * 16)
    matrices = 2 * (mixer_in + mixer_out + shared) + 3.5 * block + head + row
    others = 2 * (conv + small + router) + final_norm
    assert weights_per_token(PACKABLE, 3.5) == 4 * (matrices + others)
    assert bytes_per_token(PACKABLE, 3.5) == 4 * (matrices + others) + 2 * 4 * state
    # A float32 scale for every 32 numbers.
    assert weights_per_token(PACKABLE, 3.5, PRECISIONS["int8"]) == matrices * (1 + 4 / 32) + 4 * others
    assert bytes_per_token(PACKABLE, 3.5, PRECISIONS["int8"]) == matrices * (1 + 4 / 32) + 4 * others + 2 * 4 * state


def test_fewer_blocks_are_fewer_bytes() -> None:
    sizes = [bytes_per_token(PACKABLE, pairs, PRECISIONS["int8"]) for pairs in (0, 1, 6)]
    assert sizes[0] < sizes[1] < sizes[2]


@pytest.mark.parametrize("config", [PACKABLE, *map(tiny_config, MIXERS)])
@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_weight_bytes_are_those_of_the_graph(config: ModelConfig, precision: str) -> None:
    found: Counter[str] = Counter()
    for tensor in graph(config, precision).initializer:
        name = tensor.name.removesuffix(".q").removesuffix(".scale").removesuffix(".zero_point")
        if name in shapes(config):
            # Scales are float16 in the file and float32 once it is loaded.
            wider = 2 if tensor.name.endswith(".scale") else 1
            found[name] += onnx.numpy_helper.to_array(tensor).nbytes * wider
    expected = weight_bytes(config, PRECISIONS[precision])
    # Rates are kept in the graph ready-made.
    assert found == {name: n for name, n in expected.items() if ".decay_" not in name or "bias" in name}
    declared = {
        item.name: [d.dim_value for d in item.type.tensor_type.shape.dim] for item in graph(config, "none").input
    }
    assert weight_bytes(config) == {name: 4 * int(np.prod(declared[name])) for name in shapes(config)}


@pytest.mark.parametrize("config", [PACKABLE, *map(tiny_config, MIXERS)])
@pytest.mark.parametrize("precision", ["none", "int8", "int4"])
def test_the_narrow_graph_has_the_same_nodes(config: ModelConfig, precision: str) -> None:
    tiny = narrow(config, PRECISIONS[precision])
    for small, large in ((tiny.mixer, config.mixer), (tiny.ffn, config.ffn)):
        kept = {name for name in large.sizes() if name.startswith("n_")} | {"max_awake"} & large.sizes().keys()
        assert {name: small.sizes()[name] for name in kept} == {name: large.sizes()[name] for name in kept}
    assert tiny.n_layers == config.n_layers
    if config is PACKABLE or precision == "none":
        assert [n.op_type for n in graph(tiny, precision).node] == [n.op_type for n in graph(config, precision).node]


@pytest.mark.parametrize("n_words", [1, 2, 7, 1000])
def test_every_word_is_read_every_time(n_words: int) -> None:
    words = np.random.default_rng(n_words).integers(0, 1 << 40, n_words)
    assert read_words(words, 3) == sum(int(word) ^ turn for turn in range(3) for word in words)


@pytest.mark.jit_only
@pytest.mark.parametrize("n_bytes", [1, 5_000, 10_000_000])
def test_read_rate(n_bytes: int) -> None:
    assert 0 < read_rate(n_bytes, 0.0) < float("inf")


def test_the_first_step_is_not_counted() -> None:
    calls: list[int] = []

    def step(done: int) -> int:
        calls.append(done)
        return 5

    assert rate(step, 0.0) > 0
    assert calls == [0, 0]
    assert rate(step, 1e-4) > 0
    assert calls[2:] == [0, *range(0, 5 * (len(calls) - 3), 5)]
    assert medians({"read": step}, 0.0).keys() == {"read_tokens_per_s"}


@pytest.fixture
def kernels(tiny_model: Path, home: Path) -> Engine:
    """An engine whose kernels answer."""
    return Engine(EngineOptions(str(tiny_model), engine="kernels"))


@pytest.mark.jit_only
@pytest.mark.parametrize("which", ["engine", "kernels"])
def test_measuring_leaves_the_weights_as_they_were(which: str, request: pytest.FixtureRequest) -> None:
    engine: Engine = request.getfixturevalue(which)
    before = {name: array.copy() for name, array in engine.weights.items()}
    learned: list[int] = []
    update = engine.adaptation.replay.learner._update
    engine.adaptation.replay.learner._update = lambda losses: (learned.append(len(losses)), update(losses))[1]  # type: ignore[method-assign]
    speeds = Speeds(engine, 1e-4, 1)
    assert not learned
    speeds.round()
    speeds.round()
    assert learned
    assert {len(values) for values in speeds.samples.values()} == {2}
    assert all(0 < value < float("inf") for values in speeds.samples.values() for value in values)
    assert EARLY < speeds.late_position <= LATE
    for name, array in engine.weights.items():
        np.testing.assert_array_equal(array, before[name])


def test_an_error_of_the_learning_thread_is_raised(engine: Engine) -> None:
    speeds = Speeds(engine, 1e-4, 1, ["onnx"])
    engine.weights["layers.0.ffn.w2"][:] = np.nan
    with pytest.raises(EdgelmError, match="loss nan"):
        speeds.slices["decode_while_learning"](1e-4)


def measured(engine: Engine, engines: Sequence[str]) -> Speeds:
    """Three rounds that took no time, and what they might have found."""
    speeds = Speeds(engine, 1e-4, 1, engines)
    for name in speeds.samples:
        speeds.samples[name] = [100.0, 400.0, 200.0]
    main = speeds.main
    speeds.samples |= {f"read_rate.{main}": [1e6, 3e6, 2e6], f"narrow.{main}": [1000.0] * 3, "learn": [50.0] * 3}
    return speeds


def check_limit(engine: Engine, speeds: Speeds, fields: dict[str, Any]) -> None:
    """The fields of the normal path are those of the variant that answers, and follow from its samples."""
    main = speeds.main
    pairs, precision = speeds.pairs_per_token[main], speeds.precisions[main]
    assert 0 < pairs <= engine.config.max_awake * engine.config.n_layers
    assert fields["bytes_per_token"] == bytes_per_token(engine.config, pairs, precision)
    expected = (fields["bytes_per_token"] / 3e6 + 1e-3) * 200
    assert fields["roofline_ratio"] == pytest.approx(expected, abs=1e-4)
    (chosen,) = (row for row in fields["variants"] if row["name"] == main)
    assert chosen.items() <= {**fields, "name": main}.items()


def test_figures_and_what_follows_from_them(engine: Engine) -> None:
    speeds = measured(engine, ["onnx"])
    assert speeds.main == engine.precision
    fields = report.speeds(engine, speeds)
    assert fields["decode_tokens_per_s"] == fields["forward_tokens_per_s"] == 200
    assert fields["decode_onnx_tokens_per_s"] == fields["prefill_onnx_tokens_per_s"] == 200
    assert fields["ranges"]["decode_tokens_per_s"] == [100, 400]
    assert fields["learn_over_forward"] == 4
    assert fields["position_ratio"] == 1
    check_limit(engine, speeds, fields)
    plain, int8, int4, fixed = fields["variants"]
    assert [row["name"] for row in fields["variants"]] == [*GRAPHS, "fixed"]
    assert fixed["decode_tokens_per_s"] == fields["decode_fixed_tokens_per_s"] == 200
    assert int8["bytes_per_token"] == bytes_per_token(engine.config, speeds.pairs_per_token["int8"], GRAPHS["int8"])
    assert int4["bytes_per_token"] < int8["bytes_per_token"] < plain["bytes_per_token"]
    assert not {name for name in fields if "kernels" in name or "_vs_" in name}


@pytest.mark.jit_only
def test_two_engines_side_by_side(kernels: Engine) -> None:
    speeds = measured(kernels, ENGINES)
    assert speeds.main == "kernels"
    speeds.samples |= {"decode.kernels": [900.0, 600.0, 600.0], "prefill.kernels": [500.0] * 3}
    speeds.samples |= {"decode.late": [900.0, 600.0, 600.0], "decode.int8": [250.0, 200.0, 150.0]}
    fields = report.speeds(kernels, speeds)
    assert fields["decode_tokens_per_s"] == fields["decode_kernels_tokens_per_s"] == 600
    assert fields["prefill_tokens_per_s"] == fields["prefill_kernels_tokens_per_s"] == 500
    assert (fields["decode_onnx_tokens_per_s"], fields["prefill_onnx_tokens_per_s"]) == (200, 200)
    assert (fields["decode_vs_onnx"], fields["prefill_vs_onnx"]) == (3, 2.5)
    assert fields["ranges"]["decode_onnx_tokens_per_s"] == [150, 250]
    rows = {row["name"]: row for row in fields["variants"]}
    assert list(rows) == ["kernels", *GRAPHS, "fixed"]
    assert rows["fixed"]["bytes_per_token"] == rows["int8"]["bytes_per_token"]
    # Both keep their integers and scales in as many bytes; what is awake differs by what was rounded, if at all.
    assert rows["kernels"]["bytes_per_token"] == pytest.approx(rows["int8"]["bytes_per_token"], rel=0.02)
    speeds.samples["decode.kernels"] = [200.0] * 3
    check_limit(kernels, speeds, report.speeds(kernels, speeds))


@pytest.mark.jit_only
def test_the_kernels_alone(kernels: Engine) -> None:
    speeds = measured(kernels, ["kernels"])
    assert not {name for name in speeds.slices if "int" in name or "float" in name or "fixed" in name}
    fields = report.speeds(kernels, speeds)
    assert [row["name"] for row in fields["variants"]] == ["kernels"]
    assert not {"decode_onnx_tokens_per_s", "decode_fixed_tokens_per_s", "decode_vs_onnx"} & fields.keys()
    check_limit(kernels, speeds, fields)
    theirs = {"decode_tokens_per_s": 100.0}
    assert report.against("torch", fields, theirs).keys() == {"torch", "decode_vs_torch"}


@pytest.mark.parametrize("choice", ["int8", "float32"])
def test_what_is_narrow_has_the_calls_of_what_answers(
    choice: str, kernels: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGELM_GRAPH", choice)
    found = variants(kernels, 1, ["kernels"])["kernels"]
    assert found.precision is PRECISIONS["none" if choice == "float32" else "int8"]
    wide = open_session(kernels.model, 1, choice, engine="kernels")
    assert isinstance(wide, KernelSession)
    assert isinstance(found.narrow, KernelSession)
    assert found.narrow.vocab_size < wide.vocab_size
    decoders = [session._decoder for session in (found.narrow, wide)]
    narrow_parts, wide_parts = ([type(part) for part in decoder._section.parts] for decoder in decoders)
    assert narrow_parts == wide_parts
    assert decoders[0].is_fused == decoders[1].is_fused == (choice == "int8")
    assert np.isfinite(found.narrow.run(np.array([1]))).all()


def test_against_a_peer() -> None:
    ours = {"decode_tokens_per_s": 300.0, "prefill_tokens_per_s": 900.0, "learn_tokens_per_s": 100.0}
    ours["decode_fixed_tokens_per_s"] = 450.0
    theirs = {"decode_tokens_per_s": 100.0, "decode_compiled_tokens_per_s": 150.0, "learn_eager_tokens_per_s": 20.0}
    assert report.against("torch", ours, theirs) == {
        "torch": theirs, "decode_vs_torch": 2.0, "decode_fixed_vs_torch": 3.0, "learn_vs_torch_eager": 5.0,
    }  # fmt: skip
    more = {**theirs, "learn_alone_tokens_per_s": 25.0, "learn_compiled_tokens_per_s": 40.0}
    found = report.against("torch", ours, more)
    assert (found["learn_vs_torch_alone"], found["learn_vs_torch_compiled"]) == (4.0, 2.5)
    found = report.against("llama-cpp", ours, {"decode_tokens_per_s": 600.0, "prefill_tokens_per_s": 300.0})
    assert (found["decode_vs_llama_cpp"], found["prefill_vs_llama_cpp"]) == (0.5, 3.0)


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose modules a new process finds."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    return tmp_path


def test_why_a_peer_is_lacking(monkeypatch: pytest.MonkeyPatch) -> None:
    for peer, (package, script) in process.PEERS.items():
        assert find_spec(script) is not None
        monkeypatch.setitem(sys.modules, package, None)
        assert lacking(peer) == f"{package} is not installed"
    monkeypatch.setitem(process.PEERS, "click", ("click", "click_peer"))
    assert lacking("click") == ""


def test_a_peer_says_what_it_measured(monkeypatch: pytest.MonkeyPatch, scripts: Path) -> None:
    monkeypatch.setitem(process.PEERS, "click", ("click", "click_peer"))
    with pytest.raises(EdgelmError, match=r"script failed: .*click_peer"):
        run_peer("click", [])
    (scripts / "click_peer.py").write_text("print('a note\\n{\"speed\": 3}\\n')")
    assert run_peer("click", []) == {"speed": 3}


def test_a_command_that_fails_says_why(home: Path, tmp_path: Path) -> None:
    with pytest.raises(EdgelmError, match="no model 'nowhere'"):
        Commands(EngineOptions("nowhere"))
    (tmp_path / "config.json").write_text("{}")
    with Commands(EngineOptions(str(tmp_path))) as commands:
        for measure in (commands.first_token_ms, lambda: commands.chat_rss_mb(learn=False)):
            with pytest.raises(EdgelmError, match=r"measured failed: edgelm: .*config\.json"):
                measure()


def test_commands_know_pulled_models_and_no_profile(home: Path, tiny_model: Path) -> None:
    shutil.copytree(tiny_model, home / "models" / "mine")
    (home / "profiles").mkdir()
    (home / "profiles" / "mine.db").write_text("what somebody told")
    with Commands(EngineOptions("mine", "mine")) as commands:
        room = Path(commands._environment["EDGELM_HOME"])
        assert room != home
        assert list(room.iterdir()) == []
        assert "mine" not in commands._options
        commands._start(["complete", "hi", "-n", "1"]).communicate()
        assert commands.chat_rss_mb(learn=False) > 0
    assert not room.exists()


def test_commands_are_told_which_engine_answers(home: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []

    def start(command: list[str], **_: Any) -> None:
        started.append(command)
        raise InterruptedError

    monkeypatch.setattr(process.subprocess, "Popen", start)
    with Commands(EngineOptions(str(tiny_model), engine="kernels"), "onnx") as commands:
        for measure in (commands.first_token_ms, *(partial(commands.chat_rss_mb, learn=on) for on in (False, True))):
            with pytest.raises(InterruptedError):
                measure()
    engines = [command[command.index("--engine") + 1] for command in started]
    assert engines == ["onnx", "onnx", "kernels"]


@pytest.mark.parametrize(
    ("number", "name"), [(signal.SIGILL, "SIGILL"), (signal.SIGKILL, "SIGKILL"), (40, "signal 40")]
)
def test_a_peer_that_crashes_is_told_by_its_signal(
    number: int, name: str, monkeypatch: pytest.MonkeyPatch, scripts: Path
) -> None:
    (scripts / "crash_peer.py").write_text(f"import os\nos.kill(os.getpid(), {int(number)})\n")
    monkeypatch.setitem(process.PEERS, "crash", ("click", "crash_peer"))
    with pytest.raises(EdgelmError, match=rf"its script failed: {name} \(.+\); it said nothing"):
        run_peer("crash", [])


def test_peak_of_memory(tmp_path: Path) -> None:
    assert process._peak_bytes(7, tmp_path) is None
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "status").write_text("Name:\tpython\nVmPeak:\t  900 kB\nVmHWM:\t  123 kB\nVmRSS:\t  100 kB\n")
    assert process._peak_bytes(7, tmp_path) == 123 * 1024


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("processor\t: 0\nmodel name\t: Fast 3000\n\nprocessor\t: 1\nmodel name\t: Fast 3000\n", "Fast 3000"),
        (
            "processor\t: 0\nCPU part\t: 0xd08\n\nModel\t\t: Raspberry Pi 4 Model B Rev 1.5\n",
            "Raspberry Pi 4 Model B Rev 1.5",
        ),
    ],
)
def test_name_of_the_processor(tmp_path: Path, text: str, name: str) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(text, encoding="utf-8")
    assert cpu_name(path) == name
    assert cpu_name(tmp_path / "nothing")
