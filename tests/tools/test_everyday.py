"""The generator of everyday dialogues."""

from __future__ import annotations

import random
import re
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

from tools.pretrain import everyday
from tools.pretrain.corpus import read_documents

N_DIALOGUES = 2500


@pytest.fixture(scope="module")
def phrases() -> everyday.Phrases:
    return everyday.Phrases()


@pytest.fixture(scope="module")
def dialogues(phrases: everyday.Phrases) -> list[str]:
    rng = random.Random(0)
    return [everyday.compose(phrases, rng) for _ in range(N_DIALOGUES)]


def test_is_deterministic(phrases: everyday.Phrases, dialogues: list[str]) -> None:
    rng = random.Random(0)
    assert [everyday.compose(phrases, rng) for _ in range(50)] == dialogues[:50]
    assert everyday.compose(phrases, random.Random(1)) != dialogues[0]


def test_speakers_take_turns(dialogues: list[str]) -> None:
    for dialogue in dialogues:
        lines = dialogue.split("\n")
        assert len(lines) % 2 == 0
        assert 1 <= len(lines) // 2 <= max(everyday.LENGTHS)
        for speaker, line in zip(["User", "Assistant"] * (len(lines) // 2), lines, strict=True):
            assert re.match(rf"{speaker}: \S", line), line


def test_lines_are_clean(dialogues: list[str]) -> None:
    """No slot, choice or article of the grammar is left over, and no white space too many."""
    for line in "\n".join(dialogues).split("\n"):
        assert line.isascii(), line
        assert not re.search(r"[{}\[\]|]|\(n\)|  |\s$| [,.?!]|None", line), line


def test_articles_fit(dialogues: list[str]) -> None:
    wrong = re.findall(r"\b[Aa] [aeio]\w+|\b[Aa]n [bcdfgjklmnpqrstvwxz]\w+", "\n".join(dialogues))
    assert [phrase for phrase in wrong if not re.match(r"[Aa] (one|once)|an? [A-Z]", phrase)] == []


def test_replies_end_and_begin_like_sentences(dialogues: list[str]) -> None:
    for dialogue in dialogues:
        for reply in dialogue.split("\n")[1::2]:
            assert re.match(r"Assistant: [A-Z0-9\"'e]", reply), reply
            assert reply[-1] in ".!?\"'", reply


def test_few_dialogues_repeat(dialogues: list[str]) -> None:
    assert len(set(dialogues)) > 0.97 * N_DIALOGUES


def test_topics_and_facts_are_used(phrases: everyday.Phrases, dialogues: list[str]) -> None:
    """Every fact's question is answered somewhere, so none of the phrase file is dead."""
    text = "\n".join(dialogues)
    for name, fact in phrases.facts.items():
        answers = [re.sub(r"\\\{[^}]*\\\}|a\\\(n\\\)", ".+", re.escape(answer)) for answer in fact["answer"]]
        assert any(re.search(answer, text) for answer in answers), name


def test_capitals_are_answered_right(phrases: everyday.Phrases, dialogues: list[str]) -> None:
    capital = {country: city for country, city, *_ in phrases.lists["nation"]}
    said = re.findall(r"Assistant: The capital of (.+) is (.+)\.", "\n".join(dialogues))
    assert len(said) > 50
    assert [(country, city) for country, city in said if capital[country] != city] == []


def test_feelings_are_answered_in_kind(phrases: everyday.Phrases) -> None:
    """Sympathy for what is bad and joy for what is good, never the other way round."""
    kind, sorry = r"glad|great|lovely|wonderful|congratulations|well done|hooray", r"sorry|oh dear|oh no|hard|hurts"
    for name, wrong in (("feelbad", kind), ("badnews", kind), ("feelgood", sorry), ("goodnews", sorry)):
        for said, reply in phrases.lists[name]:
            if "birthday" not in said:
                assert not re.search(rf"\b({wrong})\b", reply.lower()), said


def test_the_name_told_is_the_name_used(phrases: everyday.Phrases) -> None:
    dialogue = everyday.Dialogue(phrases, random.Random(0))
    dialogue.told["name"] = ("name", {"name": ["Zebedee"]})
    for _ in range(40):
        dialogue.pattern("named", 1)
    assert len(dialogue.turns) > 20
    assert all("Zebedee" in reply for reply in dialogue.turns[1::2])


def test_what_is_known_is_answered_far_more_often_than_not(dialogues: list[str]) -> None:
    """A model that sees many refusals learns to refuse."""
    replies = [line for dialogue in dialogues for line in dialogue.split("\n")[1::2]]
    refusals = [reply for reply in replies if re.search(r"(not|n't) know that", reply)]
    assert len(refusals) < 0.05 * len(replies)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("red, green / leaf", [["red"], ["green", "leaf"]]),
        ("\na, b and c / d\ne / f\n", [["a, b and c", "d"], ["e", "f"]]),
    ],
)
def test_reads_lists_of_one_line_and_of_many(text: str, expected: list[list[str]]) -> None:
    assert everyday.rows(text) == expected


def test_reads_patterns_with_their_weights() -> None:
    assert everyday.patterns("- hi\n= hello\n-2 who?\n= me\n= oh\n= yes\n") == [
        ["hi", "hello"],
        ["who?", "me", "oh", "yes"],
        ["who?", "me", "oh", "yes"],
    ]


@pytest.mark.parametrize(
    ("template", "bound", "expected"),
    [
        ("a(n) {pet} and a(n) {pet.1}", {"pet": ["owl", "cat"]}, "an owl and a cat"),
        ("[one] {day:b}, {day}", {"day": ["Monday"], "day:b": ["Friday"]}, "one Friday, Monday"),
        ("hello{me} .", {}, "hello ."),
        ("a(n) {day}", {"day": ["[{pet}|{pet}]"], "pet": ["owl"]}, "an owl"),
    ],
)
def test_fills_templates(phrases: everyday.Phrases, template: str, bound: dict[str, list[str]], expected: str) -> None:
    assert everyday.Dialogue(phrases, random.Random(0)).fill(template, bound) == expected


def test_nested_choices_are_taken(phrases: everyday.Phrases) -> None:
    dialogue = everyday.Dialogue(phrases, random.Random(0))
    found = {dialogue.fill("[a [b|c]|d]", {}) for _ in range(60)}
    assert found == {"a b", "a c", "d"}


def test_writes_documents_without_duplicates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "everyday.txt"
    monkeypatch.setattr(sys, "argv", ["everyday", str(out), "--dialogues", "200", "--seed", "4"])
    everyday.main()
    written = list(read_documents(tmp_path, "everyday"))
    assert len(set(written)) == len(written) == 200
    assert capsys.readouterr().out.startswith("200 dialogues")
