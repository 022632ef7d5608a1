"""How questions and the statements that answer them train the vectors of words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs PyTorch")
import torch.nn.functional as F  # noqa: E402

from edgelm.measure.recall import ToldFact  # noqa: E402
from edgelm.memory.words import words_of  # noqa: E402
from tools.pretrain import match as module  # noqa: E402
from tools.pretrain import told  # noqa: E402
from tools.pretrain.calibrate import fitted  # noqa: E402
from tools.pretrain.match import Asked, Match, batch_loss, not_near, read_asked, train_match  # noqa: E402
from tools.pretrain.word_vectors import FIRST, NUMBER, PAD, SVD_WIDTH, UNKNOWN, Texts  # noqa: E402

PAIRS = [
    Asked("which pet makes noise", "the dog barks"),
    Asked("who plays music", "my sister has a cello"),
    Asked("where is the key", "it lies under the pot"),
    Asked("who plays music loud", "the cello of my sister"),
]
WORDS = sorted({word for row in PAIRS for text in row[:2] for word in text.split()})


@pytest.fixture
def texts() -> Texts:
    return Texts(words_of(WORDS).codes)


@pytest.fixture
def match(texts: Texts) -> Match:
    rng = np.random.default_rng(0)
    made = Match(rng.standard_normal((len(WORDS), SVD_WIDTH)).astype(np.float32), np.arange(1, len(WORDS) + 1))
    with torch.no_grad():
        made.length.fill_(0.1)
    return made


def plain(match: Match, texts: Texts, asked: list[str], told: list[str]) -> torch.Tensor:
    """The equation, one pair of words after another."""
    scores = []
    for question in asked:
        (q, q_stems), row = (part[0] for part in texts.batch([question])), []
        weight = match.words.log_weight.exp()[q]
        for statement in told:
            t, t_stems = (part[0] for part in texts.batch([statement]))
            unit_q, unit_t = (F.normalize(match.words.vectors(rows), dim=-1) for rows in (q, t))
            similar = torch.where(q_stems[:, None] == t_stems, 1 + match.same, unit_q @ unit_t.t())
            root = (weight.sum() + 1e-3).sqrt()
            found = (weight * similar.max(1)[0].clamp_min(0) ** 2).sum() / root
            row.append(found - match.length * root * np.log1p(len(t)))
        scores.append(torch.stack(row))
    return torch.stack(scores)


@pytest.mark.parametrize("same", [0.5, -1.5], ids=["a word of the stem is nearest", "another word is nearer"])
def test_scores_and_gradients_are_those_of_the_equation(match: Match, texts: Texts, same: float) -> None:
    with torch.no_grad():
        match.same.fill_(same)
    asked, told = [row.asked for row in PAIRS], [row.told for row in PAIRS]
    questions, statements = texts.lines(asked), texts.lines(told)
    scores = match(questions, statements, np.zeros(len(questions.rows), np.bool_))
    expected = plain(match, texts, asked, told)
    torch.testing.assert_close(scores, expected)
    weights = torch.from_numpy(np.random.default_rng(1).standard_normal(scores.shape)).float()
    parameters = [match.words.change, match.words.projection, match.words.log_weight, match.same, match.length]
    for got, wanted in zip(
        *(torch.autograd.grad((of * weights).sum(), parameters) for of in (scores, expected)), strict=True
    ):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


def test_statements_that_stand_twice_are_not_wrong_answers(match: Match, texts: Texts) -> None:
    twice = [PAIRS[1], PAIRS[1]._replace(asked="who has a cello")]
    loss = batch_loss(match, texts, twice, [PAIRS[1].told] * 2, np.random.default_rng(0))
    assert float(loss.detach()) == 0


def test_training_finds_what_answers(match: Match, texts: Texts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH", 3)
    monkeypatch.setattr(module, "EPOCHS", 60)
    asked, told = [row.asked for row in PAIRS[:3]], [row.told for row in PAIRS[:3]]
    train_match(match, texts, PAIRS[:3], [("which pet makes noise", "the dog barks")])
    questions = texts.lines(asked)
    scores = match(questions, texts.lines(told), np.zeros(len(questions.rows), np.bool_))
    assert scores.argmax(1).tolist() == [0, 1, 2]


def test_what_is_near_a_list_is_not_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(told, "COMMON", 0)
    fact = ToldFact("My sister plays cello.", "Who makes music?", "sister")
    near = [Asked("which strings?", "A cello my sister plays well."), Asked("who makes loud music", "the neighbours")]
    far = [Asked("which strings?", "He plays cello."), PAIRS[0]]
    assert not_near([*near, *far], [fact]) == far
    assert not_near(near, []) == near


def test_files_hold_a_statement_and_its_questions(tmp_path: Path) -> None:
    path = tmp_path / "asked.tsv"
    path.write_text("I have a cello.\tWhat do I play?\twhich strings are mine\n\nalone\n", encoding="utf-8")
    assert read_asked(path) == [
        Asked("What do I play?", "I have a cello."),
        Asked("which strings are mine", "I have a cello."),
    ]


def test_texts_are_rows_of_words(texts: Texts) -> None:
    lines = texts.lines(["dog 17 xyzzy", "the dog's"])
    rows, stems = texts.batch(["dog 17 xyzzy", "the dog's"])
    assert lines.rows[1:3].tolist() == [NUMBER, UNKNOWN]
    assert rows[1, 2] == PAD
    assert rows[0].tolist() == lines.rows[:3].tolist()
    assert lines.rows[0] >= FIRST
    assert stems[0, 0] == stems[1, 1]


def test_a_regression_finds_the_weights_that_made_its_data() -> None:
    rng = np.random.default_rng(0)
    features = np.concatenate([np.ones((20_000, 1)), rng.standard_normal((20_000, 2))], 1)
    weights = np.array([-1.0, 2.0, 0.5])
    right = rng.random(20_000) < 1 / (1 + np.exp(-features @ weights))
    np.testing.assert_allclose(fitted(features, right.astype(float)), weights, atol=0.08)
