"""The peer of learning on the device: all parameters adapted by PyTorch's AdamW, one pass over the same text.

    python -m tools.measure.adamw FILE... [--bytes N] [--share 0.8] [--lr 1e-4 3e-4 1e-3] [--window 128]

The first part of each text is adapted on, the last one scored before and after, in bits per byte, without
further learning. General text is scored too. Prints a table, or JSON lines with ``--json``.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path

import torch

from edgelm.bench.peers.torch_peer import twin, window_losses
from edgelm.bench.peers.twins.model import Model
from edgelm.measure.score import PART
from edgelm.model import hub
from edgelm.text.tokenizer import DOC_ID, Tokenizer

WARM_UP = 10
"""Steps over which the learning rate grows: the first moments of AdamW are those of very few windows."""


def split(text: str, share: float) -> tuple[str, str]:
    """The text before and after the first line end at or behind a share of its characters."""
    cut = text.find("\n", int(len(text) * share))
    if cut < 0:
        raise SystemExit(f"no line ends behind {share:.0%} of the text")
    return text[:cut], text[cut + 1 :]


@torch.no_grad()
def score(model: Model, tokenizer: Tokenizer, text: str) -> float:
    """Bits per byte of a text, as ``edgelm.measure.score.score_text`` has it; nothing is learned."""
    ids = tokenizer.encode_document_lines(text)
    nats = sum(float(losses.double().sum()) for losses in window_losses(model, ids, PART))
    return nats / math.log(2) / len(text.encode())


def prepare(model: Model) -> None:
    """Loads, or the first time compiles, all kernels; nothing is learned."""
    next(window_losses(model, [DOC_ID], 1)).sum().backward()
    model.zero_grad()


def adapt(model: Model, ids: Sequence[int], lr: float, window: int) -> float:
    """Scores, then learns, each window; returns tokens per second."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.999), weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / WARM_UP))
    prepare(model)
    begun = time.perf_counter()
    for losses in window_losses(model, ids, window):
        # The last window may be short; it is worth its tokens.
        (losses.sum() / window).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    return len(ids) / (time.perf_counter() - begun)


def measure(model: hub.Model, text: str, share: float, lrs: Sequence[float], window: int) -> Iterator[dict[str, float]]:
    """A row for each learning rate; each begins with the weights of ``model``."""
    first, last = split(text, share)
    general = files("edgelm").joinpath("data", "general.txt").read_text(encoding="utf-8")
    ids = model.tokenizer.encode_document_lines(first)
    before, general_before = (score(twin(model), model.tokenizer, part) for part in (last, general))
    for lr in lrs:
        made = twin(model)
        speed = adapt(made, ids, lr, window)
        after, general_after = (score(made, model.tokenizer, part) for part in (last, general))
        yield {
            "lr": lr,
            "window": window,
            "before": before,
            "after": after,
            "gain": 1 - after / before,
            "general_before": general_before,
            "general_after": general_after,
            "general_change": general_after / general_before - 1,
            "tokens": len(ids),
            "tokens_per_s": speed,
        }


def markdown(name: str, row: dict[str, float]) -> str:
    """One line of the table."""
    bits = f"{row['before']:.4f} | {row['after']:.4f} | {row['gain']:.1%} | {row['general_change']:+.1%}"
    return f"| {name} | {row['lr']:g} | {bits} | {row['tokens_per_s']:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--bytes", type=int, dest="n_bytes", help="so many of each file; default: all")
    parser.add_argument("--share", type=float, default=0.8, help="of the text that is adapted on")
    parser.add_argument("--lr", type=float, nargs="+", default=[1e-4, 3e-4, 1e-3])
    parser.add_argument("--window", type=int, default=128, help="tokens of one step")
    parser.add_argument("--model")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    model = hub.load(args.model)
    if not args.json:
        print("| text | lr | before | after | gain | general | tokens/s |\n|---|--:|--:|--:|--:|--:|--:|", flush=True)
    for path in args.files:
        text = path.read_bytes()[: args.n_bytes].decode("utf-8", errors="ignore")
        for row in measure(model, text, args.share, args.lr, args.window):
            print(json.dumps({"file": path.stem, **row}) if args.json else markdown(path.stem, row), flush=True)


if __name__ == "__main__":
    main()
