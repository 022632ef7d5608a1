"""Trains the model and its variants in one harness and scores them on texts they never saw.

    python -m tools.ablate.run SHARDS TOKENIZER.json OUT TEXT... --variants mcsd-g transformer --tokens 2e6 --seeds 0 1
    python -m tools.ablate.run --table OUT

Same batches, optimisers, learning rate and schedule for each; only the model differs. A row is one line of
``OUT/rows.jsonl``; rows that are there already are not trained again.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from edgelm.bench.peers.twins.model import Model, document_masks
from edgelm.cells.gated_delta.paper import CONV_WIDTH
from edgelm.measure.point import CHOICES, EMPTY_REMARK, Pair, read_pairs
from edgelm.model.config import PRESETS
from edgelm.text.opening import open_tokenizer
from edgelm.text.template import USUAL
from edgelm.text.tokenizer import DOC_ID, Tokenizer
from tools.ablate.variants import VARIANTS, build, sized
from tools.pretrain.corpus import read_mixture
from tools.pretrain.data import Streams, StreamsAhead
from tools.pretrain.keys import KEY_FIELDS, key_statistics
from tools.pretrain.parallel import Group
from tools.pretrain.train import MIXTURE, Plan, Trainer, run

ROWS, PASSAGE = 8, 256
"""Texts are scored as so many streams side by side; tokens of a passage that is read again."""
DISTANCES = (64, 256, 1024)
"""Tokens between a passage and its repetition."""


@torch.no_grad()
def bits_per_byte(model: Model, ids: np.ndarray, n_bytes: int, window: int) -> tuple[float, float]:
    """Of a text's token ids, cut into streams that start empty; also the share of blocks awake."""
    length, device = math.ceil(len(ids) / ROWS), model.embed.device
    # What fills the last stream up is not counted.
    padded = np.full(ROWS * length + 1, DOC_ID, np.int64)
    padded[1 : len(ids) + 1] = ids
    both = (padded[i : i + ROWS * length].reshape(ROWS, length) for i in (0, 1))
    inputs, targets = (torch.from_numpy(part).to(device) for part in both)
    counted = torch.arange(ROWS * length, device=device).view(ROWS, length) < len(ids)
    states, carried = model.initial_state(ROWS), torch.ones(ROWS, CONV_WIDTH - 1, dtype=torch.bool, device=device)
    total, awake = 0.0, []
    for start in range(0, length, window):
        part = slice(start, start + window)
        starts, same_doc, carried = document_masks(inputs[:, part], DOC_ID, carried)
        hidden, states, activations = model(inputs[:, part], starts, same_doc, states, model.config.max_awake)
        logits = (hidden @ model.output_matrix.t()).flatten(0, 1)
        nats = torch.nn.functional.cross_entropy(logits, targets[:, part].flatten(), reduction="none")
        total += float(nats[counted[:, part].flatten()].sum())
        awake.append(float((torch.stack(activations) > 0).float().mean()))
    return total / math.log(2) / n_bytes, statistics.mean(awake)


@torch.no_grad()
def token_costs(model: Model, ids: torch.Tensor, window: int) -> torch.Tensor:
    """Nats of each token [B,T-1] after those before it, ids [B,T] being texts of their own, read by windows."""
    device = model.embed.device
    ids, costs = ids.to(device), []
    states = model.initial_state(len(ids))
    carried = torch.ones(len(ids), CONV_WIDTH - 1, dtype=torch.bool, device=device)
    for start in range(0, ids.shape[1] - 1, window):
        part = ids[:, start : start + window + 1]
        starts, same_doc, carried = document_masks(part[:, :-1], DOC_ID, carried)
        hidden, states, _ = model(part[:, :-1], starts, same_doc, states, model.config.max_awake)
        logits = (hidden @ model.output_matrix.t()).transpose(1, 2)
        costs.append(torch.nn.functional.cross_entropy(logits, part[:, 1:], reduction="none"))
    return torch.cat(costs, 1)


