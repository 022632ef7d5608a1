"""How keystrokes are counted, and the dictionary that the model is measured beside."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from edgelm.engine.session import ReferenceSession
from edgelm.engine.suggest import suggest_words
from edgelm.model import hub
from tools.measure.dictionary import START, Dictionary, last_word, words_of
from tools.measure.keyboard import Kept, Tally, context, keys_saved, next_word, places_of


def test_keys_are_saved_from_the_first_time_that_the_word_is_shown() -> None:
    shown = {"": ["the", "a", "of"], "h": ["he", "his", "had", "harbour"], "ha": ["harbour"]}
    seen: list[str] = []

    def show(typed: str) -> list[str]:
        seen.append(typed)
        return shown.get(typed, [])

    assert keys_saved("the", show) == 3
    assert keys_saved("harbour", show) == 5  # the fourth that is shown after "h" is not seen
    assert seen == ["", "", "h", "ha"]
    assert keys_saved("he", show) == 1
    assert keys_saved("ferry", show) == 0
    assert seen[-5:] == ["", "f", "fe", "fer", "ferr"]
    tally = Tally()
    for word in ("the", "ferry"):
        tally.typed(word, show)
    assert tally.fields()["keystrokes_saved"] == 0.3  # three of four and six keys
    assert len(tally.ms) == 1 + 5


def test_blanks_are_counted() -> None:
    tally = Tally()
    for found in (["a", "b"], ["b", "a"], ["b", "c", "d", "e", "f", "a"], []):
        tally.filled("a", lambda found=found: found)
    assert (tally.fields()["first"], tally.fields()["first_five"]) == (0.25, 0.5)


def test_words_and_sentences() -> None:
    text = "The boys' ferry, I don't know. Well-known\n1660 and"
    assert list(words_of(text)) == [
        START,
        "The",
        "boys",
        "ferry",
        "I",
        "don't",
        "know",
        START,
        "Well-known",
        START,
        "and",
    ]
    assert last_word("a. The ferry, ") == "ferry"
    assert last_word("a ferry. ") == START
    assert (next_word(" leaves."), next_word(", and"), next_word(". It"), next_word("")) == (
        "leaves",
        "and",
        START,
        START,
    )


def test_places_have_a_space_before_them_and_are_drawn_with_a_seed() -> None:
    text = '"Oh no," he said.\nUser: well (not here)\n'
    every = places_of(text, 99, random.Random(0))
    assert [place.word for place in every] == ["no", "he", "said", "well", "here"]
    assert all(text[place.start : place.end] == place.word for place in every)
    assert [place.line for place in every] == [0, 0, 0, 18, 18]
    drawn = [places_of(text, 3, random.Random(seed)) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_what_stands_before_a_place_is_of_its_document() -> None:
    assert context("one\n<|doc|>\ntwo three", 16) == "two "
    long = "word " * 1000
    assert context(long, 4000) == "word " * 199


def test_probabilities_of_a_dictionary() -> None:
    own = Dictionary()
    own.read("the cat sat. the dog sat")
    # After "the": a cat and a dog, each once, and 0.75 of two kinds of two is left to words alone.
    alone = 0.9 * 1 / 7 + 0.1 * 0.5 ** (6 / 200) * (1 - 0.5 ** (1 / 200))
    assert own.probability("cat", "the") == pytest.approx(0.25 / 2 + 0.75 * alone)
    assert own.probability("cat", "sat") == pytest.approx(0.75 * 1 * alone)
    total = sum(own.probability(word, "the") for word in own.alone)
    assert 0.9 < total < 1  # of the words of late only the last hundreds of words are a whole
    assert own.suggest("the", "", 2) == ["dog", "cat"]  # the one seen last first
    assert own.suggest("the", "c", 3) == ["cat"]
    assert own.suggest("the", "cat", 3) == []
    assert own.suggest(START, "", 1) == ["the"]
    assert own.between("the", "sat", 2) == ["dog", "cat"]


def test_a_dictionary_with_general_words_learns_as_it_goes() -> None:
    general = Dictionary()
    general.read("a boat on the harbour. " * 20)
    own = Dictionary(general)
    own.read("the ferry. ")
    assert set(own.suggest("the", "", 2)) == {"harbour", "ferry"}
    assert own.suggest("boat", "", 1) == ["on"]
    assert own.suggest(START, "T", 1) == ["The"]
    assert own.between("a", "on", 1) == ["boat"]
    before = own.probability("lighthouse", "the")
    own.read("the lighthouse")
    assert own.probability("lighthouse", "the") > before == 0
    assert own.suggest("the", "l", 1) == ["lighthouse"]
    assert general.suggest("the", "l", 1) == []


def test_a_state_that_is_kept_changes_nothing(tiny_model: Path) -> None:
    model = hub.load(str(tiny_model))
    plain = ReferenceSession(model.config, model.weights)
    kept = Kept(ReferenceSession(model.config, model.weights))
    ids = [[0, *model.tokenizer.encode(text)] for text in ("The ferry", "The ferry", "On board", "The ferry")]
    for prompt in ids:
        for begins in (" ", " l"):
            found = [suggest_words(session, model.tokenizer, prompt, 3, begins=begins) for session in (plain, kept)]
            assert found[0] == found[1]
    kept.reset()
    plain.reset()
    assert np.array_equal(kept.run(np.array(ids[3]), 1), plain.run(np.array(ids[3]), 1))
