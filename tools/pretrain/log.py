"""What a run tells of itself while it trains: ``log.csv``, ``keys.csv``, ``loss.png`` and a line of progress."""

from __future__ import annotations

import csv
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from torch import Tensor

from tools.pretrain.keys import KEY_FIELDS, key_statistics

if TYPE_CHECKING:
    from tools.pretrain.train import Trainer

FIELDS = [
    "step", "tokens", "seconds", "loss_nats", "bits_per_byte", "awake", "dead_blocks", "pressure", "lr", "tokens_per_s",
]  # fmt: skip


class Log:
    """``log.csv`` and the progress line, every tenth step; of several processes, the first one's.

    Every 250th step ``keys.csv`` receives what each head of the decay section writes with (``tools.pretrain.keys``).
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer, self._speaks = trainer, trainer.group.rank == 0
        self._then, self._tokens = time.monotonic(), trainer.tokens
        self._smooth: dict[str, Tensor | float] = {}

    def __enter__(self) -> Log:
        path = self._trainer.run_dir / "log.csv" if self._speaks else Path(os.devnull)
        self._file, self._writer = _open_table(path, FIELDS)
        keys = self._trainer.run_dir / "keys.csv" if self._speaks else Path(os.devnull)
        self._keys_file, self._keys_writer = _open_table(keys, KEY_FIELDS)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._keys_file.close()

    def add(self, step: dict[str, Tensor | float]) -> None:
        """Takes the row of a step."""
        for name in ("loss_nats", "bits_per_byte"):
            self._smooth[name] = 0.95 * self._smooth.get(name, step[name]) + 0.05 * step[name]
        trainer = self._trainer
        if trainer.step % 10 or not self._speaks:
            return
        if trainer.step % 250 == 0:
            for heads in key_statistics(trainer.model, trainer.drawn):
                self._keys_writer.writerow({"step": trainer.step} | heads)
            self._keys_file.flush()
        now = time.monotonic()
        speed = (trainer.tokens - self._tokens) / (now - self._then)
        self._then, self._tokens = now, trainer.tokens
        row = {name: float(value) for name, value in step.items()}
        row |= {"step": trainer.step, "tokens": trainer.tokens, "seconds": round(trainer.seconds, 1)}
        row["tokens_per_s"] = round(speed)
        self._writer.writerow({k: round(v, 6) if isinstance(v, float) else v for k, v in row.items()})
        self._file.flush()
        print(
            f"{trainer.progress():6.1%} step {trainer.step} loss {self._smooth['loss_nats']:.3f} "
            f"bits/byte {self._smooth['bits_per_byte']:.3f} awake {row['awake']:.3f} dead {row['dead_blocks']:.0f} "
            f"pressure {row['pressure']:.1e} {speed:,.0f} tokens/s",
            flush=True,
        )


def _open_table(path: Path, fields: list[str]) -> tuple[TextIO, csv.DictWriter[str]]:
    """A table that is added to; a new one begins with the names of its columns."""
    is_new = path != Path(os.devnull) and not path.exists()
    file = path.open("a", newline="")
    writer = csv.DictWriter(file, fields)
    if is_new:
        writer.writeheader()
    return file, writer


def plot(run_dir: Path) -> None:
    """Draws ``loss.png`` from ``log.csv``."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    with (run_dir / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    tokens = [int(row["tokens"]) / 1e6 for row in rows]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
    left.plot(tokens, [float(row["loss_nats"]) for row in rows], linewidth=0.6)
    left.set(xlabel="million tokens", ylabel="nats per token")
    right.plot(tokens, [float(row["awake"]) for row in rows])
    right.set(xlabel="million tokens", ylabel="share of blocks awake", ylim=(0, 1.05))
    figure.tight_layout()
    figure.savefig(run_dir / "loss.png", dpi=110)
