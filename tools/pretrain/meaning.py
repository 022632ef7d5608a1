"""Makes ``meaning.safetensors``: word vectors, and what is learned with them about questions, statements and replies.

    python -m tools.pretrain.meaning CORPUS OUT.safetensors --words 16384

1. *Vectors*: positive pointwise mutual information of words within six words of each other, its singular vectors
   (Levy and Goldberg 2014; Levy, Goldberg and Dagan 2015, with smoothed contexts).
2. *Match*: which statement answers a question, by late interaction (Khattab and Zaharia 2020, arXiv 2004.12832);
   trained on ``talk_memory``: a question, and the earlier turn that shares most with its answer.
3. *Fit*: which reply fits a remark, two weighted sums of vectors, trained on talk with the other replies of a batch as
   wrong ones.
4. *Asks*: whether a turn asks for something that the person told; logistic regression over words and word pairs.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numba import njit
from torch import Tensor, nn

from edgelm.memory.meaning import PAIRS, WIDTH, Meaning, pair_slots
from edgelm.memory.words import Words, words_of
from edgelm.model import tensorfile
from tools.pretrain.corpus import read_documents
from tools.pretrain.told import Told, exchanges, told_and_asked

Array = np.ndarray
WINDOW, SVD_WIDTH, VOCABULARY = 6, 128, 30_000
PROSE = (
    "dlg_self", "dlg_topical", "instr_dolly", "qa_small", "dlg_sgd", "dlg_taskmaster", "children_stories", "openstax",
    "factbook_prose", "wiki_en", "books_en", "x_wiki_en", "x_books_en",
)  # fmt: skip
TALK = ("talk_plain", "talk_remarks", "talk_facts", "talk_threads")
NUMBER, UNKNOWN, PAD = 0, 1, 2
"""Rows before those of the words: of any number, of any other word that has none, of none."""
FIRST = 3


def lines_of(corpus: Path, names: tuple[str, ...]) -> Iterator[list[str]]:
    """The lines of each source that is there, without labels, some thousands at a time."""
    for name in names:
        batch: list[str] = []
        for document in read_documents(corpus, name):
            batch += re.sub(r"(?m)^(User|Assistant): ", "", document).splitlines()
            if len(batch) > 20_000:
                yield batch
                batch = []
        yield batch


@njit(nogil=True)  # type: ignore[untyped-decorator]
def count_pairs(ids, line, counts):  # type: ignore[no-untyped-def]
    """Adds 1 / distance for each two words of a line within WINDOW."""
    for i in range(len(ids)):
        for d in range(1, WINDOW + 1):
            j = i + d
            if j >= len(ids) or line[j] != line[i]:
                break
            if ids[i] >= 0 and ids[j] >= 0:
                counts[ids[i], ids[j]] += np.float32(1 / d)
                counts[ids[j], ids[i]] += np.float32(1 / d)


def find_vocabulary(corpus: Path) -> tuple[Array, Array]:
    """Codes of the VOCABULARY most frequent words, and their counts, most frequent first; talk counts three times."""
    total: Counter[int] = Counter()
    for names, times in ((PROSE, 1), ((*TALK, "talk_memory"), 3)):
        for lines in lines_of(corpus, names):
            codes, counts = np.unique(words_of(lines).codes, return_counts=True)
            for code, count in zip(codes.tolist(), counts.tolist(), strict=True):
                total[code] += times * count
    common = total.most_common(VOCABULARY)
    return np.array([code for code, _ in common], np.uint64), np.array([count for _, count in common])


def make_vectors(corpus: Path, codes: Array) -> Array:
    """[VOCABULARY, SVD_WIDTH] float32, each of length 1."""
    order = np.argsort(codes)
    counts = np.zeros((len(codes), len(codes)), np.float32)
    for names, times in ((PROSE, 1), ((*TALK, "talk_memory"), 3)):
        for lines in lines_of(corpus, names):
            words = words_of(lines)
            place = np.minimum(np.searchsorted(codes[order], words.codes), len(codes) - 1)
            ids = np.where(codes[order][place] == words.codes, order[place], -1)
            for _ in range(times):
                count_pairs(ids, words.line, counts)
    rows = counts.sum(1, dtype=np.float64)
    contexts = rows**0.75 / (rows**0.75).sum()
    for start in range(0, len(counts), 1000):
        part = slice(start, start + 1000)
        with np.errstate(divide="ignore"):
            counts[part] = np.maximum(np.log(counts[part] / (rows[part, None] * contexts + 1e-9)) - 0.3, 0)
    a, generator = torch.from_numpy(counts), torch.Generator().manual_seed(0)
    y = a @ torch.randn(len(codes), SVD_WIDTH + 32, generator=generator)
    for _ in range(4):
        q, _ = torch.linalg.qr(y)
        y = a @ (a.t() @ q)
    q, _ = torch.linalg.qr(y)
    u, s, _ = torch.linalg.svd(q.t() @ a, full_matrices=False)
    return F.normalize((q @ u)[:, :SVD_WIDTH] * s[:SVD_WIDTH] ** 0.5, dim=-1).numpy()


class Texts:
    """Texts as padded rows of word rows and stems, for the networks below."""

    def __init__(self, codes: Array) -> None:
        self._order = np.argsort(codes)
        self._codes = codes[self._order]

    def rows(self, words: Words, text: bytes) -> Array:
        """The row of each word: its own, that of numbers, or that of unknown words."""
        place = np.minimum(np.searchsorted(self._codes, words.codes), len(self._codes) - 1)
        known = self._codes[place] == words.codes
        is_number = np.array([text[b : b + 1].isdigit() for b in words.begins.tolist()], np.bool_)
        return np.where(known, self._order[place] + FIRST, np.where(is_number, NUMBER, UNKNOWN))

    def batch(self, texts: list[str], longest: int = 28) -> tuple[Tensor, Tensor]:
        """Rows and stems [n, longest at most] of texts; PAD and -1 where there is no word."""
        words, joined = words_of(texts), "\n".join(t.replace("\n", " ").replace("’", "'") for t in texts).encode()
        ids, begins = self.rows(words, joined), np.searchsorted(words.line, np.arange(len(texts)))
        place = np.arange(len(ids)) - begins[words.line]
        fits, width = place < longest, min(longest, int(place.max(initial=0)) + 1)
        rows, stems = np.full((len(texts), width), PAD), np.full((len(texts), width), -1, np.int64)
        rows[words.line[fits], place[fits]] = ids[fits]
        stems[words.line[fits], place[fits]] = words.stems[fits].astype(np.int64) & 0x7FFFFFFFFFFFFFFF
        return torch.from_numpy(rows), torch.from_numpy(stems)


class Vectors(nn.Module):
    """Vectors and weights of the words, begun with those of the singular vectors and of the frequencies."""

    def __init__(self, vectors: Array, counts: Array) -> None:
        super().__init__()
        fixed = torch.zeros(FIRST + len(vectors), SVD_WIDTH)
        fixed[FIRST:] = torch.from_numpy(vectors)
        self.register_buffer("fixed", fixed)
        self.change = nn.Parameter(torch.zeros(len(fixed), WIDTH))
        self.projection = nn.Parameter(torch.eye(SVD_WIDTH)[:, :WIDTH].clone())
        weight = torch.full((len(fixed),), 4.0)
        weight[FIRST:] = torch.from_numpy(np.log(1e-3 / (counts / counts.sum() + 1e-5) + 1))
        self.log_weight = nn.Parameter(weight.clamp(0.05).log())

    def vectors(self) -> Tensor:
        """[rows, WIDTH], not normalised."""
        return self.fixed @ self.projection + self.change  # type: ignore[no-any-return,operator]

    def parameter_groups(self, rate: float = 2e-3) -> list[dict[str, object]]:
        """Rates: what a word has of its own, what all share, weights."""
        return [
            {"params": [self.change], "lr": rate},
            {"params": [self.projection], "lr": 1e-3},
            {"params": [self.log_weight], "lr": 1e-2},
        ]


class Match(nn.Module):
    """Scores of statements as answers to questions; the twin of ``Meaning.match``."""

    def __init__(self, vectors: Array, counts: Array) -> None:
        super().__init__()
        self.words = Vectors(vectors, counts)
        self.same, self.scale = nn.Parameter(torch.tensor(0.5)), nn.Parameter(torch.tensor(3.0))

    def forward(self, asked: tuple[Tensor, Tensor], told: tuple[Tensor, Tensor]) -> Tensor:
        """[questions, statements]."""
        (q, q_stems), (t, t_stems) = asked, told
        unit = F.normalize(self.words.vectors(), dim=-1)
        similar = torch.einsum("and,bmd->abnm", F.embedding(q, unit), F.embedding(t, unit))
        similar = torch.where(q_stems[:, None, :, None] == t_stems[None, :, None], 1 + self.same, similar)
        best = similar.masked_fill((t == PAD)[None, :, None], -1).max(-1)[0].clamp_min(0)
        weight = self.words.log_weight.exp()[q] * (q != PAD)
        return (best.square() * weight[:, None]).sum(-1) / (weight.sum(-1) + 1e-3).sqrt()[:, None]


def train_match(match: Match, texts: Texts, told: list[Told], others: list[tuple[str, str]], epochs: int = 3) -> None:
    """In-batch softmax, one other turn of the same dialogue besides; words that both share are dropped at random, so
    that meaning must do."""
    rng = np.random.default_rng(0)
    rates = [*match.words.parameter_groups(), {"params": [match.same, match.scale], "lr": 1e-2}]
    optimizer = torch.optim.Adam(rates)
    for epoch in range(epochs):
        drawn = [others[i] for i in rng.choice(len(others), min(len(others), 8000), replace=False)]
        rows = [(t.asked, t.told, t.others) for t in told] + [(said, reply, []) for said, reply in drawn]
        total, order = [], rng.permutation(len(rows))
        for start in range(0, len(order) - 96, 96):
            batch = [rows[i] for i in order[start : start + 96]]
            wrong = [str(rng.choice(o)) if o else told[int(rng.integers(len(told)))].told for _, _, o in batch]
            statements = [t for _, t, _ in batch] + wrong
            (q, q_stems), given = texts.batch([a for a, _, _ in batch]), texts.batch(statements)
            shared = (q_stems[:, :, None] == given[1][: len(batch), None]).any(-1)
            dropped = shared & (torch.from_numpy(rng.random(shared.shape)) < 0.3)
            score = match((q.masked_fill(dropped, PAD), q_stems.masked_fill(dropped, -2)), given)
            score = score * match.scale.exp() * 0.05
            twice = torch.tensor(
                [[s == t and i != j for j, s in enumerate(statements)] for i, (_, t, _) in enumerate(batch)]
            )
            loss = F.cross_entropy(score.masked_fill(twice, -1e9), torch.arange(len(batch)))
            loss = loss + 2e-5 * match.words.change.square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total.append(float(loss.detach()))
        print(f"match, epoch {epoch}: loss {np.mean(total):.3f}", flush=True)


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
    parser.add_argument("--words", type=int, default=24_576, help="words that are kept, the most frequent")
    parser.add_argument("--fit-words", type=int, default=12_288, help="those that have vectors of remarks and replies")
    parser.add_argument("--cache", type=Path, help="keeps the vectors between runs")
    args = parser.parse_args()
    if args.cache and args.cache.exists():
        saved = np.load(args.cache)
        codes, counts, vectors = saved["codes"], saved["counts"], saved["vectors"]
    else:
        codes, counts = find_vocabulary(args.corpus)
        vectors = make_vectors(args.corpus, codes)
        if args.cache:
            np.savez(args.cache, codes=codes, counts=counts, vectors=vectors)
    codes, counts, vectors = codes[: args.words], counts[: args.words], vectors[: args.words]
    texts, memory = Texts(codes), told_and_asked(args.corpus)
    talk = [pair for name in TALK for pair in exchanges(args.corpus, name)]
    read = [pair for name in ("instr_dolly", "qa_small") for pair in exchanges(args.corpus, name)]
    other = [pair for name in ("dlg_self", "dlg_topical") for pair in exchanges(args.corpus, name)]
    match = Match(vectors, counts)
    train_match(match, texts, memory.told, _answers(talk + read))
    fit_texts = Texts(codes[: args.fit_words])
    fit = Fit(vectors[: args.fit_words], counts[: args.fit_words])
    train_fit(fit, fit_texts, talk, other + read)
    asked = [told.asked for told in memory.told] + memory.never
    ask_words, ask_pairs, ask_bias = train_asks(texts, FIRST + len(codes), asked, [said for said, _ in talk])
    with torch.no_grad():
        sides = [(to_int8(side.vectors()), side.log_weight.exp().numpy()) for side in fit.sides]  # type: ignore[union-attr,operator]
        tensors = {
            "codes": codes.view(np.uint8).reshape(len(codes), 8),
            "match.vectors": to_int8(match.words.vectors()),
            "match.weights": match.words.log_weight.exp().numpy().astype(np.float16),
            "match.same": np.array([float(match.same)], np.float32),
            "remark.vectors": sides[0][0],
            "remark.weights": _scaled(fit.sides[0], sides[0][1]),  # type: ignore[arg-type]
            "reply.vectors": sides[1][0],
            "reply.weights": _scaled(fit.sides[1], sides[1][1]),  # type: ignore[arg-type]
            "asks.words": ask_words.astype(np.float16),
            "asks.pairs": ask_pairs.astype(np.float16),
            "asks.bias": np.array([ask_bias], np.float32),
        }
    tensorfile.write(args.out, tensors, {"kind": "edgelm meaning"})
    print(json.dumps({"bytes": args.out.stat().st_size, "words": len(Meaning(args.out).codes)}))


def _answers(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Short questions with their answers, and half as many remarks with their replies."""
    rng, short = np.random.default_rng(0), [(said, reply) for said, reply in pairs if len(said) < 160]
    asked, said = ([pair for pair in short if ("?" in pair[0]) == asks] for asks in (True, False))
    return [asked[i] for i in rng.permutation(len(asked))[:6000]] + [said[i] for i in rng.permutation(len(said))[:3000]]


def _scaled(side: Vectors, weights: Array) -> Array:
    """Weights times the lengths of the vectors, which int8 does not keep."""
    return (weights * side.vectors().norm(dim=-1).numpy()).astype(np.float16)  # type: ignore[no-any-return]


if __name__ == "__main__":
    main()
