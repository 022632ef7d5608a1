"""Open recall, on the tiny model: what is told is found, what is not counts as a miss, and bad files are one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgelm.errors import InputError
from edgelm.measure.recall import asserts, bundled_facts, holds, is_said_back, read_told, recall
from edgelm.runtime import EngineOptions

FACTS = [
    {"told": "My dog is called Biscuit.", "asked": "What is my dog called?", "word": "Biscuit"},
    {"told": "I lent my drill to Marcus.", "asked": "Who did I lend my drill to?", "word": "Marcus"},
    {"told": "My sister lives in Bergen.", "asked": "Where does my sister live?", "word": "Oslo"},
]


@pytest.mark.jit_only
def test_what_is_written_counts(tiny_model: Path, home: Path) -> None:
    facts = read_told("\n".join(map(json.dumps, FACTS)), "facts")
    found = recall(EngineOptions(str(tiny_model)), facts)
    counts = {key: value for key, value in found.items() if key != "misses"}
    assert counts == {"right": 2, "wrong": 0, "beside": 1, "asked": 3}
    assert [miss["asked"] for miss in found["misses"]] == [FACTS[2]["asked"]]
    assert not home.exists()


@pytest.mark.jit_only
def test_what_was_not_told_is_counted_by_itself(tiny_model: Path, home: Path) -> None:
    untold = [
        {"told": "My aunt is a judge.", "asked": asked, "word": None}
        for asked in ("What is my uncle?", "What is my aunt?")
    ]
    found = recall(EngineOptions(str(tiny_model)), read_told("\n".join(map(json.dumps, [*FACTS, *untold])), "facts"))
    assert {key: value for key, value in found.items() if key != "misses"} == {
        "right": 2, "wrong": 0, "beside": 1, "asked": 3, "untold": 2, "claimed": 1, "maybe": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "word", "right"),
    [("He has headaches.", "headache", True), ("The forty-third", "third", True), ("A bone", "on", False),
     ("It is BISCUIT!", "biscuit", True), ("C++ it is", "C++", True)],
)  # fmt: skip
def test_a_word_is_held_where_it_begins_a_word(answer: str, word: str, right: bool) -> None:
    assert holds(answer, word) is right


@pytest.mark.parametrize(
    ("answer", "states"),
    [
        ("You have not told me that.", False),
        ("Which one?", False),
        ("I do not know that.", False),
        ("It is Rex.", True),
    ],
)
def test_what_asserts(answer: str, states: bool) -> None:
    assert asserts(answer) is states


@pytest.mark.parametrize(
    ("answer", "said_back"),
    [("Your dog is Rex.", True), ("I am not sure, but you told me this: Your dog is Rex.", True),
     ("I am not sure, but you told me this: Your dog is Rex. And this: You are ill.", True),
     ("Your dog is Bella.", False), ("Your dog is Rex. You are late.", False), ("You have not told me that.", False)],
)  # fmt: skip
def test_what_is_nothing_but_said_back(answer: str, said_back: bool) -> None:
    assert is_said_back(answer, {"Your dog is Rex.", "You are ill."}) is said_back


def test_the_bundled_facts_hold_their_words() -> None:
    facts = bundled_facts()
    assert len(facts) == 100
    assert all(holds(fact.told, fact.word) and not holds(fact.asked, fact.word) for fact in facts)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"told": "a", "asked": "b"}', '{"told": "", "asked": "b", "word": "c"}', ""]
)
def test_other_files_are_refused_in_one_line(text: str) -> None:
    with pytest.raises(InputError, match="told") as refused:
        read_told(text, "facts.jsonl")
    assert "\n" not in str(refused.value)
