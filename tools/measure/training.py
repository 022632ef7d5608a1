"""How much of this machine's matrix-product rate training reaches, side by side in one process.

    python -m tools.measure.training SHARDS [--preset small] [--rounds 5]

Rounds alternate between bare bf16 products of the model's largest shape and steps of the trainer. Counted as work are
the products alone (six per weight and token: forward, and two backward); recurrences, norms, loss and optimiser are
overhead. Muon's own products are not counted either.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch

from edgelm.bench.peers.twins.model import Model
from edgelm.model.config import PRESETS
from tools.pretrain.corpus import read_mixture
from tools.pretrain.parallel import Group
from tools.pretrain.train import MIXTURE, Plan, Trainer


def flops_per_token(model: Model) -> int:
    """Of the matrix products of a training step: the head's, and those of every matrix of a layer."""
    matrices = [model.embed, *(p for layer in model.layers for p in layer.parameters() if p.ndim >= 2)]
    return 6 * sum(p.numel() for p in matrices)


def bare_rate(n_tokens: int, width: int, neurons: int, seconds: float) -> float:
    """FLOP/s of bf16 products [n_tokens, width] by [width, neurons], as wide as the feed-forward part."""
    x, w = torch.randn(n_tokens, width).bfloat16(), torch.randn(width, neurons).bfloat16()
    out = x @ w
    begun, n_products = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        torch.mm(x, w, out=out)
        n_products += 1
    return 2 * n_tokens * width * neurons * n_products / (time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path)
    parser.add_argument("--preset", choices=sorted(PRESETS), default="small")
    parser.add_argument("--vocab-size", type=int, default=4096)
    parser.add_argument("--batch-size", type=int, default=24)
    parser.add_argument("--window", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    config = PRESETS[args.preset].resized(vocab_size=args.vocab_size)
    plan = Plan(config, read_mixture(MIXTURE), args.batch_size, args.window, 6e-3, 0.05, 0.0, 1e9, 0.22, 0.05, 0.99, 0)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(plan, args.shards, Path(folder), Group("cpu"))
        for layer in trainer.model.layers:
            layer.compile()
        for _ in range(3):
            trainer.train_step()
        work, rows = flops_per_token(trainer.model), []
        n_tokens, neurons = args.batch_size * args.window, config.n_blocks * config.ffn.block_size
        for _ in range(args.rounds):
            bare = bare_rate(n_tokens, config.d_model, neurons, 2.0)
            begun, before = time.perf_counter(), trainer.tokens
            trainer.train_step()
            trainer.train_step()
            speed = (trainer.tokens - before) / (time.perf_counter() - begun)
            rows.append((bare, speed, work * speed / bare))
    bare, speed, share = (statistics.median(column) for column in zip(*rows, strict=True))
    result = {
        "preset": args.preset, "threads": torch.get_num_threads(), "gemm_gflop_per_s": round(bare / 1e9, 1),
        "tokens_per_s": round(speed), "training_gflop_per_s": round(work * speed / 1e9, 1),
        "share_of_gemm": round(share, 3), "shares": [round(row[2], 3) for row in rows],
    }  # fmt: skip
    print(json.dumps(result))


if __name__ == "__main__":
    main()