def recall_gain(model: Model, ids: np.ndarray, distance: int, window: int) -> float | None:
    """By which share a passage costs less where it was read before, with so many tokens of other text between.

    Passages A and C of 256 tokens and B of ``distance`` are consecutive; compared are the costs of A in A B A and in
    C B A, over eight places (as ``tools.measure.again`` does with the exported model). None if the text is too short.
    """
    ids, length = ids[ids != DOC_ID], 2 * PASSAGE + distance
    if len(ids) < ROWS * length:
        return None
    places = torch.from_numpy(ids[: ROWS * length].astype(np.int64).reshape(ROWS, length))
    a, c, b = places.split([PASSAGE, PASSAGE, distance], 1)
    begin = torch.full((ROWS, 1), DOC_ID)
    first, again = (token_costs(model, torch.cat([begin, x, b, a], 1), window)[:, 1 - PASSAGE :].sum() for x in (c, a))
    return 1 - float(again / first)


def first_of_20(model: Model, pairs: list[Pair], tokenizer: Tokenizer, window: int) -> float:
    """How often the right reply of 20 gains most by its remark, as ``edgelm evaluate --suite point`` draws them."""
    said = [
        [DOC_ID, *tokenizer.encode(USUAL.user_turn(text) + USUAL.reply_prompt())]
        for text in [EMPTY_REMARK, *dict(pairs)]
    ]
    remarks = dict(zip([EMPTY_REMARK, *dict(pairs)], said, strict=True))
    replies = [tokenizer.encode(f" {USUAL.clean(reply)}\n") for _, reply in pairs]

    def scores(of: list[tuple[str, int]]) -> np.ndarray:
        found = []
        for begin in range(0, len(of), 400):
            part = [(len(remarks[text]), remarks[text] + replies[j]) for text, j in of[begin : begin + 400]]
            ids = torch.full((len(part), max(len(row) for _, row in part)), DOC_ID)
            counted = torch.zeros(ids.shape, dtype=torch.bool)
            for row, (n_remark, tokens) in enumerate(part):
                ids[row, : len(tokens)] = torch.tensor(tokens)
                counted[row, n_remark : len(tokens)] = True
            costs = token_costs(model, ids, window)
            found.append(-(costs * counted[:, 1:].to(costs.device)).sum(1).cpu().numpy())
        return np.concatenate(found)

    rng, chosen = np.random.default_rng(1), []
    for i in range(len(pairs)):
        wrong = rng.choice(np.delete(np.arange(len(pairs)), i), CHOICES - 1, replace=False)
        chosen.append(np.concatenate([[i], wrong]))
    plain = scores([(EMPTY_REMARK, j) for j in range(len(pairs))])
    all_scores = scores([(pairs[i][0], int(j)) for i, row in enumerate(chosen) for j in row]).reshape(-1, CHOICES)
    gains = all_scores - plain[np.stack(chosen)]
    return float((gains[:, :1] > gains[:, 1:]).all(1).mean())


def read_texts(paths: list[Path], tokenizer: Tokenizer, n_bytes: int) -> dict[str, tuple[np.ndarray, int]]:
    """The first ``n_bytes`` of each text, up to a line end: token ids and bytes."""
    texts = {}
    for path in paths:
        blob = path.read_bytes()[:n_bytes]
        text = blob[: blob.rfind(b"\n") + 1].decode()
        texts[path.stem] = np.array(tokenizer.encode_document_lines(text)), len(text.encode())
    return texts


def make_trainer(name: str, seed: int, args: argparse.Namespace) -> Trainer:
    """The run of one row."""
    variant = VARIANTS[name]
    config = sized(name, PRESETS[args.preset].resized(vocab_size=args.vocab_size))
    target = args.target_awake if variant.is_sparse else 1.0
    if target == 1:
        config = config.resized(max_awake=config.n_blocks)
    window = variant.window or args.window
    mixture = {k: v for k, v in read_mixture(args.mixture).items() if k not in variant.without}
    plan = Plan(
        config, mixture, args.batch_size * args.window // window, window, args.lr, 0.05, 0.0, args.tokens, target,
        0.05, 0.99, seed, "", variant.mixer_rate,
    )  # fmt: skip
    run_dir = args.out / f"{name}-{seed}"
    run_dir.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(
        plan, args.shards, run_dir, Group(args.device), lambda c: build(name, c, window, args.target_awake)
    )
    if args.device == "cuda":
        ahead = StreamsAhead(args.shards, [mixture], plan.batch_size, window, seed)
        trainer.streams = cast(Streams, ahead)
    if not args.no_compile:
        for layer in trainer.model.layers:
            layer.compile(dynamic=False)
    return trainer


