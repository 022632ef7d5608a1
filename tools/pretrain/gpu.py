"""One run on a GPU that is there for some minutes: tokenises, trains by the clock, leaves int8 weights in small files.

    python -m tools.pretrain.gpu CORPUS OUT --tokenizer tokenizer.json --mixture mixture.toml \\
        --last-mixture mixture_talk.toml --seconds 500
    python -m tools.pretrain.release OUT SHARDS TOKENIZER.json MODEL_DIR --name base

CORPUS holds ``NAME.txt.xz`` (50 MiB are enough), which all processor cores tokenise, or shards made before,
``NAME.npy.xz``. Then ``base`` is trained, compiled, in one shape, its rate falling with the time that is left; the last
quarter is drawn by ``--last-mixture``. Two runs may share a GPU: one computes while the other compiles, or writes its
weights. After ``--judge-seconds`` of training, a run slower than
``--least-speed`` begins again as ``small`` with what time is left. Every ``--save-seconds`` and at the end OUT receives
the moving average of the weights: ``weights-N.safetensors``, none larger than 15 MB, ``run.json`` and ``log.csv``.
The same command with ``--device cpu`` and small numbers is its rehearsal.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import time
from pathlib import Path
from typing import cast

import numpy as np
import torch

from edgelm.matrices.quantize import PRECISIONS
from edgelm.model import tensorfile
from edgelm.model.config import PRESETS
from edgelm.model.packing import pack
from tools.pretrain.cores import make_shards
from tools.pretrain.corpus import read_mixture
from tools.pretrain.data import TOKEN_BYTES, Streams, StreamsAhead
from tools.pretrain.log import Log
from tools.pretrain.parallel import Group
from tools.pretrain.train import Plan, Trainer

PART_BYTES = 15_000_000
"""A file of weights is no larger."""
RUN = "run.json"


def write_parts(trainer: Trainer, out: Path) -> None:
    """Writes what the run has learned so far; the files before stay until the new ones are complete."""
    weights = {name: tensor.detach().float().cpu().numpy() for name, tensor in trainer.ema.items()}
    packed, parts = pack(weights, PRECISIONS["int8"]), list[dict[str, np.ndarray]]()
    size = PART_BYTES
    for name, array in packed.items():
        if size + array.nbytes > PART_BYTES:
            parts.append({})
            size = 0
        parts[-1][name] = np.ascontiguousarray(array)
        size += array.nbytes
    for number, part in enumerate(parts, 1):
        tensorfile.write(out / f"weights-{number}.safetensors.new", part, {})
    plan = dataclasses.asdict(trainer.plan) | {"config": trainer.plan.config.to_dict()}
    run = {
        "plan": plan,
        "counters": [trainer.step, trainer.tokens, trainer.seconds, trainer.pressure],
        "parts": len(parts),
    }
    for number in range(1, len(parts) + 1):
        os.replace(out / f"weights-{number}.safetensors.new", out / f"weights-{number}.safetensors")
    (out / RUN).write_text(json.dumps(run))


def read_parts(folder: Path) -> tuple[dict[str, object], dict[str, np.ndarray]]:
    """What ``write_parts`` wrote: the fields of ``run.json``, and the packed tensors."""
    run = json.loads((folder / RUN).read_text())
    packed: dict[str, np.ndarray] = {}
    for number in range(1, run["parts"] + 1):
        packed |= tensorfile.read(folder / f"weights-{number}.safetensors")[0]
    return run, packed


def train(trainer: Trainer, args: argparse.Namespace) -> bool:
    """Trains to the end of the plan; False as soon as the run is judged to be too slow."""
    saved, judged = 0.0, args.judge_seconds <= 0
    streams, begun = cast(StreamsAhead, trainer.streams), time.monotonic() - trainer.seconds
    with Log(trainer) as log:
        while trainer.progress() < 1:
            if trainer.progress() > 1 - args.last_share:
                streams.phase = 1
            log.add(trainer.train_step())
            trainer.seconds = time.monotonic() - begun  # what is lent passes while weights are written, too
            if not judged and trainer.seconds > args.judge_seconds:
                judged = True
                steady = (trainer.tokens - args.first_tokens) / (trainer.seconds - args.first_seconds)
                if steady < args.least_speed:
                    print(f"{steady:,.0f} tokens/s are too few", flush=True)
                    return False
            if trainer.step == 3:
                # Compiling is over: from here on the speed is that of the run.
                args.first_tokens, args.first_seconds = trainer.tokens, trainer.seconds
            if trainer.seconds - saved > args.save_seconds:
                write_parts(trainer, args.out)
                saved = trainer.seconds
    write_parts(trainer, args.out)
    return True


def make_trainer(preset: str, seconds: float, args: argparse.Namespace) -> Trainer:
    """A run of so many seconds."""
    vocab_size = len(np.load(args.shards / TOKEN_BYTES))
    config = PRESETS[preset].resized(vocab_size=vocab_size)
    plan = Plan(
        config, read_mixture(args.mixture), args.batch_size, args.window, args.lr, 0.05, seconds / 60, 0.0, 0.22, 0.05,
        0.99, args.seed, args.begin_from or "",
    )  # fmt: skip
    trainer = Trainer(plan, args.shards, args.out, Group(args.device))
    if args.begin_from:
        trainer.begin_from(args.begin_from)
    mixtures = [plan.mixture, read_mixture(args.last_mixture or args.mixture)]
    ahead = StreamsAhead(args.shards, mixtures, args.batch_size, args.window, plan.seed)
    trainer.streams = cast(Streams, ahead)
    if not args.no_compile:
        for layer in trainer.model.layers:
            layer.compile(dynamic=False)
    return trainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--mixture", type=Path, required=True)
    parser.add_argument("--last-mixture", type=Path, help="of the end of the run")
    parser.add_argument("--last-share", type=float, default=0.25, help="of the time, for --last-mixture")
    parser.add_argument("--shards", type=Path, default=Path("gpu-shards"), help="where shards are made, or are already")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="base")
    parser.add_argument("--seconds", type=float, default=500, help="of training, the compiling included")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--lr", type=float, default=6e-3)
    parser.add_argument("--judge-seconds", type=float, default=90, help="0: never")
    parser.add_argument("--least-speed", type=float, default=120_000, help="tokens a second")
    parser.add_argument("--save-seconds", type=float, default=120)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--begin-from", metavar="MODEL", help="a model whose weights the run begins with")
    parser.add_argument("--no-compile", action="store_true")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    args.first_tokens, args.first_seconds = 0, 0.0
    begun = time.monotonic()
    names = list(read_mixture(args.mixture) | read_mixture(args.last_mixture or args.mixture))
    if not all((args.shards / f"{name}.npy").exists() for name in names):
        n_tokens = make_shards(args.corpus, args.shards, args.tokenizer, names)
        print(f"{n_tokens:,} tokens after {time.monotonic() - begun:.0f} s", flush=True)
    if args.device == "cuda":
        torch.set_float32_matmul_precision("high")
    trainer = make_trainer(args.preset, args.seconds, args)
    if not train(trainer, args):
        left = max(1.0, args.seconds - trainer.seconds)  # a run of no length would never be over
        trainer.streams.close()
        del trainer
        torch._dynamo.reset()
        args.judge_seconds = 0.0
        train(make_trainer("small", left, args), args)


if __name__ == "__main__":
    main()
