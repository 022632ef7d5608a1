"""The word vectors that come with edgelm, and plain twins of what is computed with them."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from edgelm.errors import ModelFileError
from edgelm.memory.meaning import NUMBER, UNKNOWN, Meaning, pair_slots
from edgelm.model import tensorfile

BUNDLED = Path(str(files("edgelm").joinpath("models", "talk", "meaning.safetensors")))
TOLD = ["I pick every leaf of coriander out of my food.", "", "My brother moved to Lisbon.", "We have two dogs."]


@pytest.fixture(scope="module")
def meaning() -> Meaning:
    return Meaning()


def test_match_is_the_equation(meaning: Meaning) -> None:
    told, question = meaning.lines(TOLD), meaning.lines(["which herb do I avoid?"])
    length = float(tensorfile.read(BUNDLED)[0]["match.length"][0])
    similar = meaning.similar(question, told, side="match")
    weight = meaning.weights(question.rows, "match").astype(np.float64)
    for line, score in enumerate(meaning.match(question, told)):
        part = similar[:, told.line(line)]
        best = part.max(1) if part.size else np.zeros(len(weight))
        root = np.sqrt(weight.sum() + 1e-3)
        expected = sum(w * b**2 for w, b in zip(weight, best.tolist(), strict=True)) / root
        expected -= length * root * np.log1p(part.shape[1])
        assert score == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_a_question_finds_its_answer_in_other_words(meaning: Meaning) -> None:
    told = meaning.lines(TOLD)
    for question, line in (("which herb do I avoid?", 0), ("Where does my brother live now?", 2)):
        assert int(meaning.match(meaning.lines([question]), told).argmax()) == line


def test_sums_are_those_of_each_line_alone(meaning: Meaning) -> None:
    together = meaning.sums("reply", meaning.lines(TOLD))
    alone = np.concatenate([meaning.sums("reply", meaning.lines([text])) for text in TOLD])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), [1, 0, 1, 1], atol=1e-3)


def test_numbers_and_unknown_words_have_rows_of_their_own(meaning: Meaning) -> None:
    rows = meaning.lines(["Zwxqj 98347 dog"]).rows
    assert rows[:2].tolist() == [UNKNOWN, NUMBER]
    assert rows[2] > UNKNOWN


def test_a_word_without_a_vector_has_that_of_its_stem(meaning: Meaning) -> None:
    row, of_stem, of_another = meaning.lines(["gargles gargle dog"]).rows.tolist()
    assert row == of_stem != of_another


def test_nothing_matches_nothing(meaning: Meaning) -> None:
    empty = meaning.lines([])
    assert len(meaning.match(meaning.lines(["who?"]), empty)) == 0
    assert meaning.match(meaning.lines(["?!"]), meaning.lines(TOLD)).tolist() == [0] * 4
    assert meaning.asks("...") == -np.inf


def test_what_asks_for_something_told_is_told_from_what_does_not(meaning: Meaning) -> None:
    asks = ["What is my dog called?", "where did I put the spare key", "Who did I say repairs my boiler?"]
    others = ["Why is the sky blue?", "I spilled coffee all over my laptop.", "Good night, I am going to bed."]
    assert min(map(meaning.asks, asks)) > max(map(meaning.asks, others))


def test_pair_slots_depend_on_both_words_and_their_order() -> None:
    slots = pair_slots(np.array([[3, 5, 3]], np.uint64))
    assert slots.shape == (1, 2)
    assert slots[0, 0] != slots[0, 1]
    assert slots.min() >= 0
    assert slots.max() < 1 << 13


@pytest.mark.parametrize("damage", ["kind", "shape", "missing"])
def test_another_file_is_refused(tmp_path: Path, damage: str) -> None:
    tensors, metadata = tensorfile.read(BUNDLED)
    if damage == "kind":
        metadata = {"kind": "something else"}
    elif damage == "shape":
        tensors["match.vectors"] = tensors["match.vectors"][:, :32].copy()
    else:
        del tensors["asks.bias"]
    path = tmp_path / "meaning.safetensors"
    tensorfile.write(path, tensors, metadata)
    with pytest.raises(ModelFileError, match="install it again"):
        Meaning(path)
