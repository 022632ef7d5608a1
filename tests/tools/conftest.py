"""A corpus, a tokenizer and a trained model small enough to make in seconds."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.tools.tiny_run import CONFIG, MIXTURE, kept_signals


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two sources, the names those of ``MIXTURE``."""
    from tools.pretrain.corpus import SEPARATOR
    from tools.pretrain.everyday import Phrases, compose

    folder, phrases = tmp_path_factory.mktemp("corpus"), Phrases()
    for seed, name in enumerate(MIXTURE):
        rng = random.Random(seed)
        text = SEPARATOR.join(compose(phrases, rng) for _ in range(40)) + "\n"
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def tokenizer_file(corpus: Path) -> Path:
    """A tokenizer of ``CONFIG.vocab_size`` tokens."""
    from tools.pretrain import tokenizer

    path = corpus / "tokenizer.json"
    texts = tokenizer.sample(corpus, MIXTURE, 50_000, seed=0)
    path.write_text(tokenizer.train(texts, CONFIG.vocab_size), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def shards(corpus: Path, tokenizer_file: Path) -> Path:
    """The corpus as token ids."""
    from edgelm.text.opening import open_tokenizer
    from tools.pretrain.corpus import read_documents
    from tools.pretrain.data import write_shard, write_token_bytes

    tokenizer = open_tokenizer(tokenizer_file)
    for name in MIXTURE:
        write_shard(tokenizer, read_documents(corpus, name), corpus / f"{name}.npy")
    write_token_bytes(tokenizer, corpus)
    return corpus


@pytest.fixture(scope="session")
def make_trainer(shards: Path) -> Callable[..., Any]:
    """Makes a trainer of ``CONFIG`` in a folder; keywords change its plan."""

    def make(run_dir: Path, device: str = "cpu", **changes: Any) -> Any:
        from tools.pretrain.parallel import Group
        from tools.pretrain.train import Plan, Trainer

        plan = {
            "config": CONFIG, "mixture": MIXTURE, "batch_size": 4, "window": 32, "lr": 1e-2, "weight_decay": 0.05,
            "minutes": 0.0, "tokens": 40 * 4 * 32, "target_awake": 0.4, "locality": 0.05, "ema": 0.9, "seed": 3,
        }  # fmt: skip
        run_dir.mkdir(parents=True, exist_ok=True)
        return Trainer(Plan(**(plan | changes)), shards, run_dir, Group(device))

    return make


@pytest.fixture(scope="session")
def train() -> Callable[..., None]:
    """Runs a trainer to the end of its plan, or to ``max_steps``."""

    def train(trainer: Any, max_steps: int = 0) -> None:
        from tools.pretrain.train import run

        with kept_signals():
            run(trainer, save_minutes=5, max_steps=max_steps)

    return train


@pytest.fixture(scope="session")
def run_dir(
    make_trainer: Callable[..., Any], train: Callable[..., None], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of a finished run of 40 steps."""
    trainer = make_trainer(tmp_path_factory.mktemp("run"))
    train(trainer)
    return Path(trainer.run_dir)
