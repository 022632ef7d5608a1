"""Small talk of students as dialogues: tidied, cut where it is crude, and without a life of the assistant."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tools.pretrain import chitchat
from tools.pretrain.chitchat import Words, alone, claims, documents, tidy, turn, turns_of
from tools.pretrain.corpus import read_documents

TALK = [
    ("a", "hey how are you?"), ("b", "im doing great!!!! how are you"), ("a", "good lol. i really love old movies"),
    ("b", "oh nice"), ("b", "what is your favorite movie"), ("a", "i love the one about space"),
    ("b", "my mom likes that one too"), ("a", "i want to learn the piano this summer"), ("b", "that sounds fun :)"),
]  # fmt: skip


def conversation(talk: list[tuple[str, str]], seconds: int = 20) -> dict[str, object]:
    messages = [
        {"text": text, "sender": who, "timestamp": f"2018-05-02T19:{i * seconds // 60:02}:{i * seconds % 60:02}Z"}
        for i, (who, text) in enumerate(talk)
    ]
    return {"messages": [[message] for message in messages], "prompt": "What if pigs could fly?"}


@pytest.fixture
def words() -> Words:
    return Words([f"{text} so cool that's what I'm saying" for _, text in TALK] * chitchat.COMMON)


def test_messages_are_tidied(words: Words) -> None:
    assert tidy("im sooooo cool lol 😀", words) == "I'm so cool."
    assert tidy("haha", words) == tidy(":)", words) == ""
    assert tidy("what is your favorite movie", words) == "What is your favorite movie?"
    assert tidy("i dont know!!!!", words) == "I don't know!"


def test_turns_are_joined_and_cut(words: Words) -> None:
    assert turn(["oh nice", "lol", "that sounds fun :)"], words) == "Oh nice. That sounds fun."
    for bad in ("this app is fun", "so cool www.movies.com", "a stupid movie", "asdfgh", "IM SO COOL"):
        assert turn(["oh nice", bad], words) is None


@pytest.mark.parametrize(
    "reply",
    [
        "My mom likes it.", "I'm from Ohio.", "I study music.", "I went there last year.", "I ate a sandwich.",
        "Just got home.", "I'm a student.", "Me and two others.", "I'm 19 years old.", "I've been busy.",
    ],
)  # fmt: skip
def test_a_life_is_a_claim(reply: str) -> None:
    assert claims("That sounds fun.", reply)


def test_opinions_and_questions_are_none() -> None:
    for reply in ("I think so too.", "I'm glad to hear that!", "What is your major?", "My favorite is the first one."):
        assert not claims("I love old movies.", reply)
    assert not claims("Hi, how are you?", "I'm great, thanks!")
    assert claims("Where are you from?", "Ohio.")
    assert claims("I'm so tired today.", "Me too!")


def test_a_turn_that_leans_on_another_does_not_begin() -> None:
    assert alone("Hello!") and alone("I really love old movies.")
    assert not alone("I love that one too.") and not alone("Yeah, it is.")


def test_messages_that_cross_are_no_answers(words: Words) -> None:
    assert all(text for _, text in turns_of(conversation(TALK), words))
    assert [text for _, text in turns_of(conversation(TALK, seconds=1), words)].count(None) > 3


def test_dialogues_are_written_either_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = {str(i): conversation(TALK) for i in range(chitchat.COMMON)}
    made = documents(dataset)
    assert len(made) == len(set(made)) == 2
    assert "User: I want to learn the piano this summer.\nAssistant: That sounds fun.\n" in made
    assert not any("Assistant: My mom" in text for text in made)
    (tmp_path / "dataset.json").write_text(json.dumps(dataset), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["chitchat", str(tmp_path / "dataset.json"), str(tmp_path / "out.txt")])
    chitchat.main()
    assert sorted(read_documents(tmp_path, "out")) == sorted(made)
    for text in made:
        labels = [line.split(": ")[0] for line in text.splitlines()]
        assert labels == ["User", "Assistant"] * (len(labels) // 2)
