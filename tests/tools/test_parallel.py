"""Two processes train one model: the same weights in both, the gradient of both halves, and a run that continues."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from tools.pretrain.parallel import Group  # noqa: E402

pytestmark = pytest.mark.jit_only

SCRIPT = """
import sys
from pathlib import Path
import torch
from tests.tools.tiny_run import CONFIG, MIXTURE
from tools.pretrain.parallel import Group
from tools.pretrain.train import Plan, Trainer, run

shards, out, max_steps = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(1)
group = Group("cpu")
plan = Plan(CONFIG, MIXTURE, 2, 32, 1e-2, 0.05, 0.0, 40 * 4 * 32, 0.4, 0.05, 0.9, 3)
trainer = Trainer(plan, shards, out, group)
if (out / "checkpoint.pt").exists():
    trainer.load(torch.load(out / "checkpoint.pt", weights_only=True))
first = trainer.streams.state()["rng"]
run(trainer, 5, max_steps)
torch.save({"weights": trainer.model.state_dict(), "rng": str(first)}, out / f"rank-{group.rank}.pt")
group.close()
"""


def run_processes(shards: Path, out: Path, max_steps: int, n_processes: int = 2) -> None:
    """As torchrun starts them."""
    out.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(shards), str(out), str(max_steps)]
    jobs = []
    for rank in range(n_processes):
        world = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": n_processes, "MASTER_PORT": port}
        env = os.environ | {"MASTER_ADDR": "127.0.0.1"} | {name: str(value) for name, value in world.items()}
        jobs.append(subprocess.Popen(arguments, env=env, stderr=subprocess.PIPE, text=True))
    said = [job.communicate(timeout=300)[1] for job in jobs]
    assert [job.returncode for job in jobs] == [0] * n_processes, said


def test_two_processes_keep_the_same_weights_and_continue_to_the_bit(
    shards: Path, tmp_path: Path, make_trainer: Callable[..., Any]
) -> None:
    run_processes(shards, tmp_path / "whole", 12)
    first, second = (torch.load(tmp_path / "whole" / f"rank-{rank}.pt", weights_only=True) for rank in (0, 1))
    assert first["rng"] != second["rng"]  # each reads texts of its own
    for name, weight in first["weights"].items():
        assert torch.equal(weight, second["weights"][name]), name
    saved = torch.load(tmp_path / "whole" / "checkpoint.pt", weights_only=True)
    assert saved["counters"][:2] == [12, 12 * 2 * 2 * 32]
    assert len(saved["ranks"]) == 2

    run_processes(shards, tmp_path / "stopped", 5)
    run_processes(shards, tmp_path / "stopped", 12)
    again = torch.load(tmp_path / "stopped" / "rank-1.pt", weights_only=True)
    for name, weight in first["weights"].items():
        assert torch.equal(weight, again["weights"][name]), name

    with pytest.raises(ValueError, match="one of 2 processes, not 1"):
        make_trainer(tmp_path / "alone").load(saved)


def test_alone_there_is_nothing_to_average() -> None:
    group, gradient = Group("cpu"), torch.ones(3)
    assert (group.rank, group.size) == (0, 1)
    assert group.average([gradient], [2.0]) == [2.0]
    assert torch.equal(gradient, torch.ones(3))
    assert group.gather("a") == ["a"]
    group.close()
