"""The run on a lent GPU, rehearsed on the CPU; and its recurrence at the sizes it will have."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from edgelm.bench.peers.twins import chunked, scan  # noqa: E402
from edgelm.model.config import PRESETS  # noqa: E402
from tests.tools.tiny_run import CONFIG, MIXTURE  # noqa: E402
from tools.pretrain import gpu, release  # noqa: E402


@pytest.fixture
def run_gpu(corpus: Path, tokenizer_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs the command for two seconds with a tiny ``base``; what it left."""
    monkeypatch.setitem(PRESETS, "base", CONFIG)
    monkeypatch.setitem(PRESETS, "small", CONFIG)
    mixture, out = tmp_path / "mixture.toml", tmp_path / "out"
    mixture.write_text("\n".join(f"{name} = {weight}" for name, weight in MIXTURE.items()))
    words = (
        f"gpu {corpus} {out} --tokenizer {tokenizer_file} --mixture {mixture} --shards {tmp_path / 'work'} --device cpu"
    )
    words += (
        " --seconds 2 --batch-size 4 --window 32 --judge-seconds 0.3 --least-speed 1e12 --save-seconds 0.2 --no-compile"
    )
    monkeypatch.setattr(sys, "argv", words.split())
    monkeypatch.setattr(gpu, "PART_BYTES", 20_000)
    gpu.main()
    return out


def test_it_leaves_weights_that_become_a_model(
    run_gpu: Path, shards: Path, tokenizer_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = json.loads((run_gpu / gpu.RUN).read_text())
    assert run["parts"] > 1
    assert run["plan"]["minutes"] < 2 / 60, "judged too slow, it began again with the time that was left"
    assert sorted(path.name for path in run_gpu.iterdir()) == sorted(
        ["keys.csv", "log.csv", gpu.RUN, *(f"weights-{i}.safetensors" for i in range(1, run["parts"] + 1))]
    )
    words = f"release {run_gpu} {shards} {tokenizer_file} {tmp_path / 'model'} --name tiny --rms-tokens 500"
    monkeypatch.setattr(sys, "argv", words.split())
    release.main()
    from edgelm.model import hub

    model = hub.load(str(tmp_path / "model"))
    assert model.config.to_dict() == CONFIG.to_dict()
    assert all(np.isfinite(array).all() for array in model.weights.values())


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_chunks_equal_the_scan_at_the_sizes_of_the_run(share: float) -> None:
    """T = 512, K = 64, and keys of which ``share`` are one and the same: float32 must not blow up."""
    rng = torch.Generator().manual_seed(0)
    rows = (2, 512, 2)
    q, k = (torch.nn.functional.normalize(torch.randn(*rows, 64, generator=rng), dim=-1) for _ in range(2))
    k = torch.where(torch.rand(*rows, 1, generator=rng) < share, k[:1, :1, :1], k)
    v, g = torch.randn(*rows, 64, generator=rng), -0.02 * torch.rand(*rows, generator=rng)
    beta = 0.9 + 0.1 * torch.rand(*rows, generator=rng)
    state, starts = torch.zeros(2, 2, 64, 64), torch.zeros(2, 512, dtype=torch.bool)
    expected, found = (f.decay_scan(q, k, v, g, beta, starts, state) for f in (scan, chunked))
    for a, b in zip(found, expected, strict=True):
        assert torch.isfinite(a).all()
        assert float((a - b).abs().max()) <= 1e-4 * float(b.abs().max())
