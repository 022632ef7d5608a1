"""Bits per byte of texts with neither memory, the fast one, the slow one, and both; one pass each.

python -m tools.measure.memories FILE... [--bytes 200000] [--model NAME|PATH] [--rate 1.0] [--segment 32]
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np

from edgelm.config import LearnConfig
from edgelm.learn.learner import Learner
from edgelm.memory.fast_memory import FastMemory
from edgelm.model import hub
from edgelm.model.weights import adaptable_names
from edgelm.text.tokenizer import document_ids


def measure(model: hub.Model, text: str, config: LearnConfig, *, learn: bool) -> tuple[float, float, float]:
    """Bits per byte of the model, of its mixture with the fast memory, and tokens per second."""
    weights = {name: array.copy() for name, array in model.weights.items()}
    base = {name: weights[name].copy() for name in adaptable_names(model.config)}
    learner = Learner(model.config, weights, base, model.grad_rms, config)
    memory, nats, mixed, tokens = FastMemory(model.tokenizer), 0.0, 0.0, 0
    begun = time.perf_counter()
    for ids in document_ids(model.tokenizer.encode_document_lines(text)):
        losses = (learner.learn(ids) if learn else learner.score(ids)).astype(np.float64)
        nats += losses.sum()
        mixed -= np.log(memory.learn(np.array(ids), 1, np.exp(-losses))).sum()
        tokens += len(losses)
    per_byte = 1 / math.log(2) / len(text.encode())
    return nats * per_byte, mixed * per_byte, tokens / (time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--bytes", type=int, default=200_000, dest="n_bytes")
    parser.add_argument("--model")
    parser.add_argument("--rate", type=float, default=LearnConfig.rate)
    parser.add_argument("--pull", type=float, default=LearnConfig.pull)
    parser.add_argument("--segment", type=int, default=LearnConfig.segment)
    args = parser.parse_args()
    model, config = hub.load(args.model), LearnConfig(args.rate, args.pull, args.segment)
    print("| text | neither | fast | slow | both | gain | tokens/s |\n|---|--:|--:|--:|--:|--:|--:|")
    for path in args.files:
        text = path.read_bytes()[: args.n_bytes].decode("utf-8", errors="ignore")
        base, fast, _ = measure(model, text, config, learn=False)
        slow, both, speed = measure(model, text, config, learn=True)
        columns = f"{base:.4f} | {fast:.4f} | {slow:.4f} | {both:.4f} | {1 - both / base:.1%} | {speed:.0f}"
        print(f"| {path.stem} | {columns} |", flush=True)


if __name__ == "__main__":
    main()
