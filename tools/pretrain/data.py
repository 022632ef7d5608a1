"""Tokenises a corpus into shards, and draws batches of continuing streams from them.

    python -m tools.pretrain.data CORPUS_DIR SHARD_DIR --tokenizer tokenizer.json --held-out eval/*.txt

A shard is ``NAME.npy``: uint16 token ids, each document followed by the end-of-document id 0; beside the shards
``token_bytes.npy`` holds the length of every token. Texts are read, filtered and written document by document.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
from collections.abc import Iterable
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

import numpy as np

from edgelm.text.opening import open_tokenizer
from edgelm.text.tokenizer import DOC_ID, Tokenizer
from tools.pretrain.clean import Filter
from tools.pretrain.corpus import has_text, read_documents, read_mixture

TOKEN_BYTES = "token_bytes.npy"


def write_shard(tokenizer: Tokenizer, documents: Iterable[str], path: Path) -> tuple[int, int]:
    """Tokenises documents into ``path``; returns the numbers of tokens and of bytes."""
    n_tokens, n_bytes = 0, 0
    raw = path.with_suffix(".ids")
    with raw.open("wb") as file:
        for document in documents:
            ids = np.asarray([*tokenizer.encode(document), DOC_ID], dtype="<u2")
            file.write(ids.tobytes())
            n_tokens += len(ids)
            n_bytes += len(document.encode())
    # The length stands in front of the numbers and is known only now.
    finished = path.with_suffix(".tmp")
    with raw.open("rb") as source, finished.open("wb") as target:
        header = {"descr": "<u2", "fortran_order": False, "shape": (n_tokens,)}
        np.lib.format.write_array_header_1_0(target, header)
        shutil.copyfileobj(source, target)
    raw.unlink()
    os.replace(finished, path)
    return n_tokens, n_bytes


def write_token_bytes(tokenizer: Tokenizer, shard_dir: Path) -> None:
    """Writes the length in bytes of each token's text, the end-of-document line's for its id."""
    lengths = [len(tokenizer.decode_bytes([token_id])) for token_id in range(tokenizer.vocab_size)]
    np.save(shard_dir / TOKEN_BYTES, np.array(lengths, np.uint8))


class Streams:
    """B endless token streams drawn from shards by mixture weight, document by document.

    Each stream reads whole documents, so a carried state always belongs to the text before it.

    Parameters
    ----------
    shard_dir : Path
        Folder of ``NAME.npy`` files.
    mixture : dict
        Epochs of each source relative to 1; a source is drawn in proportion to tokens times weight.
    batch_size, window : int
        Streams B and tokens T of a batch.
    seed : int or list of int
        Same seed, same shards: same batches.
    """

    def __init__(
        self, shard_dir: Path, mixture: dict[str, float], batch_size: int, window: int, seed: int | list[int]
    ) -> None:
        self._shards = [np.load(shard_dir / f"{name}.npy", mmap_mode="r") for name in mixture]
        # Starts and ends of the documents, each with its end-of-document id.
        self._ends = [np.flatnonzero(np.asarray(shard) == DOC_ID) + 1 for shard in self._shards]
        self._names = list(mixture)
        self.mix(mixture)
        self._rng = np.random.default_rng(seed)
        self._batch_size, self._window = batch_size, window
        self._token_bytes = np.load(shard_dir / TOKEN_BYTES)
        self._left: list[np.ndarray] = [np.zeros(1, np.uint16) for _ in range(batch_size)]

    def mix(self, mixture: dict[str, float]) -> None:
        """Draws by another mixture of the same sources; those that it does not name are not drawn."""
        # A document is drawn uniformly within its source, so a source's share is its tokens times its
        # weight divided by its mean document length.
        weights = [mixture.get(name, 0.0) for name in self._names]
        share = np.array([len(ends) * weight for ends, weight in zip(self._ends, weights, strict=True)])
        self._share = share / share.sum()

    def next_batch(self) -> np.ndarray:
        """Token ids [B, T+1] uint16; the last column is the first of the next batch."""
        window = self._window
        batch = np.empty((self._batch_size, window + 1), np.uint16)
        for row in range(self._batch_size):
            parts, have = [self._left[row]], len(self._left[row])
            while have <= window:
                document = self._draw()
                parts.append(document)
                have += len(document)
            ids = np.concatenate(parts)
            batch[row] = ids[: window + 1]
            self._left[row] = ids[window:]
        return batch

    def bytes_per_token(self, ids: np.ndarray) -> float:
        """Mean length in bytes of the texts of ``ids``."""
        return float(self._token_bytes[ids].mean())

    def _draw(self) -> np.ndarray:
        source = int(self._rng.choice(len(self._share), p=self._share))
        ends = self._ends[source]
        index = int(self._rng.integers(len(ends)))
        start = int(ends[index - 1]) if index else 0
        return np.asarray(self._shards[source][start : ends[index]])

    def state(self) -> dict[str, object]:
        """All that is needed to continue with the very next batch."""
        return {"rng": self._rng.bit_generator.state, "left": [part.tolist() for part in self._left]}

    def load_state(self, state: dict[str, object]) -> None:
        """Continues where ``state`` was taken."""
        self._rng.bit_generator.state = state["rng"]
        self._left = [np.asarray(part, np.uint16) for part in state["left"]]  # type: ignore[union-attr]


def _draw_ahead(queue: Any, phase: Synchronized[int], mixtures: list[dict[str, float]], arguments: Any) -> None:
    shard_dir, batch_size, window, seed = arguments
    streams, drawn_by = Streams(shard_dir, _all_sources(mixtures), batch_size, window, seed), -1
    while True:
        if drawn_by != phase.value:
            drawn_by = phase.value
            streams.mix(mixtures[drawn_by])
        queue.put(streams.next_batch())


def _all_sources(mixtures: list[dict[str, float]]) -> dict[str, float]:
    return {name: weight for mixture in mixtures for name, weight in mixture.items()}


class StreamsAhead:
    """Streams that a process of its own draws some batches ahead, for a device that is quicker than the drawing.

    Parameters
    ----------
    shard_dir, batch_size, window, seed
        As of ``Streams``.
    mixtures : list of dict
        One of each phase of the run; ``phase`` says which is drawn by, a few batches later.
    """

    AHEAD = 16

    def __init__(
        self, shard_dir: Path, mixtures: list[dict[str, float]], batch_size: int, window: int, seed: int
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._token_bytes = np.load(shard_dir / TOKEN_BYTES)
        self._queue: Any = context.Queue(self.AHEAD)
        self._phase = context.Value("i", 0)
        arguments = (self._queue, self._phase, mixtures, (shard_dir, batch_size, window, seed))
        self._process = context.Process(target=_draw_ahead, args=arguments, daemon=True)
        self._process.start()

    @property
    def phase(self) -> int:
        """The number of the mixture."""
        return self._phase.value

    @phase.setter
    def phase(self, phase: int) -> None:
        self._phase.value = phase

    def next_batch(self) -> np.ndarray:
        """As of ``Streams``."""
        return self._queue.get()  # type: ignore[no-any-return]

    def bytes_per_token(self, ids: np.ndarray) -> float:
        """As of ``Streams``."""
        return float(self._token_bytes[ids].mean())

    def close(self) -> None:
        """Ends the process."""
        self._process.terminate()
        self._process.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("shards", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--mixture", type=Path, default=Path(__file__).with_name("mixture.toml"))
    parser.add_argument("--held-out", type=Path, nargs="*", default=[], help="texts to be measured on")
    parser.add_argument("--never", type=Path, nargs="*", default=[], help="texts of which not one run is trained on")
    args = parser.parse_args()
    tokenizer = open_tokenizer(args.tokenizer)
    args.shards.mkdir(parents=True, exist_ok=True)
    mixture = read_mixture(args.mixture)
    held_out, never = ((path.read_text(encoding="utf-8") for path in paths) for paths in (args.held_out, args.never))
    kept = Filter(held_out, never)
    drawn: dict[str, float] = {}
    for name, weight in mixture.items():
        if not has_text(args.corpus, name):
            print(f"{name:20s} no text in {args.corpus}: its shard is to be made by another tool (README.md)")
            continue
        documents = kept.keep(read_documents(args.corpus, name))
        n_tokens, n_bytes = write_shard(tokenizer, documents, args.shards / f"{name}.npy")
        drawn[name] = n_tokens * weight
        left_out = ", ".join(f"{n} {reason}" for reason, n in kept.left_out.items()) or "nothing"
        kept.left_out.clear()
        sizes = f"{n_tokens:11,d} tokens {n_bytes:12,d} bytes {n_bytes / max(1, n_tokens):5.2f} bytes/token"
        print(f"{name:20s} {sizes}, left out: {left_out}", flush=True)
    write_token_bytes(tokenizer, args.shards)
    total = sum(drawn.values())
    for name, tokens in drawn.items():
        print(f"{name:20s} {tokens / total:6.1%}")


if __name__ == "__main__":
    main()
