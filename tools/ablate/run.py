"""Trains the model and its variants in one harness and scores them on texts they never saw.

    python -m tools.ablate.run SHARDS TOKENIZER.json OUT TEXT... --variants mcsd-g transformer --tokens 2e6 --seeds 0 1
    python -m tools.ablate.run --table OUT

Same batches, optimisers, learning rate and schedule for each; only the model differs. A row is one line of
``OUT/rows.jsonl``; rows that are there already are not trained again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgelm.config import CONV_WIDTH, PRESETS
from edgelm.text.tokenizer import DOC_ID, Tokenizer
from tools.ablate.variants import VARIANTS, build, sized
from tools.pretrain.corpus import read_mixture
from tools.pretrain.model import Model, document_masks
from tools.pretrain.parallel import Group
from tools.pretrain.train import MIXTURE, Plan, Trainer, run

ROWS = 8
"""Texts are scored as this many streams side by side."""


@torch.no_grad()
def bits_per_byte(model: Model, ids: np.ndarray, n_bytes: int, window: int) -> tuple[float, float]:
    """Of a text's token ids, cut into streams that start empty; also the share of blocks awake."""
    length = math.ceil(len(ids) / ROWS)
    # What fills the last stream up is not counted.
    padded = np.full(ROWS * length + 1, DOC_ID, np.int64)
    padded[1 : len(ids) + 1] = ids
    inputs, targets = (torch.from_numpy(padded[i : i + ROWS * length].reshape(ROWS, length)) for i in (0, 1))
    counted = torch.arange(ROWS * length).view(ROWS, length) < len(ids)
    states, carried = model.initial_state(ROWS), torch.ones(ROWS, CONV_WIDTH - 1, dtype=torch.bool)
    total, awake = 0.0, []
    for start in range(0, length, window):
        part = slice(start, start + window)
        starts, same_doc, carried = document_masks(inputs[:, part], DOC_ID, carried)
        hidden, states, activations = model(inputs[:, part], starts, same_doc, states, model.config.max_awake)
        logits = (hidden @ model.embed.t()).flatten(0, 1)
        nats = torch.nn.functional.cross_entropy(logits, targets[:, part].flatten(), reduction="none")
        total += float(nats[counted[:, part].flatten()].sum())
        awake.append(float((torch.stack(activations) > 0).float().mean()))
    return total / math.log(2) / n_bytes, statistics.mean(awake)


