"""What looks like a secret is skipped, what is everyday talk is not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edgelm.text import secrets
from edgelm.text.secrets import PIECE, has_seed, is_secret, without_secrets

SECRETS = [
    "my password is hunter22",
    "The wifi password: correct-horse",
    "PIN 4711 is wrong, my pin is 8316",
    "api_key = abcd77",
    "passwd=letmein",
    "my card is 4111 1111 1111 1111",
    "4242424242424242",
    "IBAN DE89 3704 0044 0532 0130 00 please",
    "GB82WEST12345698765432",
    "write to jane.doe+x@example.co.uk",
    "call me on +49 151 2345 6789",
    "my number is 0171-234-5678",
    "(020) 7946 0958",
    "ghp_a8Zk3LmQ9xT2vB7nR4wY6cJ1dF5gH0",
    "AKIAIOSFODNN7EXAMPLE",
    "-----BEGIN RSA PRIVATE KEY-----",
    "我的密码是 abc123",
]
HARMLESS = [
    "my dog is called Biscuit",
    "I forgot my password again",
    "the password is not very long",
    "I was born on 12-05-1987 in Leeds",
    "on 2019-03-04 we met",
    "They used the Cotton Bowl from 1960 - 1971.",
    "Faiss (1905-1981) painted",
    "[2017-05-11 09:34] basketball",
    "from 2017/05/11 09:34:10 to 2017-05-12T10:00",
    "the house cost 1,250,000 pounds",
    "there are 8000000000 people",
    "In 1914 1918 1939 there was war",
    "I work at the internationalization-department",
    "meet me at 10:30 or at 11:45",
    "token ring networks are old",
    "my favourite number is 1234567",
    "Supercalifragilisticexpialidocious is a word",
    "see docs/decisions/0001-weights-as-graph-inputs.md",
    "He pinned the note to the door",
    "the secret is out",
]


@pytest.mark.parametrize("line", SECRETS)
def test_secrets_are_seen(line: str) -> None:
    assert is_secret(line)


@pytest.mark.parametrize("line", HARMLESS)
def test_everyday_talk_is_learned(line: str) -> None:
    assert not is_secret(line)


def test_only_the_line_is_skipped() -> None:
    text = "I like tea.\nmy password is hunter22\nI like rain.\n"
    assert without_secrets(text) == ("I like tea.\nI like rain.\n", 1)


def test_a_key_goes_with_its_block() -> None:
    block = "-----BEGIN PGP PRIVATE KEY BLOCK-----\nVersion: 2\n\nlQOYBFabc\n-----END PGP PRIVATE KEY BLOCK-----\n"
    assert without_secrets(f"I like tea.\n{block}I like rain.\n") == ("I like tea.\nI like rain.\n", 5)


def test_a_key_without_an_end_takes_no_sentence_with_it() -> None:
    text = "-----BEGIN PRIVATE KEY-----\nlQOYBFabc\nI like rain.\nHello\n"
    assert without_secrets(text) == ("I like rain.\nHello\n", 2)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("my password is:\nswordfish\nI like rain.\n", "I like rain.\n"),
        ("recovery codes:\n\n1a2b3-c4d5e\n9f8g7-h6i5j\nI like rain.\n", "I like rain.\n"),
        ("my password is:\nI will not say it to anyone.\n", "my password is:\nI will not say it to anyone.\n"),
        ("my password is:\n", "my password is:\n"),
    ],
)
def test_the_value_on_the_next_line(text: str, kept: str) -> None:
    assert without_secrets(text)[0] == kept


def _listed(name: str) -> list[str]:
    lines = Path(__file__).with_name(name).read_text(encoding="utf-8").splitlines()
    return [line.replace("¦", "").replace("⏎", "\n") for line in lines if not line.startswith("#")]


# The lists "seen" were written before the filter was, those called "later" after it, and it was not changed
# for them. The bounds are what was measured.
@pytest.mark.parametrize(("name", "n", "missed"), [("seen", 71, 0), ("later", 30, 10)])
def test_secrets_of_the_lists_are_seen(name: str, n: int, missed: int) -> None:
    listed = _listed(f"secrets_{name}.txt")
    assert len(listed) == n
    assert len([text for text in listed if without_secrets(text)[0].strip()]) <= missed


@pytest.mark.parametrize(("name", "n", "skipped"), [("seen", 50, 0), ("later", 40, 0)])
def test_harmless_lines_of_the_lists_are_learned(name: str, n: int, skipped: int) -> None:
    listed = _listed(f"harmless_{name}.txt")
    assert len(listed) == n
    assert len([text for text in listed if without_secrets(text)[1]]) <= skipped


def test_a_secret_is_seen_wherever_the_line_is_cut() -> None:
    for begin in range(PIECE - 40, PIECE + 40):
        assert is_secret("la " * (begin // 3) + " " * (begin % 3) + "my password is hunter22" + " la" * 500)


def _calls(text: str) -> int:
    """How many functions, Python's own among them, are called to filter the text."""
    count, before = 0, sys.getprofile()

    def on_event(_frame: object, event: str, _arg: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(on_event)
    try:
        without_secrets(text)
    finally:
        sys.setprofile(before)
    return count


GROWING = [
    "a",
    "word",
    "é",
    "1 ",
    "1,",
    "0 1",
    "a.",
    "a@",
    "- ",
    "password ",
    "密码 ",
    "pin code ",
    "no password\n",
    "password a1b2:\n",
    "Comment: -----BEGIN PRIVATE KEY-----\n",
    "-----BEGIN PRIVATE KEY-----\nabc\n",
    "a\u0300\u0327",
]


@pytest.mark.parametrize("unit", GROWING)
def test_the_work_grows_with_the_text(unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the text is twice the calls, and each call of a pattern is given at most ``PIECE`` characters."""
    lengths: list[int] = []

    def watched(kind: secrets.SecretClass) -> secrets.SecretClass:
        def found(text: str) -> bool:
            lengths.append(len(text))
            return kind.found(text)

        return kind._replace(found=found)

    monkeypatch.setattr(secrets, "CLASSES", tuple(watched(kind) for kind in secrets.CLASSES))
    once = unit * (8 * PIECE // len(unit))
    begun = _calls(once)
    characters = sum(lengths)
    assert _calls(once * 2) <= 2.3 * begun
    assert max(lengths) <= PIECE
    assert sum(lengths) - characters <= 2.3 * characters


def test_a_list_of_words_has_one_reading() -> None:
    """Two spaces between words once let a pattern read each gap in two ways: 2 to the 40th of them here."""
    assert not has_seed("number  " * 40 + "!?1")
    words = ["abandon", "ability", "able", "about", "above", "absent", "absorb", "abstract", "absurd", "abuse"]
    words += ["access", "accident"]
    assert has_seed("  ".join(words)) and has_seed(" ".join(f"{i}. {word}" for i, word in enumerate(words, 1)))
