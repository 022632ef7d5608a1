"""Makes the shards of a run with all processor cores, for a machine that is there for some minutes."""

from __future__ import annotations

import functools
import itertools
import lzma
import multiprocessing
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from edgelm.text.opening import open_tokenizer
from edgelm.text.tokenizer import DOC_ID
from tools.pretrain.corpus import read_documents
from tools.pretrain.data import TOKEN_BYTES, write_token_bytes

BATCH_DOCUMENTS = 500

_tokenizer = functools.cache(open_tokenizer)


def _encode(tokenizer: Path, documents: list[str]) -> np.ndarray:
    encode = _tokenizer(tokenizer).encode
    return np.concatenate([np.array([*encode(d), DOC_ID], np.uint16) for d in documents])


def _batches(corpus: Path, name: str) -> Iterator[list[str]]:
    documents = read_documents(corpus, name)
    while batch := list(itertools.islice(documents, BATCH_DOCUMENTS)):
        yield batch


def _unpack(packed: Path, shard: Path) -> None:
    with lzma.open(packed) as source, shard.open("wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)


def make_shards(corpus: Path, shards: Path, tokenizer: Path, names: list[str]) -> int:
    """Writes a shard of each source; returns the tokens.

    A source is a shard made before, ``NAME.npy.xz``, or a text.
    """
    shards.mkdir(parents=True, exist_ok=True)
    packed = [name for name in names if (corpus / f"{name}.npy.xz").exists()]
    # A process that forks while other threads hold locks may never go on.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(mp_context=context) as pool:
        jobs = [pool.submit(_unpack, corpus / f"{name}.npy.xz", shards / f"{name}.npy") for name in packed]
        for name in names:
            if name not in packed:
                encoded = pool.map(functools.partial(_encode, tokenizer), _batches(corpus, name))
                np.save(shards / f"{name}.npy", np.concatenate(list(encoded)))
        for job in jobs:
            job.result()
    if (corpus / TOKEN_BYTES).exists():
        shutil.copyfile(corpus / TOKEN_BYTES, shards / TOKEN_BYTES)
    else:
        write_token_bytes(open_tokenizer(tokenizer), shards)
    return sum(len(np.load(shards / f"{name}.npy", mmap_mode="r")) for name in names)
