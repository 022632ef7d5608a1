"""The bank of exchanges is made of talk and of further exchanges, without what answers are measured on."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import pytest

from edgelm.memory.bank import PackedExchanges
from tools.pretrain import bank as module
from tools.pretrain import told
from tools.pretrain.bank import in_other_order, read_lines, read_prompts
from tools.pretrain.told import near

TALK = "User: {}\nAssistant: {}\nUser: And then?\nAssistant: Nothing.\n<|doc|>\n"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for name in module.SOURCES:
        (folder / f"{name}.txt").write_text(TALK.format(f"I saw {name} today.", "How was it?"))
    (folder / "everyday.txt").write_text("User: What do owls eat?\nAssistant: Owls eat mice.\n<|doc|>\n")
    return folder


def made(corpus: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> list[tuple[str, str]]:
    out = corpus.parent / "bank.tsv.gz"
    monkeypatch.setattr(sys, "argv", ["bank", str(corpus), str(out), *options])
    module.main()
    return [(one.said, one.reply) for one in PackedExchanges(gzip.decompress(out.read_bytes()))]


def test_first_exchanges_and_simple_questions(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = made(corpus, monkeypatch)
    assert len(found) == 5 and ("What do owls eat?", "Owls eat mice.") in found
    assert not any(said == "And then?" for said, _ in found)


def test_further_ones_but_for_what_is_measured_on(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (corpus.parent / "also.tsv").write_text("My boat sank.\tI am sorry.\nThe red kite flew over our barn\tHow high?\n")
    (corpus.parent / "prompts.txt").write_text("Our red kite flew over a barn.\n")
    (corpus.parent / "pairs.jsonl").write_text('{"said": "my boat, it sank", "reply": "Oh."}\n' * 20)
    also = ["--also", str(corpus.parent / "also.tsv")]
    assert len(made(corpus, monkeypatch, *also)) == 7
    left = made(corpus, monkeypatch, *also, "--never", str(corpus.parent / "prompts.txt"))
    assert len(left) == 6 and ("My boat sank.", "I am sorry.") in left
    assert len(made(corpus, monkeypatch, *also, "--never", str(corpus.parent / "pairs.jsonl"))) == 6


def test_the_same_words_in_another_order_are_near() -> None:
    assert in_other_order("a mouse ate the cheese", [told.stems("the cheese a mouse ate")])
    assert not in_other_order("a mouse ate the cheese", [told.stems("a cat slept on the mat"), set()])
    assert not in_other_order("...", [set()])


def test_near_is_what_shares_rare_stems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(told, "COMMON", 2)
    texts = ["the mild badger, one walnut, my cello", "the mild day", "the mild badger"]
    assert near(texts, ["badgers, walnuts and cellos"]) == {texts[0]}
    assert near(texts, []) == set()


@pytest.mark.parametrize("text", ["no tab\n", "a\tb\tc\n", "a\t\n", "\tb\n", "a\tb\n\n"])
def test_a_line_that_is_no_exchange_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "also.tsv").write_text(text)
    with pytest.raises(ValueError, match="not what was said, a tab and the reply"):
        read_lines(tmp_path / "also.tsv")


def test_prompts_are_lines_or_pairs(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("one\ntwo\n")
    (tmp_path / "pairs.jsonl").write_text('{"said": "three", "reply": "four"}\n' * 20)
    assert read_prompts(tmp_path / "prompts.txt") == ["one", "two"]
    assert set(read_prompts(tmp_path / "pairs.jsonl")) == {"three"}
