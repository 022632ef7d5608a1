"""What people in stories say to each other, as dialogues."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tools.pretrain import quoted
from tools.pretrain.corpus import read_documents
from tools.pretrain.quoted import LONGEST, dialogues, is_plain, shortened, speech

CHAPTER = """The First Chapter

"Where are you going?" asked the rabbit.

"To the pond," said the duck. "Will you come?"

They walked on together.

"Alone," said nobody in particular.

He slept until the morning.

"One is here." She smiled.

"Two is here," he said.

"Three is here."
"""


@pytest.mark.parametrize(
    ("paragraph", "said"),
    [
        ('"Come," said he, "and see."', "Come, and see."),
        ('"Come," said he. "I know it well."', "Come. I know it well."),
        ('"Come home," he said.', "Come home."),
        ('He laughed. "Well, well!"', "Well, well!"),
        ('"If only you - " he began.', "If only you..."),
        ('"Why?" they asked. "Because," said Ann.', None),
        ('"It goes on and on.', None),
        ("Nobody spoke.", None),
    ],
)
def test_speech_without_narration(paragraph: str, said: str | None) -> None:
    assert speech(paragraph) == said


def test_only_plain_english_stays() -> None:
    assert is_plain("I don't think the boys' boat is here, Mr. Clark.")
    for text in ("Hm", "Give me o' that.", "Catch 'em!", "Thou art late.", "NO, I WILL NOT!", "I shot him.", "a" * 201):
        assert not is_plain(text)


def test_remarks_and_replies_alternate() -> None:
    assert list(dialogues(CHAPTER)) == [
        ["Where are you going?", "To the pond. Will you come?"],
        ["One is here.", "Two is here."],
        ["Two is here.", "Three is here."],
    ]
    long = list(dialogues("".join(f'"This is remark {i}."\n' for i in range(8))))
    assert [len(turns) for turns in long] == [6, 2]


def test_of_a_long_turn_the_near_ends_stay() -> None:
    said = " ".join(f"This is the sentence with number {i}." for i in range(20))
    begin, end = shortened(said)
    assert said.startswith(begin) and said.endswith(end) and begin.endswith(".") and end.startswith("This")
    assert max(len(begin), len(end)) <= LONGEST
    assert list(dialogues(f'"Go on."\n"{said}"\n"I see."\n')) == [["Go on.", begin], [end, "I see."]]


def test_documents_are_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tales.txt").write_text(f"{CHAPTER}<|doc|>\n{CHAPTER}", encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["quoted", str(tmp_path), str(tmp_path / "out.txt"), "--sources", "tales"])
    quoted.main()
    made = list(read_documents(tmp_path, "out"))
    assert made[0] == "User: Where are you going?\nAssistant: To the pond. Will you come?\n"
    assert len(made) == 3