def train_variant(name: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """One row of the table."""
    trainer = make_trainer(name, seed, args)
    run(trainer, None, 0)
    if isinstance(trainer.streams, StreamsAhead):
        trainer.streams.close()
    if trainer.stop_asked:
        raise SystemExit(130)  # half a run is no row
    # A model of its own: what is scored has other shapes, and compiling for them would take longer than scoring.
    model = build(name, trainer.plan.config, trainer.plan.window, args.target_awake).to(trainer.device)
    model.load_state_dict(trainer.ema, strict=False)
    scores, awake = {}, []
    gains: dict[int, list[float]] = {distance: [] for distance in DISTANCES}
    tokenizer = open_tokenizer(args.tokenizer)
    for text, (ids, n_bytes) in read_texts(args.texts, tokenizer, args.text_bytes).items():
        scores[text], share = bits_per_byte(model, ids, n_bytes, trainer.plan.window)
        awake.append(share)
        for distance, found in gains.items():
            gain = recall_gain(model, ids, distance, trainer.plan.window)
            found += [] if gain is None else [gain]
    keys = key_statistics(model, trainer.drawn)
    pairs = read_pairs(args.pairs.read_text(encoding="utf-8"), str(args.pairs)) if args.pairs else []
    return {
        "variant": name, "seed": seed, "lr": args.lr, "tokens": trainer.tokens, "seconds": round(trainer.seconds),
        "parameters": sum(p.numel() for p in model.parameters()), "awake": round(statistics.mean(awake), 3),
        "bits_per_byte": round(statistics.mean(scores.values()), 4),
        "recall_gain": {str(d): round(statistics.mean(found), 4) for d, found in gains.items() if found},
        "first_of_20": round(first_of_20(model, pairs, tokenizer, trainer.plan.window), 4) if pairs else None,
        "keys": {k: round(statistics.mean(head[k] for head in keys), 4) for k in KEY_FIELDS[3:]} if keys else None,
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
        "| variant | parameters | awake | bits per byte, by seed | mean | against MCSD-G "
        f"| read again after {', '.join(map(str, DISTANCES))} | first of 20 | key rank, cosine, beta |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    means = {key: statistics.mean(row["bits_per_byte"] for row in group) for key, group in groups.items()}
    for key in sorted(groups, key=lambda key: means[key]):
        group = sorted(groups[key], key=lambda row: row["seed"])
        title = VARIANTS[key[0]].title + (f", rate {key[1]:g}" if key[1] != rows[0]["lr"] else "")
        seeds = ", ".join(f"{row['bits_per_byte']:.4f}" for row in group)
        awake = statistics.mean(row["awake"] for row in group)
        gains = (_by_seed(group, lambda row, d=d: row["recall_gain"].get(str(d)), "{:.1%}") for d in DISTANCES)
        hits = _by_seed(group, lambda row: row["first_of_20"], "{:.1%}")
        keys = (_mean(group, lambda row, k=k: (row["keys"] or {}).get(k)) for k in KEY_FIELDS[3:])
        lines.append(
            f"| {title} | {group[0]['parameters'] / 1e6:.2f} M | {awake:.0%} | {seeds} | {means[key]:.4f} "
            f"| {means[key] / base - 1:+.2%} | {'; '.join(gains)} | {hits} | {', '.join(keys)} |"
        )
    return "\n".join(lines)


def _by_seed(group: list[dict[str, Any]], value: Callable[[dict[str, Any]], float | None], form: str) -> str:
    found = [value(row) for row in group]
    return ", ".join(form.format(v) for v in found if v is not None)


def _mean(group: list[dict[str, Any]], value: Callable[[dict[str, Any]], float | None]) -> str:
    found = [v for row in group if (v := value(row)) is not None]
    return f"{statistics.mean(found):.2f}" if found else ""


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
    parser.add_argument("--mixture", type=Path, default=MIXTURE)
    parser.add_argument(
        "--pairs", type=Path, help="remarks and replies for first of 20 (edgelm evaluate --suite point)"
    )
    parser.add_argument("--minutes", type=float, help="no row begins later than this")
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
    begun = time.monotonic()
    for seed in args.seeds:
        for name in args.variants:
            if any((r["variant"], r["seed"], r["lr"]) == (name, seed, args.lr) for r in read_rows(args.out)):
                continue
            if args.minutes and time.monotonic() - begun > 60 * args.minutes:
                return
            torch._dynamo.reset()
            row = train_variant(name, seed, args)
            with (args.out / "rows.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
