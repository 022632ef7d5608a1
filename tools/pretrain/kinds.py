"""Makes ``kinds.safetensors``: what kind of turn somebody writes, learned from turns whose kind is given.

    python -m tools.pretrain.kinds LABELLED.tsv... --out edgelm/models/talk/kinds.safetensors

A line holds a turn, a tab, and a kind of ``edgelm/models/talk/kinds.tsv`` or ``none``, or several with spaces between,
any of which it may be, or ``*`` where it may be any; a turn of a broad kind may be of any of its finer ones, too. What
is learned is the sum of their chances, but for those that a third column names, of which it is not. Every 30th turn
that may not be any, by its hash, is held out; printed is how often its kind is found, of all of them and of the surer
half. The file is trained on all.
"""

from __future__ import annotations

import argparse
import json
import zlib
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgelm.memory.kinds import Bags, Kind, Kinds, bags, broad_of, read_kinds
from edgelm.memory.meaning import PAIRS, Meaning
from edgelm.model import tensorfile

Array = np.ndarray
WORDS, WIDTH = 16_384, 64
BATCH, EPOCHS, RATE, WEIGHT_DECAY, SMOOTHING = 128, 12, 1e-2, 0.02, 0.1
DROP, DROP_HIDDEN = 0.25, 0.2
"""Shares of the words and pairs, and of the sums' numbers, that are left out of a step."""
BEGINNING, HEAD = 0.3, 0.3
"""Root mean square of the first vectors, and deviation of the first weights of kinds."""
HELD_OUT, NO_KIND, ANY = 30, "none", "*"
SOME = 0.5
"""Share of the kinds; a turn that may be of more is no measure, and its chances are not smoothed."""
KINDS = Path("edgelm/models/talk/kinds.tsv")


class Net(nn.Module):
    """The twin of ``Kinds``, whose vectors begin as those of ``meaning``."""

    def __init__(self, meaning: Meaning, n_kinds: int, n_words: int = WORDS, width: int = WIDTH) -> None:
        super().__init__()
        rows = np.arange(n_words)
        known = np.hstack([
            meaning.in_remarks(rows) * np.sqrt(meaning.weights(rows, "remark"))[:, None], meaning.unit("alike", rows)
        ])  # fmt: skip
        _, _, directions = np.linalg.svd(known[: 1 << 13], full_matrices=False)
        vectors = known @ directions[:width].T
        self.words = nn.Parameter(torch.tensor(vectors / np.sqrt((vectors**2).mean()) * BEGINNING))
        self.pairs = nn.Parameter(torch.zeros(PAIRS, width))
        self.out = nn.Linear(width, n_kinds + 1)
        nn.init.normal_(self.out.weight, std=HEAD)

    def forward(self, found: Bags, drop: float = 0.0, drop_hidden: float = 0.0) -> Tensor:
        """Logits [texts, kinds + 1]."""
        root = torch.tensor([max(1, len(words)) ** 0.5 for words in found.words])[:, None]
        hidden = (_sums(self.words, found.words, drop) + _sums(self.pairs, found.pairs, drop)) / root
        return self.out(F.dropout(hidden, drop_hidden))  # type: ignore[no-any-return]


def _sums(vectors: Tensor, rows: list[Array], drop: float) -> Tensor:
    """[texts, width]: the sum of the vectors of each text, some left out."""
    ids = torch.from_numpy(np.concatenate(rows))
    starts = torch.from_numpy(np.concatenate([[0], np.cumsum([len(row) for row in rows])[:-1]]))
    weights = (torch.rand(len(ids)) >= drop).float() / (1 - drop)
    return F.embedding_bag(ids, vectors, starts, mode="sum", per_sample_weights=weights)


