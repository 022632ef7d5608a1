"""Makes documents in which a passage is read again, so that a model that remembers pays less.

    python -m tools.pretrain.again SHARDS --sources books_en wiki_en --documents 12000

Writes ``SHARDS/again.npy``: a passage of a text, what follows it there, and the passage once more. How long the passage
is and how much stands between is drawn so that near repeats are as frequent as far ones, on a logarithmic scale.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edgelm.text.tokenizer import DOC_ID

PASSAGE, BETWEEN = (24, 160), (8, 512)
"""Tokens of a passage and of what stands between, from least to most."""


def draw_length(bounds: tuple[int, int], rng: np.random.Generator) -> int:
    """A length between ``bounds``, its logarithm even."""
    low, high = np.log(bounds)
    return round(float(np.exp(rng.uniform(low, high))))


def repeated(texts: np.ndarray, n_documents: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Documents [n] uint16, each ending in the end-of-document id, out of the documents of a shard."""
    ends = np.flatnonzero(texts == DOC_ID)
    begins = np.concatenate([[0], ends[:-1] + 1])
    fits = np.flatnonzero(ends - begins > PASSAGE[1] + BETWEEN[1])
    if not len(fits):
        raise ValueError(f"no document is longer than {PASSAGE[1] + BETWEEN[1]} tokens")
    for index in rng.choice(fits, n_documents):
        n, between = draw_length(PASSAGE, rng), draw_length(BETWEEN, rng)
        first = int(rng.integers(begins[index], ends[index] - n - between))
        part = texts[first : first + n + between]
        yield np.concatenate([part, part[:n], [DOC_ID]]).astype(np.uint16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path)
    parser.add_argument("--sources", nargs="+", default=["books_en", "wiki_en"])
    parser.add_argument("--documents", type=int, default=12_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    made: list[np.ndarray] = []
    for name in args.sources:
        texts = np.load(args.shards / f"{name}.npy", mmap_mode="r")
        made += repeated(np.asarray(texts), args.documents // len(args.sources), rng)
    ids = np.concatenate(made)
    np.save(args.shards / "again.npy", ids)
    print(f"{len(made):,} documents, {len(ids):,} tokens")


if __name__ == "__main__":
    main()
