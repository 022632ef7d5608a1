"""Makes a model folder from a checkpoint: ternary, int4 or int8 weights, gradient scales, card data.

python -m tools.pretrain.release RUN_DIR SHARDS TOKENIZER.json OUT_DIR --name small
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save

from edgelm.learn.learner import measure_grad_rms
from edgelm.matrices.quantize import PRECISIONS
from edgelm.model import tensorfile
from edgelm.model.config import ModelConfig
from edgelm.model.hub import write_model
from edgelm.model.packing import Shifted, check_packed, narrowed, pack, unpack
from edgelm.model.weights import ternary_names
from edgelm.text.tokenizer import document_ids
from tools.pretrain.data import Streams
from tools.pretrain.gpu import RUN, read_parts

SEGMENT = 32


def read_run(run_dir: Path, precision: str, *, raw: bool) -> tuple[dict[str, Any], list[Any], dict[str, np.ndarray]]:
    """Plan, counters and packed weights of a run: of its checkpoint, or of what ``tools.pretrain.gpu`` left."""
    if not (run_dir / "checkpoint.pt").exists() and (run_dir / RUN).exists():
        run, packed = read_parts(run_dir)
        return run["plan"], run["counters"], dict(Shifted(packed))  # type: ignore[return-value]
    saved = torch.load(run_dir / "checkpoint.pt", weights_only=True, map_location="cpu")
    tensors = saved["model"] if raw else saved["ema"]
    weights = {name: tensor.numpy() for name, tensor in tensors.items()}
    plan = json.loads(saved["plan"])
    ternary = ternary_names(ModelConfig.from_dict(plan["config"])) if precision == "ternary" else set()
    # Beside matrices of -1, 0 and 1 what learning changes, and the embedding, are int8.
    return plan, saved["counters"], pack(weights, PRECISIONS["int8" if ternary else precision], ternary)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("shards", type=Path)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--name", default="small")
    parser.add_argument("--raw", action="store_true", help="the last weights instead of their moving average")
    parser.add_argument(
        "--precision", choices=["none", "int8", "int4", "ternary"], default="int8", help="of the matrices"
    )
    parser.add_argument("--rms-tokens", type=int, default=60_000)
    args = parser.parse_args()
    plan, counters, packed = read_run(args.run_dir, args.precision, raw=args.raw)
    config, weights = ModelConfig.from_dict(plan["config"]), unpack(packed)
    check_packed(packed, config, str(args.run_dir))

    # One stream, other than those of training, drawn by the same mixture.
    streams = Streams(args.shards, plan["mixture"], 1, args.rms_tokens, seed=plan["seed"] + 1000)
    grad_rms = measure_grad_rms(config, weights, document_ids(streams.next_batch()[0].tolist()), SEGMENT)
    step, tokens, seconds, _ = counters
    card = {"steps": step, "tokens": tokens, "training_seconds": round(seconds), "mixture": plan["mixture"]}
    files = {
        "tokenizer.json": args.tokenizer.read_bytes(),
        "weights.safetensors": tensorfile.to_bytes(narrowed(packed)),
        "learning.safetensors": save(grad_rms),
    }
    write_model(args.out, args.name, config, files, card)
    print(f"{args.out}: {sum(map(len, files.values())):,} bytes")


if __name__ == "__main__":
    main()