def train(net: Net, found: Bags, allowed: Array, epochs: int = EPOCHS) -> None:
    """Trains on all of ``found``; the rate falls to 0. ``allowed`` [texts, kinds + 1] of bool: what each may be."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=WEIGHT_DECAY)
    rng, per_epoch = np.random.default_rng(0), max(1, len(allowed) // BATCH)
    for step in range(epochs * per_epoch):
        if step % per_epoch == 0:
            order = rng.permutation(len(allowed))
        chosen = order[step % per_epoch * BATCH :][:BATCH]
        batch = Bags(*([rows[i] for i in chosen] for rows in found))
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / 50) * (1 - step / (epochs * per_epoch))
        logs = net(batch, DROP, DROP_HIDDEN).log_softmax(1)
        right = logs.masked_fill(torch.from_numpy(~allowed[chosen]), -torch.inf).logsumexp(1)
        smoothing = torch.from_numpy(SMOOTHING * (allowed[chosen].mean(1) < SOME)).float()
        loss = -((1 - smoothing) * right + smoothing * logs.mean(1)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@torch.no_grad()
def tensors_of(net: Net) -> dict[str, Array]:
    """What ``Kinds`` reads."""
    found = {"out": net.out.weight.numpy().astype(np.float16), "bias": net.out.bias.numpy().astype(np.float32)}
    for name in ("words", "pairs"):
        vectors = getattr(net, name).numpy()
        scale = np.maximum(np.abs(vectors).max(1) / 127, 1e-12).astype(np.float32)
        found[name] = np.round(vectors / scale[:, None]).astype(np.int8)
        found[f"{name}.scale"] = scale
    return found


def read_labelled(path: Path, kinds: list[Kind]) -> list[tuple[str, Array]]:
    """Turns of a file, each with what it may be: [kinds + 1] of bool.

    Raises
    ------
    ValueError
        A line is something else.
    """
    number_of = {kind.name: i for i, kind in enumerate(kinds)} | {NO_KIND: len(kinds)}
    counts = np.maximum(broad_of(kinds).T, np.eye(len(kinds) + 1)) > 0
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        turn, *columns = [*line.split("\t"), ""][:3] if line.count("\t") in (1, 2) else ("", "", "")
        names, denied = (column.split() for column in columns)
        names = [*number_of] if names == [ANY] else names
        if not names or not {*names, *denied} <= number_of.keys():
            raise ValueError(f"{path}, line {number}: not a turn, a tab and a kind or several")
        allowed = counts[[number_of[name] for name in names]].any(0)
        allowed[[number_of[name] for name in denied]] = False
        if not allowed.any():
            raise ValueError(f"{path}, line {number}: it may be nothing")
        rows.append((turn, allowed))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labelled", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kinds", type=Path, default=KINDS)
    args = parser.parse_args()
    torch.manual_seed(0)
    meaning, kinds = Meaning(), read_kinds(args.kinds.read_text(encoding="utf-8"))
    rows = [row for path in args.labelled for row in read_labelled(path, kinds)]
    found, allowed = bags(meaning, [turn for turn, _ in rows], WORDS), np.array([may_be for _, may_be in rows])
    held_out = np.array([zlib.crc32(turn.encode()) % HELD_OUT == 0 for turn, _ in rows])
    held_out &= allowed.mean(1) < SOME
    learned = np.flatnonzero(~held_out)
    net = Net(meaning, len(kinds))
    train(net, Bags(*([part[i] for i in learned] for part in found)), allowed[learned])
    asked = np.flatnonzero(held_out)
    chances = Kinds(kinds, tensors_of(net)).chances(meaning, [rows[i][0] for i in asked])
    right, surest = allowed[asked, chances.argmax(1)], np.argsort(-chances.max(1))
    net = Net(meaning, len(kinds))
    train(net, found, allowed)
    tensorfile.write(args.out, tensors_of(net), {"kind": "edgelm kinds"})
    print(json.dumps({
        "turns": len(rows), "held_out": len(asked), "found": round(float(right.mean()), 3),
        "of_the_surer_half": round(float(right[surest[: len(asked) // 2]].mean()), 3),
        "bytes": args.out.stat().st_size,
    }))  # fmt: skip


if __name__ == "__main__":
    main()
