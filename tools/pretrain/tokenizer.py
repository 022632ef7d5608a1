"""Trains the byte-level BPE tokenizer on a sample of the mixture.

python -m tools.pretrain.tokenizer CORPUS_DIR OUT.json --vocab-size 4096
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from edgelm.text.byte_pairs import SPLIT
from edgelm.text.tokenizer import DOC_LINE
from tools.pretrain.corpus import read_documents, read_mixture


def sample(folder: Path, mixture: dict[str, float], budget_chars: int, seed: int) -> Iterator[str]:
    """Random documents of every source, in proportion to size times weight."""
    texts = {name: list(read_documents(folder, name)) for name in mixture}
    sizes = {name: sum(map(len, docs)) * mixture[name] for name, docs in texts.items()}
    scale = budget_chars / sum(sizes.values())
    for name, docs in texts.items():
        random.Random(seed).shuffle(docs)
        left = sizes[name] * scale
        for document in docs:
            if left <= 0:
                break
            left -= len(document)
            yield document


def train(texts: Iterator[str], vocab_size: int) -> str:
    """The tokenizer as JSON, id 0 reserved and without a spelling."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[DOC_LINE],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=16,
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    spec = json.loads(backend.to_str())
    spec["added_tokens"] = []  # the id stays reserved, text can no longer spell it
    return json.dumps(spec, ensure_ascii=False, separators=(",", ":"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--mixture", type=Path, default=Path(__file__).with_name("mixture.toml"))
    parser.add_argument("--vocab-size", type=int, default=4096)
    parser.add_argument("--sample-chars", type=int, default=40_000_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    texts = sample(args.corpus, read_mixture(args.mixture), args.sample_chars, args.seed)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(train(texts, args.vocab_size) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
