"""RWKV-7 of random numbers as a ``.gguf``, and how far the paper's logits are from those of llama.cpp.

    python -m tools.measure.peers.random_rwkv7 OUT.gguf [--layers L] [--width D] [--q8]

Heads have 64 features, the vocabulary 65,536 tokens, which are numbers and mean nothing. With ``--q8`` large matrices
are Q8_0, for comparing speeds (``python -m edgelm.bench.peers.llama_peer --gguf OUT.gguf``), and nothing is judged.
Needs the packages ``gguf`` and ``llama-cpp-python``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import gguf
import llama_cpp
import numpy as np

from edgelm.convert.opening import open_checkpoint
from edgelm.convert.rwkv7 import EPS, HEAD_DIM, Rwkv7
from edgelm.learn.importing import model_config
from edgelm.model.reference import forward
from edgelm.model.state import empty_state
from edgelm.model.weights import random_weights, tensors

VOCAB_SIZE, N_TOKENS = 65_536, 24
RANKS = {"decay_rank": 64, "rate_rank": 64, "mix_rank": 32, "gate_rank": 128}
_PARTS = {"mixer.norm": "attn_norm", "ffn.norm": "attn_norm_2", "mixer.head_norm": "time_mix_ln"}
_MIXES = ("x_r", "x_w", "x_k", "x_v", "x_a", "x_g")


def made(n_layers: int, width: int) -> dict[str, np.ndarray]:
    """All tensors by llama.cpp's names."""
    sizes = {"vocab_size": VOCAB_SIZE, "d_model": width, "n_layers": n_layers, "n_heads": width // HEAD_DIM}
    config = model_config(sizes | {"head_dim": HEAD_DIM, "hidden_size": 4 * width} | RANKS)
    weights = random_weights(config, np.random.default_rng(0))
    ones = np.ones(width, np.float32)
    found = {"token_embd.weight": weights["embed"], "output.weight": weights["head"]}
    found |= {"token_embd_norm.weight": ones, "token_embd_norm.bias": 0 * ones}
    found |= {"output_norm.weight": weights["final_norm"], "output_norm.bias": weights["final_norm_bias"]}
    for name, array in weights.items():
        if not name.startswith("layers.") or name.rpartition(".")[2] in _MIXES:
            continue
        _, layer, part = name.split(".", 2)
        stem = part.removesuffix("_bias")
        if stem in _PARTS:
            end = "bias" if stem != part else "weight"
            found[f"blk.{layer}.{_PARTS[stem]}.{end}"] = array
            continue
        own = (
            part.replace("mixer.", "time_mix_").replace("ffn.x_k", "channel_mix_lerp_k").replace("ffn.", "channel_mix_")
        )
        found[f"blk.{layer}.{own}.weight"] = array.T if part == "ffn.value" else array.reshape(array.shape or -1)
    for which in "012":  # llama.cpp expects those of a in the place of what the first layer has no use for
        found[f"blk.0.time_mix_v{which}.weight"] = found[f"blk.0.time_mix_a{which}.weight"]
    for layer in range(n_layers):
        mixes = [weights[f"layers.{layer}.mixer.{mix}"] for mix in _MIXES]
        found[f"blk.{layer}.time_mix_lerp_fused.weight"] = np.stack(mixes).reshape(6, 1, 1, width)
        found[f"blk.{layer}.channel_mix_lerp_k.weight"] = weights[f"layers.{layer}.ffn.x_k"]
        found[f"blk.{layer}.time_mix_r_k.weight"] = weights[f"layers.{layer}.mixer.r_k"].reshape(-1)
    return found


def write(path: Path, n_layers: int, width: int, *, q8: bool) -> None:
    """Writes the model."""
    writer = gguf.GGUFWriter(path, "rwkv7")
    writer.add_block_count(n_layers)
    writer.add_context_length(4096)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(4 * width)
    writer.add_layer_norm_eps(EPS)
    writer.add_wkv_head_size(HEAD_DIM)
    writer.add_head_count(0)
    writer.add_decay_lora_rank(RANKS["decay_rank"])
    writer.add_iclr_lora_rank(RANKS["rate_rank"])
    writer.add_value_residual_mix_lora_rank(RANKS["mix_rank"])
    writer.add_gate_lora_rank(RANKS["gate_rank"])
    writer.add_tokenizer_model("rwkv")
    writer.add_token_list([f"{i}".encode() for i in range(VOCAB_SIZE)])
    writer.add_token_types([1] * VOCAB_SIZE)
    kind = gguf.GGMLQuantizationType.Q8_0
    for name, array in made(n_layers, width).items():
        numbers = np.ascontiguousarray(array, np.float32)
        if q8 and numbers.ndim == 2 and min(numbers.shape) > max(RANKS.values()):
            writer.add_tensor(name, gguf.quants.quantize(numbers, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, numbers)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def difference(path: Path) -> float:
    """The largest difference of a logit to llama.cpp's, as a share of the range of those."""
    ids = np.random.default_rng(1).integers(1, VOCAB_SIZE, N_TOKENS)
    peer = llama_cpp.Llama(str(path), n_ctx=128, n_batch=64, logits_all=True, verbose=False, n_threads=1)
    peer.eval(ids.tolist())
    theirs = np.array(peer.scores[:N_TOKENS])
    source = Rwkv7(open_checkpoint(path))
    config, weights = model_config(source.sizes), dict(source.tensors())
    for name, spec in tensors(config).items():
        weights.setdefault(name, np.zeros(spec.shape, np.float32))
    ours, _, _ = forward(ids, weights, empty_state(config), config)
    return float(np.abs(ours - theirs).max() / np.ptp(theirs))


def main() -> None:
    """Writes the model, and prints the difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, metavar="OUT.gguf")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--q8", action="store_true")
    args = parser.parse_args()
    write(args.path, args.layers, args.width, q8=args.q8)
    if not args.q8:
        print(f"largest difference of a logit: {difference(args.path):.2g} of their range")


if __name__ == "__main__":
    main()
