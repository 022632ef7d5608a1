"""What looks like a secret is skipped, what is everyday talk is not."""

from __future__ import annotations

import pytest

from edgelm.text.secrets import is_secret, without_secrets

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
