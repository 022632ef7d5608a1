"""Makes ``meaning.safetensors``: word vectors, and what is learned with them about questions, statements and replies.

    python -m tools.pretrain.meaning CORPUS OUT.safetensors [--asked FILE... --never LIST...]
        [--begin-from MEANING.safetensors]

1. *Vectors* of words (``word_vectors.py``).
2. *Match*: which statement answers a question (``match.py``); trained on ``talk_memory``, a question and the earlier
   turn that shares most with its answer, and on files of ``--asked``: in each line a statement and questions that it
   answers, between tabs. What is near a line of the lists of ``--never`` is left out.
   *Alike*: the same, trained on ``talk_memory`` alone, for remarks that mean the same.
3. *Fit*: which reply fits a remark, two weighted sums of vectors, trained on talk with the other replies of a batch as
   wrong ones.
4. *Asks*: whether a turn asks for something that the person told; logistic regression over words and word pairs.

With ``--begin-from`` all but *match* is that of an earlier file, whose words come first.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgelm.measure.recall import read_told
from edgelm.memory.meaning import PAIRS, Meaning, pair_slots
from edgelm.model import tensorfile
from tools.pretrain.match import Match, asked_in_talk, not_near, read_asked, train_match
from tools.pretrain.told import exchanges, told_and_asked
from tools.pretrain.word_vectors import FIRST, PAD, TALK, Texts, Vectors, find_vocabulary, make_vectors

Array = np.ndarray
ALIKE_WORDS = 24_576
"""Words whose vectors say which can stand for each other."""


class Fit(nn.Module):
    """Vectors of remarks and of replies; the twin of ``Meaning.remark_vector`` and ``Meaning.reply_vectors``."""

    def __init__(self, vectors: Array, counts: Array) -> None:
        super().__init__()
        self.sides = nn.ModuleList(Vectors(vectors, counts) for _ in range(2))
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, rows: Tensor, side: int) -> Tensor:
        """[n, WIDTH] of length 1."""
        words = self.sides[side]
        weight = words.log_weight.exp()[rows] * (rows != PAD)  # type: ignore[operator,union-attr]
        return F.normalize((F.embedding(rows, words.vectors()) * weight[..., None]).sum(1), dim=-1)  # type: ignore[operator,union-attr]


def train_fit(
    fit: Fit, texts: Texts, talk: list[tuple[str, str]], others: list[tuple[str, str]], epochs: int = 4
) -> None:
    """In-batch softmax both ways, words dropped at random."""
    rng = np.random.default_rng(0)
    rates = [group for side in fit.sides for group in side.parameter_groups(1e-3)]  # type: ignore[union-attr,operator]
    optimizer = torch.optim.Adam([*rates, {"params": [fit.scale], "lr": 1e-2}])
    for epoch in range(epochs):
        rows = talk + [others[i] for i in rng.choice(len(others), min(20_000, len(others)), replace=False)]
        total, order = [], rng.permutation(len(rows))
        for start in range(0, len(order) - 384, 384):
            batch = [rows[i] for i in order[start : start + 384]]
            sides = []
            for side in (0, 1):
                ids, _ = texts.batch([row[side] for row in batch])
                sides.append(fit(ids.masked_fill(torch.from_numpy(rng.random(ids.shape)) < 0.3, PAD), side))
            score, right = sides[0] @ sides[1].t() * fit.scale.exp(), torch.arange(len(batch))
            loss = (F.cross_entropy(score, right) + F.cross_entropy(score.t(), right)) / 2
            loss = loss + 1e-4 * sum(side.change.square().sum() for side in fit.sides)  # type: ignore[union-attr,operator]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total.append(float(loss.detach()))
        print(f"fit, epoch {epoch}: loss {np.mean(total):.3f}", flush=True)


def train_asks(texts: Texts, n_rows: int, asks: list[str], says: list[str]) -> tuple[Array, Array, float]:
    """Weights of words [rows] and of word pairs [PAIRS], and a bias: logit that a turn asks for what was told."""
    words, pairs = nn.Parameter(torch.zeros(n_rows)), nn.Parameter(torch.zeros(PAIRS))
    bias = nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.Adam([words, pairs, bias], lr=2e-2)
    rng, rows = np.random.default_rng(0), [(text, 1.0) for text in asks] + [(text, 0.0) for text in says]
    for _ in range(4):
        order = rng.permutation(len(rows))
        for start in range(0, len(order), 512):
            batch = [rows[i] for i in order[start : start + 512]]
            ids, stems = texts.batch([text for text, _ in batch])
            slots = torch.from_numpy(pair_slots(stems.numpy().astype(np.uint64)))
            there = ids != PAD
            score = (words[ids] * there).sum(1) + (pairs[slots] * there[:, 1:]).sum(1) + bias
            target = torch.tensor([label for _, label in batch])
            loss = F.binary_cross_entropy_with_logits(score, target) + 1e-4 * (
                words.square().sum() + pairs.square().sum()
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return words.detach().numpy(), pairs.detach().numpy(), float(bias.detach())


def to_int8(vectors: Tensor) -> Array:
    """Rows of length 1 as int8, 127 being 1."""
    return (F.normalize(vectors, dim=-1) * 127).round().to(torch.int8).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--asked", type=Path, nargs="+", default=[], help="statements and questions that they answer")
    parser.add_argument("--never", type=Path, nargs="+", default=[], help="lists that recall is measured on")
    parser.add_argument("--begin-from", type=Path, help="of which all stays but match")
    parser.add_argument("--words", type=int, default=32_768, help="words that are kept, the most frequent")
    parser.add_argument("--fit-words", type=int, default=12_288, help="those that have vectors of remarks and replies")
    parser.add_argument("--cache", type=Path, help="keeps the vectors between runs")
    args = parser.parse_args()
    never = [fact for path in args.never for fact in read_told(path.read_text(encoding="utf-8"), path.name)]
    told = [row for path in args.asked for row in read_asked(path)]
    n_read, told = len(told), not_near(told, never)
    print(f"{len(told)} written questions, {n_read - len(told)} near those of --never left out", flush=True)
    before = tensorfile.read(args.begin_from)[0] if args.begin_from else {}
    if args.cache and args.cache.exists():
        saved = np.load(args.cache)
        codes, counts, vectors = saved["codes"], saved["counts"], saved["vectors"]
    else:
        lines = [text for row in told for text in (row.told, row.asked)]
        codes, counts = find_vocabulary(args.corpus, lines)
        vectors = make_vectors(args.corpus, codes)
        if args.cache:
            np.savez(args.cache, codes=codes, counts=counts, vectors=vectors)
    if before:
        codes, counts, vectors = _with_first(before["codes"].view(np.uint64)[:, 0], codes, counts, vectors)
    codes, counts, vectors = codes[: args.words], counts[: args.words], vectors[: args.words]
    texts, memory = Texts(codes), told_and_asked(args.corpus)
    talk = [pair for name in TALK for pair in exchanges(args.corpus, name)]
    read = [pair for name in ("instr_dolly", "qa_small") for pair in exchanges(args.corpus, name)]
    match = Match(vectors, counts)
    from_talk, _ = asked_in_talk(memory)
    train_match(match, texts, [*from_talk, *told], _answers(talk + read))
    if before:
        tensors = {name: array for name, array in before.items() if not name.startswith(("match", "codes"))}
        more = len(codes) + FIRST - len(before["asks.words"])
        tensors["asks.words"] = np.append(before["asks.words"], np.zeros(max(0, more), np.float16))
    else:
        other = [pair for name in ("dlg_self", "dlg_topical") for pair in exchanges(args.corpus, name)]
        tensors = trained_fit(codes[: args.fit_words], counts, vectors, talk, other + read)
        alike = Match(vectors[:ALIKE_WORDS], counts[:ALIKE_WORDS])
        train_match(alike, Texts(codes[:ALIKE_WORDS]), from_talk, _answers(talk + read))
        asked = [row.asked for row in from_talk] + memory.never
        words, pairs, bias = train_asks(texts, FIRST + len(codes), asked, [said for said, _ in talk])
        tensors |= _matching("alike", alike) | {
            "asks.words": words.astype(np.float16),
            "asks.pairs": pairs.astype(np.float16),
            "asks.bias": np.array([bias], np.float32),
        }
    tensors |= _matching("match", match) | {
        "codes": codes.view(np.uint8).reshape(len(codes), 8),
        "match.length": np.array([float(match.length)], np.float32),
    }
    tensorfile.write(args.out, tensors, {"kind": "edgelm meaning"})
    print(json.dumps({"bytes": args.out.stat().st_size, "words": len(Meaning(args.out).codes)}))


@torch.no_grad()
def _matching(name: str, match: Match) -> dict[str, Array]:
    """The tensors of vectors that compare words."""
    return {
        f"{name}.vectors": to_int8(match.words.vectors()),
        f"{name}.weights": match.words.log_weight.exp().numpy().astype(np.float16),
        f"{name}.same": np.array([float(match.same)], np.float32),
    }


def _with_first(first: Array, codes: Array, counts: Array, vectors: Array) -> tuple[Array, Array, Array]:
    """Codes, counts and vectors, those of the words ``first`` before the others; one that was not counted has zeros."""
    place = {code: i for i, code in enumerate(codes.tolist())}
    order = [place.get(code, -1) for code in first.tolist()]
    chosen = set(order)
    order += [i for i in range(len(codes)) if i not in chosen]
    counts, vectors = np.append(counts, 1), np.append(vectors, np.zeros_like(vectors[:1]), axis=0)
    return np.concatenate([first, codes[order[len(first) :]]]), counts[order], vectors[order]


def trained_fit(
    codes: Array, counts: Array, vectors: Array, talk: list[tuple[str, str]], others: list[tuple[str, str]]
) -> dict[str, Array]:
    """The tensors of remarks and of replies."""
    fit = Fit(vectors[: len(codes)], counts[: len(codes)])
    train_fit(fit, Texts(codes), talk, others)
    with torch.no_grad():
        return {
            f"{name}.{part}": array
            for name, side in zip(("remark", "reply"), fit.sides, strict=True)
            for part, array in (("vectors", to_int8(side.vectors())), ("weights", _scaled(side)))  # type: ignore[operator,union-attr,arg-type]
        }


def _answers(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Short questions with their answers, and half as many remarks with their replies."""
    rng, short = np.random.default_rng(0), [(said, reply) for said, reply in pairs if len(said) < 160]
    asked, said = ([pair for pair in short if ("?" in pair[0]) == asks] for asks in (True, False))
    return [asked[i] for i in rng.permutation(len(asked))[:6000]] + [said[i] for i in rng.permutation(len(said))[:3000]]


def _scaled(side: Vectors) -> Array:
    """Weights times the lengths of the vectors, which int8 does not keep."""
    return (side.log_weight.exp() * side.vectors().norm(dim=-1)).numpy().astype(np.float16)  # type: ignore[no-any-return]


if __name__ == "__main__":
    main()
