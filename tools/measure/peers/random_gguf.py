"""A Transformer of random numbers for llama.cpp, q8_0, that reads as many bytes for a token as the bundled model.

    python -m tools.measure.peers.random_gguf OUT.gguf [--bytes N]

Its speed is that of a trained one: nothing of it depends on the numbers. Llama's layers (attention with as many heads
for keys as for queries, SwiGLU), as many and as wide as those of the bundled model, the embedding tied; the
feed-forward layers are as wide as the bytes ask for. Needs the package ``gguf``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import gguf
import numpy as np

from edgelm.bench.limit import bytes_per_token
from edgelm.matrices.quantize import PRECISIONS
from edgelm.model import hub
from edgelm.model.config import ModelConfig

HEAD = 64
BYTES_PER_NUMBER = 34 / 32
"""Of q8_0: 32 numbers and a float16."""
AWAKE = 0.24
"""Share of the blocks that are awake for a token, as ``edgelm bench`` shows it."""


def feed_forward_width(config: ModelConfig, n_bytes: float) -> int:
    """So wide that a token reads about ``n_bytes``, a multiple of 32."""
    layer = (n_bytes / BYTES_PER_NUMBER - config.vocab_size * config.d_model) / config.n_layers
    width = (layer - 4 * config.d_model**2) / (3 * config.d_model)
    return max(32, round(width / 32) * 32)


def tensors(config: ModelConfig, width: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """All tensors [out,in] float32, by llama.cpp's names."""
    d = config.d_model
    shapes: dict[str, tuple[int, ...]] = {"token_embd": (config.vocab_size, d), "output_norm": (d,)}
    for i in range(config.n_layers):
        shapes |= {f"blk.{i}.{name}": (d, d) for name in ("attn_q", "attn_k", "attn_v", "attn_output")}
        shapes |= {f"blk.{i}.{name}": (d,) for name in ("attn_norm", "ffn_norm")}
        shapes |= {f"blk.{i}.ffn_gate": (width, d), f"blk.{i}.ffn_up": (width, d), f"blk.{i}.ffn_down": (d, width)}
    made = {
        name: rng.standard_normal(shape, np.float32) / np.float32(shape[-1] ** 0.5) for name, shape in shapes.items()
    }
    return {name: np.ones_like(array) if name.endswith("norm") else array for name, array in made.items()}


def write(path: Path, config: ModelConfig, n_bytes: float) -> int:
    """Writes the model; returns the bytes that a token reads of it."""
    width, read = feed_forward_width(config, n_bytes), 0
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(4096)
    writer.add_embedding_length(config.d_model)
    writer.add_block_count(config.n_layers)
    writer.add_feed_forward_length(width)
    writer.add_head_count(config.d_model // HEAD)
    writer.add_head_count_kv(config.d_model // HEAD)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(HEAD)
    writer.add_vocab_size(config.vocab_size)
    _write_tokens(writer, config.vocab_size)
    for name, array in tensors(config, width, np.random.default_rng(0)).items():
        q8 = gguf.GGMLQuantizationType.Q8_0
        blob = gguf.quants.quantize(array, q8) if array.ndim > 1 else array
        writer.add_tensor(name + ".weight", blob, raw_dtype=q8 if array.ndim > 1 else None)
        read += blob.nbytes
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return read


def _write_tokens(writer: gguf.GGUFWriter, n: int) -> None:
    """A vocabulary of bytes, filled up to ``n``."""
    kinds = gguf.TokenType
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    types = [kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL, *[kinds.BYTE] * 256]
    fill = [f"\u2581token{i}" for i in range(n - len(tokens))]
    writer.add_tokenizer_model("llama")
    writer.add_token_list([*tokens, *fill])
    writer.add_token_scores([0.0] * n)
    writer.add_token_types([*types, *[kinds.NORMAL] * len(fill)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--bytes", type=float, help="that a token reads; default: as the bundled model in int8")
    args = parser.parse_args()
    config = hub.load().config
    pairs = round(AWAKE * config.n_layers * config.n_blocks)
    n_bytes = args.bytes or bytes_per_token(config, pairs, PRECISIONS["int8"])
    read = write(args.out, config, n_bytes)
    print(f"{args.out}: {read:,} bytes a token, besides keys and values; {n_bytes:,.0f} were asked for")


if __name__ == "__main__":
    main()
