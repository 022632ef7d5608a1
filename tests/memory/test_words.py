"""Words of many lines at once, against the same by regular expressions, line by line."""

from __future__ import annotations

import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgelm.memory.words import LONGEST, words_of

MASK = (1 << 64) - 1


def plain_code(word: bytes) -> int:
    code = 0xCBF29CE484222325
    for byte in word[:LONGEST]:
        code = ((code ^ byte) * 0x100000001B3) & MASK
    return code


def plain_stem(word: bytes) -> bytes:
    word = word[:LONGEST]
    if len(word) > 2 and word.endswith(b"'s"):
        word = word[:-2]
    return word[:-1] if len(word) > 3 and word.endswith(b"s") and not word.endswith(b"ss") else word


def plain_words(line: str) -> list[bytes]:
    lowered = bytes(b + 32 if 65 <= b <= 90 else b for b in line.replace("’", "'").encode())
    return re.findall(rb"[0-9a-z\x80-\xff]+(?:'[0-9a-z\x80-\xff]+)*", lowered)


@given(st.lists(st.text(st.sampled_from("abSs '’.-\n9é你A"), max_size=40), max_size=6))
def test_words_are_those_of_each_line(lines: list[str]) -> None:
    words = words_of(lines)
    expected = [(i, word) for i, line in enumerate(lines) for word in plain_words(line.replace("\n", " "))]
    assert words.line.tolist() == [i for i, _ in expected]
    assert words.codes.tolist() == [plain_code(word) for _, word in expected]
    assert words.stems.tolist() == [plain_code(plain_stem(word)) for _, word in expected]


def test_places_are_in_the_joined_lines() -> None:
    lines = ["My dog's bed", "", "isn't here"]
    text = "\n".join(lines)
    words = words_of(lines)
    assert [text[a:b] for a, b in zip(words.begins, words.ends, strict=True)] == ["My", "dog's", "bed", "isn't", "here"]


def test_a_plural_and_a_possessive_have_the_stem_of_the_word() -> None:
    stems = words_of(["dog", "Dogs", "dog's", "glass", "as"]).stems
    assert len(set(stems[:3].tolist())) == 1
    assert len(np.unique(stems)) == 3
