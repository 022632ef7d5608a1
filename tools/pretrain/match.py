"""Which statement answers a question, learned from questions with the statements that answer them.

Late interaction (Khattab and Zaharia 2020, arXiv 2004.12832), the twin of ``Meaning.match``. Each word of a question
looks for the nearest word of every statement of a batch; the gradient goes to that word alone, so only the products of
words that occur are computed, and what is nearest is found by a loop that numba compiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numba import njit
from torch import Tensor, nn

from edgelm.measure.recall import ToldFact
from edgelm.memory.meaning import Lines
from tools.pretrain.told import Memory, near
from tools.pretrain.word_vectors import Texts, Vectors

Array = np.ndarray
BATCH, EPOCHS = 192, 3
DROP_SHARED, DROP = 0.5, 0.1
"""Share of the words that question and statement have in common, and of all words of a question, that are left out of
a step: meaning must do, and none may be relied on alone."""
OTHERS = 4000
"""Exchanges of other talk in an epoch, as if the reply were the statement."""
DECAY, HELD_OUT = 2e-5, 12
STEM = -2
"""What stands for the row of the nearest word where that is one of the same stem."""


class Asked(NamedTuple):
    """A question, the statement that answers it, and statements that do not."""

    asked: str
    told: str
    others: Sequence[str] = ()


def read_asked(path: Path) -> list[Asked]:
    """Questions of a file: in each line a statement and the questions that it answers, between tabs."""
    rows = (line.split("\t") for line in path.read_text(encoding="utf-8").splitlines())
    return [Asked(asked.strip(), told.strip()) for told, *questions in rows for asked in questions if asked.strip()]


def not_near(asked: Sequence[Asked], never: Sequence[ToldFact]) -> list[Asked]:
    """Those of ``asked`` whose statement or question is near none of a list that recall is measured on."""
    texts = [text for row in asked for text in (row.told, row.asked)]
    close = near(texts, [text for fact in never for text in (fact.told, fact.asked)])
    left_out = {row.told for row in asked if row.told in close or row.asked in close}
    return [row for row in asked if row.told not in left_out]


def asked_in_talk(memory: Memory) -> tuple[list[Asked], list[Asked]]:
    """Questions of ``talk_memory`` for training, and every ``HELD_OUT``th, which is not trained on."""
    asked = [Asked(one.asked, one.told, one.others) for one in memory.told]
    return [row for i, row in enumerate(asked) if i % HELD_OUT], asked[::HELD_OUT]


@njit(cache=True)  # type: ignore[untyped-decorator]
def nearest(similar, same, q_rows, q_stems, t_rows, t_stems, starts):  # type: ignore[no-untyped-def]
    """For each word of questions, in each statement: its largest s(q, t) of ``Meaning``, at least 0, and where it is.

    Parameters
    ----------
    similar : array [n, m] of float32
        Cosine of each row of questions to each row of statements.
    same : float
        s of words of one stem, less 1.
    q_rows, q_stems : array [words] of int64
    t_rows, t_stems : array [words of statements] of int64
    starts : array [statements + 1] of int64
        Where the words of each statement begin.

    Returns
    -------
    best : array [words, statements] of float32
    which : array [words, statements] of int32
        The row of the nearest word; -1 where nothing is above 0, ``STEM`` where that is a word of the same stem.
    """
    n, m = len(q_rows), len(starts) - 1
    best, which = np.zeros((n, m), np.float32), np.full((n, m), -1, np.int32)
    for i in range(n):
        row = similar[q_rows[i]]
        for j in range(m):
            for k in range(starts[j], starts[j + 1]):
                alike = q_stems[i] == t_stems[k]
                score = np.float32(1 + same) if alike else row[t_rows[k]]
                if score > best[i, j]:
                    best[i, j], which[i, j] = score, STEM if alike else t_rows[k]
    return best, which


@njit(cache=True)  # type: ignore[untyped-decorator]
def add_to_nearest(grad, which, q_rows, out):  # type: ignore[no-untyped-def]
    """Adds each gradient [words, statements] to the similarity [n, m] that it came from."""
    for i in range(grad.shape[0]):
        for j in range(grad.shape[1]):
            if which[i, j] >= 0:
                out[q_rows[i], which[i, j]] += grad[i, j]


class _Best(torch.autograd.Function):
    """s(q, t) of ``Meaning``, the largest of each statement."""

    @staticmethod
    def forward(ctx: Any, similar: Tensor, same: Tensor, *words: Array) -> Tensor:  # type: ignore[override]
        best, which = nearest(similar.detach().numpy(), float(same), *words)
        ctx.which, ctx.rows, ctx.shape = which, words[0], similar.shape
        return torch.from_numpy(best)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        numbers, out = grad.contiguous().numpy(), np.zeros(ctx.shape, np.float32)
        add_to_nearest(numbers, ctx.which, ctx.rows, out)
        same = torch.tensor(numbers[ctx.which == STEM].sum())
        return torch.from_numpy(out), same, None, None, None, None, None


class Match(nn.Module):
    """Scores of statements as answers to questions."""

    def __init__(self, vectors: Array, counts: Array) -> None:
        super().__init__()
        self.words = Vectors(vectors, counts)
        self.same, self.scale = nn.Parameter(torch.tensor(0.5)), nn.Parameter(torch.tensor(3.0))
        self.length = nn.Parameter(torch.tensor(0.0))

    def forward(self, asked: Lines, told: Lines, left_out: Array) -> Tensor:
        """[questions, statements]; ``left_out`` [words of the questions] do not count."""
        used, place = np.unique(np.concatenate([asked.rows, told.rows]), return_inverse=True)
        unit = F.normalize(self.words.vectors(torch.from_numpy(used).long()), dim=-1)
        (ask_rows, ask_place), (tell_rows, tell_place) = (
            np.unique(part, return_inverse=True) for part in np.split(place, [len(asked.rows)])
        )
        similar = unit[torch.from_numpy(ask_rows)] @ unit[torch.from_numpy(tell_rows)].t()
        best = _Best.apply(similar, self.same, ask_place, asked.stems, tell_place, told.stems, told.starts)
        weight = self.words.log_weight.exp()[torch.from_numpy(asked.rows).long()] * ~torch.from_numpy(left_out)
        n_words = np.diff(asked.starts)
        question = torch.from_numpy(np.repeat(np.arange(len(n_words)), n_words))
        root = (torch.zeros(len(n_words)).index_add(0, question, weight) + 1e-3).sqrt()
        found = torch.zeros(len(n_words), best.shape[1]).index_add(0, question, best.square() * weight[:, None])
        lengths = torch.from_numpy(np.log1p(np.diff(told.starts))).float()
        return found / root[:, None] - self.length * root[:, None] * lengths  # type: ignore[no-any-return]

    def parameter_groups(self) -> list[dict[str, object]]:
        """Rates of all parameters."""
        return [
            *self.words.parameter_groups(),
            {"params": [self.same, self.scale], "lr": 1e-2},
            {"params": [self.length], "lr": 3e-3},
        ]


def train_match(match: Match, texts: Texts, asked: Sequence[Asked], talk: Sequence[tuple[str, str]]) -> None:
    """In-batch softmax, one other statement for each question besides: of the same dialogue, or any."""
    rng, optimizer = np.random.default_rng(0), torch.optim.Adam(match.parameter_groups())
    for epoch in range(EPOCHS):
        drawn = (talk[i] for i in rng.choice(len(talk), min(len(talk), OTHERS), replace=False))
        rows = [*asked, *(Asked(said, reply) for said, reply in drawn)]
        losses, order = [], rng.permutation(len(rows))
        for start in range(0, len(order) - BATCH, BATCH):
            batch = [rows[i] for i in order[start : start + BATCH]]
            wrong = [str(rng.choice(row.others or [asked[int(rng.integers(len(asked)))].told])) for row in batch]
            loss = batch_loss(match, texts, batch, wrong, rng)
            losses.append(float(loss.detach()))
            loss = loss + DECAY * match.words.change.square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"match, epoch {epoch}: loss {np.mean(losses):.3f}", flush=True)


def batch_loss(
    match: Match, texts: Texts, batch: Sequence[Asked], wrong: Sequence[str], rng: np.random.Generator
) -> Tensor:
    """Nats by which the right statement is missed among those of the batch and the ``wrong`` ones."""
    statements = [row.told for row in batch] + list(wrong)
    questions, told = texts.lines([row.asked for row in batch]), texts.lines(statements)
    shared = np.concatenate([
        np.isin(questions.stems[questions.line(i)], told.stems[told.line(i)]) for i in range(len(batch))
    ])  # fmt: skip
    left_out = (shared & (rng.random(len(shared)) < DROP_SHARED)) | (rng.random(len(shared)) < DROP)
    score = match(questions, told, left_out) * match.scale.exp() * 0.05
    number = {text: i for i, text in enumerate(statements)}
    ids = np.array([number[text] for text in statements])
    twice = (ids[: len(batch), None] == ids) & ~np.eye(len(batch), len(ids), dtype=np.bool_)
    return F.cross_entropy(score.masked_fill(torch.from_numpy(twice), -1e9), torch.arange(len(batch)))