@torch.no_grad()
def recall_gain(model: Model, ids: np.ndarray, window: int) -> float | None:
    """By which share a passage costs less where it was read before, with a window of other text between.

    Passages A, B and C are consecutive windows; compared are the costs of A in A B A and in C B A. None if the text
    is too short.
    """
    ids = ids[ids != DOC_ID]
    if len(ids) < 3 * window:
        return None
    rows = min(ROWS, len(ids) // (3 * window))
    a, b, c = torch.from_numpy(ids[: rows * 3 * window].reshape(rows, 3, window)).unbind(1)
    begin, costs = torch.full((rows, 1), DOC_ID), []
    for text in (torch.cat([begin, c, b, a], 1), torch.cat([begin, a, b, a], 1)):
        states, carried = model.initial_state(rows), torch.ones(rows, CONV_WIDTH - 1, dtype=torch.bool)
        for start in range(0, 3 * window, window):
            part = text[:, start : start + window]
            starts, same_doc, carried = document_masks(part, DOC_ID, carried)
            hidden, states, _ = model(part, starts, same_doc, states, model.config.max_awake)
        logits, targets = (hidden @ model.embed.t()).flatten(0, 1), text[:, 2 * window + 1 :]
        costs.append(float(torch.nn.functional.cross_entropy(logits, targets.flatten())))
    return 1 - costs[1] / costs[0]


def read_texts(paths: list[Path], tokenizer: Tokenizer, n_bytes: int) -> dict[str, tuple[np.ndarray, int]]:
    """The first ``n_bytes`` of each text, up to a line end: token ids and bytes."""
    texts = {}
    for path in paths:
        blob = path.read_bytes()[:n_bytes]
        text = blob[: blob.rfind(b"\n") + 1].decode()
        texts[path.stem] = np.array(tokenizer.encode_document_lines(text)), len(text.encode())
    return texts


def train_variant(name: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """One row of the table."""
    config = sized(name, dataclasses.replace(PRESETS[args.preset], vocab_size=args.vocab_size))
    target = args.target_awake if VARIANTS[name].is_sparse else 1.0
    if target == 1:
        config = dataclasses.replace(config, max_awake=config.n_blocks)
    plan = Plan(
        config, read_mixture(MIXTURE), args.batch_size, args.window, args.lr, 0.05, 0.0, args.tokens, target,
        0.05, 0.99, seed,
    )  # fmt: skip
    run_dir = args.out / f"{name}-{seed}"
    run_dir.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(
        plan, args.shards, run_dir, Group(args.device), lambda c: build(name, c, args.window, args.target_awake)
    )
    if not args.no_compile:
        for layer in trainer.model.layers:
            layer.compile()
    run(trainer, 1e9, 0)
    if trainer.stop_asked:
        raise SystemExit(130)  # half a run is no row
    model = trainer.model
    model.load_state_dict(trainer.ema, strict=False)
    model.cpu()
    (run_dir / "checkpoint.pt").unlink()
    scores, awake, gains = {}, [], []
    for text, (ids, n_bytes) in read_texts(args.texts, Tokenizer(args.tokenizer), args.text_bytes).items():
        scores[text], share = bits_per_byte(model, ids, n_bytes, args.window)
        awake.append(share)
        gains.append(recall_gain(model, ids, args.window))
    return {
        "variant": name, "seed": seed, "lr": args.lr, "tokens": trainer.tokens, "seconds": round(trainer.seconds),
        "parameters": sum(p.numel() for p in model.parameters()), "awake": round(statistics.mean(awake), 3),
        "bits_per_byte": round(statistics.mean(scores.values()), 4),
        "recall_gain": round(statistics.mean(known), 4) if (known := [g for g in gains if g is not None]) else None,
        "texts": {text: round(score, 4) for text, score in scores.items()},
    }  # fmt: skip


def read_rows(out: Path) -> list[dict[str, Any]]:
    """The rows that are done."""
    path = out / "rows.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown: a variant and learning rate a line, seeds side by side, best first."""
    groups: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["variant"], row["lr"]), []).append(row)
    own = [row["bits_per_byte"] for row in rows if row["variant"] == "mcsd-g"]
    base = statistics.mean(own) if own else math.nan
    lines = [
        "| variant | parameters | awake | bits per byte, by seed | mean | against MCSD-G | read again | ms a token |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    means = {key: statistics.mean(row["bits_per_byte"] for row in group) for key, group in groups.items()}
    for key in sorted(groups, key=lambda key: means[key]):
        group = sorted(groups[key], key=lambda row: row["seed"])
        title = VARIANTS[key[0]].title + (f", rate {key[1]:g}" if key[1] != rows[0]["lr"] else "")
        seeds = ", ".join(f"{row['bits_per_byte']:.4f}" for row in group)
        awake = statistics.mean(row["awake"] for row in group)
        time = statistics.mean(row["seconds"] / row["tokens"] * 1e3 for row in group)
        gains = [row["recall_gain"] for row in group if row.get("recall_gain") is not None]
        gain = f"{-statistics.mean(gains):+.2%}" if gains else ""
        lines.append(
            f"| {title} | {group[0]['parameters'] / 1e6:.2f} M | {awake:.0%} | {seeds} | {means[key]:.4f} "
            f"| {means[key] / base - 1:+.2%} | {gain} | {time:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path, nargs="?")
    parser.add_argument("tokenizer", type=Path, nargs="?")
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("texts", type=Path, nargs="*")
    parser.add_argument("--table", type=Path, metavar="OUT", help="print the rows of an earlier run")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--preset", choices=sorted(PRESETS), default="nano")
    parser.add_argument("--vocab-size", type=int, default=4096)
    parser.add_argument("--tokens", type=float, default=5e6)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--window", type=int, default=256)
    parser.add_argument("--lr", type=float, default=6e-3)
    parser.add_argument("--target-awake", type=float, default=0.22)
    parser.add_argument("--text-bytes", type=int, default=150_000)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--no-compile", action="store_true")
    args = parser.parse_args()
    if args.table:
        print(table(read_rows(args.table)))
        return
    if not args.texts:
        parser.error("give SHARDS, TOKENIZER, OUT and at least one TEXT, or --table OUT")
    args.out.mkdir(parents=True, exist_ok=True)
    for seed in args.seeds:
        for name in args.variants:
            if any((r["variant"], r["seed"], r["lr"]) == (name, seed, args.lr) for r in read_rows(args.out)):
                continue
            torch._dynamo.reset()
            row = train_variant(name, seed, args)
            with (args.out / "rows.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
