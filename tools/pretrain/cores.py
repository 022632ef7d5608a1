"""Tokenises a corpus with all processor cores, for a machine that is there for some minutes."""

from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from edgelm.text.tokenizer import DOC_ID, Tokenizer
from tools.pretrain.corpus import read_documents
from tools.pretrain.data import write_token_bytes

BATCH_DOCUMENTS = 500

_tokenizer: Tokenizer | None = None


def _begin(path: Path) -> None:
    global _tokenizer
    _tokenizer = Tokenizer(path)


def _encode(documents: list[str]) -> np.ndarray:
    assert _tokenizer is not None
    return np.concatenate([np.array([*_tokenizer.encode(d), DOC_ID], np.uint16) for d in documents])


def _batches(corpus: Path, name: str) -> Iterator[list[str]]:
    documents = read_documents(corpus, name)
    while batch := list(itertools.islice(documents, BATCH_DOCUMENTS)):
        yield batch


def tokenise(corpus: Path, shards: Path, tokenizer: Path, names: list[str]) -> int:
    """Writes a shard of each source, with all cores; returns the tokens."""
    shards.mkdir(parents=True, exist_ok=True)
    total = 0
    # A process that forks while other threads hold locks may never go on.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(mp_context=context, initializer=_begin, initargs=(tokenizer,)) as pool:
        for name in names:
            ids = np.concatenate(list(pool.map(_encode, _batches(corpus, name))))
            np.save(shards / f"{name}.npy", ids)
            total += len(ids)
    write_token_bytes(Tokenizer(tokenizer), shards)
    return total
