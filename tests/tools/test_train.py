"""Training: the loss falls, a run stops and continues, and the parts it is made of."""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from edgelm.bench.peers.twins import (  # noqa: E402
    chunked,
    functions,
    model,
)
from edgelm.model.config import PRESETS  # noqa: E402
from edgelm.model.weights import ternary_names  # noqa: E402
from tests.tools.tiny_run import CONFIG, kept_signals  # noqa: E402
from tools.pretrain import train as train_tool  # noqa: E402
from tools.pretrain.head import CHUNK_TOKENS, head_loss  # noqa: E402
from tools.pretrain.optim import MATRICES, make_optimizers, orthogonalize  # noqa: E402
from tools.pretrain.ternary import rounded  # noqa: E402

Make = Callable[..., Any]


def read_log(run_dir: Path) -> list[dict[str, float]]:
    with (run_dir / "log.csv").open() as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def assert_same(found: Any, expected: Any) -> None:
    """Equal to the last bit, through lists and dicts."""
    if isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected)
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            assert_same(a, b)
    else:
        assert found == expected


@pytest.mark.jit_only
def test_a_run_lowers_the_loss_and_leaves_its_files(run_dir: Path) -> None:
    rows = read_log(run_dir)
    assert [row["step"] for row in rows] == [10, 20, 30, 40]
    assert [row["tokens"] for row in rows] == [1280, 2560, 3840, 5120]
    assert rows[-1]["loss_nats"] < rows[0]["loss_nats"] < math.log(CONFIG.vocab_size)
    assert rows[-1]["awake"] <= CONFIG.max_awake / CONFIG.n_blocks
    assert {path.name for path in run_dir.iterdir()} == {"checkpoint.pt", "keys.csv", "log.csv"}
    saved = torch.load(run_dir / "checkpoint.pt", weights_only=True)
    assert saved["counters"][:2] == [40, 5120]
    assert set(saved["model"]) == set(saved["ema"])
    # The state alone is kept of a segment, not the segment.
    tensors = [tensor for state in saved["ranks"][0]["states"] for tensor in state.values()]
    assert sum(t.untyped_storage().nbytes() // 4 for t in tensors) == sum(math.prod(t.shape) for t in tensors)


@pytest.mark.jit_only
@pytest.mark.parametrize("stop", [3, 17])
def test_a_stopped_run_continues_to_the_bit(make_trainer: Make, train: Make, tmp_path: Path, stop: int) -> None:
    """Stopped in the dense warm-up, and after the cap on blocks and the pressure on them have come."""
    whole = make_trainer(tmp_path / "whole")
    train(whole, max_steps=22)
    stopped = make_trainer(tmp_path / "stopped")
    train(stopped, max_steps=stop)
    resumed = make_trainer(tmp_path / "stopped", seed=8)  # what a seed decides comes from the checkpoint
    resumed.load(torch.load(tmp_path / "stopped" / "checkpoint.pt", weights_only=True))
    train(resumed, max_steps=22)

    files = [torch.load(trainer.run_dir / "checkpoint.pt", weights_only=True) for trainer in (resumed, whole)]
    for saved in files:
        saved["counters"].pop(2)  # seconds
        saved.pop("plan")
    assert_same(*files)
    assert_same(list(resumed.model.parameters()), list(whole.model.parameters()))
    np.testing.assert_array_equal(resumed.streams.next_batch(), whole.streams.next_batch())
    assert_same(resumed.train_step(), whole.train_step())


@pytest.mark.jit_only
def test_chunked_training_equals_scanned(make_trainer: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scanned, in_chunks = make_trainer(tmp_path), make_trainer(tmp_path)
    losses = [float(scanned.train_step()["loss_nats"]) for _ in range(6)]
    monkeypatch.setattr(functions, "recurrences", lambda x: chunked)
    assert [float(in_chunks.train_step()["loss_nats"]) for _ in range(6)] == pytest.approx(losses, rel=1e-3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_run_moves_from_gpu_to_cpu(make_trainer: Make, train: Make, tmp_path: Path) -> None:
    trainer, on_cpu = make_trainer(tmp_path, device="cuda"), make_trainer(tmp_path)
    train(trainer, max_steps=30)
    rows = read_log(tmp_path)
    assert rows[-1]["loss_nats"] < rows[0]["loss_nats"]
    on_cpu.load(torch.load(tmp_path / "checkpoint.pt", weights_only=True, map_location="cpu"))
    assert float(on_cpu.train_step()["loss_nats"]) == pytest.approx(float(trainer.train_step()["loss_nats"]), rel=0.02)


@pytest.mark.jit_only
def test_command_line_trains_and_resumes(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    mixture = tmp_path / "mixture.toml"
    mixture.write_text("talk = 1.0\n", encoding="utf-8")
    monkeypatch.setattr(train_tool, "SHAPES", dict.fromkeys(PRESETS, CONFIG))
    plan = ["--tokens", "2000", "--batch-size", "2", "--window", "16", "--mixture", str(mixture)]
    for options in ([*plan, "--max-steps", "10"], ["--resume", "--max-steps", "20"]):
        monkeypatch.setattr(sys, "argv", ["train", str(shards), str(tmp_path / "run"), "--no-compile", *options])
        with kept_signals():
            train_tool.main()
    assert [row["step"] for row in read_log(tmp_path / "run")] == [10, 20]
    assert (tmp_path / "run" / "loss.png").stat().st_size > 1000


def test_command_line_wants_a_length(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train", str(shards), str(tmp_path / "run")])
    with pytest.raises(SystemExit):
        train_tool.main()


def test_only_a_router_is_pressed(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plans = []

    def trainer(plan: train_tool.Plan, *_: object) -> None:
        plans.append(plan)
        raise KeyboardInterrupt

    monkeypatch.setattr(train_tool, "Trainer", trainer)
    for preset in ("nano", "nano-rwkv7"):
        options = ["--preset", preset, "--vocab-size", "300", "--tokens", "1000"]
        monkeypatch.setattr(sys, "argv", ["train", str(shards), str(tmp_path / "run"), *options])
        with pytest.raises(KeyboardInterrupt):
            train_tool.main()
    assert [plan.target_awake for plan in plans] == [0.22, 1.0]
    assert all(plan.config.vocab_size == 300 for plan in plans)


def test_plan_follows_its_schedule(make_trainer: Make, tmp_path: Path) -> None:
    plan = make_trainer(tmp_path, tokens=1000, minutes=2.0).plan
    assert plan.progress(500, 0) == 0.5
    assert plan.progress(500, 90) == 0.75
    assert plan.progress(5000, 90) == 1
    assert plan.lr_at(0, 49) == pytest.approx(plan.lr / 2)
    assert plan.lr_at(0.5, 1000) == pytest.approx(plan.lr / 2)
    assert plan.lr_at(1, 1000) == pytest.approx(plan.lr / 50)
    assert [plan.awake_target(p) for p in (0, 0.1, 0.225, 0.35, 1)] == pytest.approx([1, 1, 0.7, 0.4, 0.4])


def test_steering_meets_the_target_and_revives_blocks(make_trainer: Make, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    shares = torch.full((CONFIG.n_layers, CONFIG.n_blocks), 0.5)
    shares[1, 3] = 0
    before = trainer.model.layers[1].ffn.router_bias.detach().clone()
    pressure = trainer.pressure
    trainer._steer(torch.tensor(0.5), 0.4, shares)
    assert trainer.pressure == pytest.approx(1.02 * pressure)
    trainer._steer(torch.tensor(0.3), 0.4, shares)
    assert trainer.pressure == pytest.approx(pressure)
    for _ in range(400):
        trainer._steer(torch.tensor(0.5), 1.0, shares)
    moved = trainer.model.layers[1].ffn.router_bias.detach() - before
    assert moved[3] > 0.5
    assert moved.count_nonzero() == 1
    assert trainer.pressure == pytest.approx(pressure)  # none while all may be awake


def test_head_loss_is_cross_entropy() -> None:
    rng = torch.Generator().manual_seed(0)
    rows, steps, vocab = 3, CHUNK_TOKENS["cpu"] // 2 + 7, 50  # a chunk and a half
    hidden = torch.randn(rows, steps, 8, generator=rng, requires_grad=True)
    embed = torch.randn(vocab, 8, generator=rng, requires_grad=True)
    targets = torch.randint(vocab, (rows, steps), generator=rng)
    expected = torch.nn.functional.cross_entropy((hidden @ embed.t()).flatten(0, 1), targets.flatten())
    wanted = torch.autograd.grad(3 * expected, (hidden, embed))
    loss = head_loss(hidden, embed, targets)
    found = torch.autograd.grad(3 * loss, (hidden, embed))
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = head_loss(hidden, embed, targets)
        assert float(low.detach()) == float(loss.detach())  # the loss itself is never rounded
        for a, b in zip(torch.autograd.grad(3 * low, (hidden, embed)), wanted, strict=True):
            assert a.dtype == torch.float32
            assert float((a - b).norm()) <= 0.01 * float(b.norm())


@pytest.mark.parametrize("shape", [(16, 40), (40, 16), (24, 24), (3, 12, 40), (2, 5, 40, 12)])
def test_orthogonalize_evens_the_singular_values(shape: tuple[int, ...]) -> None:
    rng = torch.Generator().manual_seed(0)
    u, s, v = torch.linalg.svd(torch.randn(*shape, generator=rng), full_matrices=False)
    s = torch.linspace(1.0, 0.05, s.shape[-1]).expand_as(s)
    x = orthogonalize(100 * (u * s.unsqueeze(-2)) @ v)
    assert x.shape == shape
    values = torch.linalg.svdvals(x.float())
    assert float(values.min()) > 0.6
    assert float(values.max()) < 1.3
    # The directions stay: each singular vector still maps to its partner.
    partners = torch.diagonal(u.mT @ x.float() @ v.mT, dim1=-2, dim2=-1)
    assert float(partners.min()) > 0.6


def test_optimizers_share_all_parameters_out() -> None:
    made = model.Model(CONFIG)
    muon, adamw = make_optimizers(made, 1e-3, 0.1)
    names = {id(p): name for name, p in made.named_parameters()}
    sets = [{names[id(p)] for group in o.param_groups for p in group["params"]} for o in (muon, adamw)]
    assert sets[0] | sets[1] == set(names.values())
    assert not sets[0] & sets[1]
    own = {name.rsplit(".", 1)[-1] for name in names.values()}
    assert {name.rsplit(".", 1)[-1] for name in sets[0]} == own & set(MATRICES)


def test_rounded_matrices_have_one_size() -> None:
    weight = torch.tensor([[0.1, -0.1, 4.0], [-1.0, 0.4, 0.4]])
    assert torch.equal(rounded(weight), torch.tensor([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0]]))
    assert not rounded(torch.zeros(2, 2)).any()


def test_ternary_training_computes_with_what_it_rounds(make_trainer: Make, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, ternary=True)
    parameters, names = dict(trainer.model.named_parameters()), ternary_names(CONFIG)
    before = {name: p.detach().clone() for name, p in parameters.items()}
    seen: dict[str, Any] = {}
    forward = trainer.model.forward

    def watched(*arguments: Any) -> Any:
        seen.update({name: p.detach().clone() for name, p in parameters.items()})
        return forward(*arguments)

    trainer.model.forward = watched
    trainer.train_step()
    for name, p in parameters.items():
        expected = rounded(before[name]) if name in names else before[name]
        assert torch.equal(seen[name], expected), name
        # The step begins where the numbers were, not where they were rounded to.
        assert 0 < (p - before[name]).abs().max() < 0.01 or name.endswith(("decay_base", "write_bias")), name
        assert not torch.equal(p, seen[name]) or name not in names
