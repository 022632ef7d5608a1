"""Generation with a scripted session: what is said, what is fed, and where a turn ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest

from edgelm.config import SampleConfig
from edgelm.engine.generate import generate, reply
from edgelm.engine.session import Session, Snapshot
from edgelm.text.tokenizer import DOC_ID, DOC_LINE, StreamDecoder

EURO = "€".encode()
WORDS = [
    DOC_LINE.encode(), b"\n", b" Hello", b" there", b".", b"User", b"Assistant", b":", b" ", b"\n\n", b" User",
    b".\n", EURO[:1], EURO[1:], b" \n", b"Users",
]  # fmt: skip
GREEDY = SampleConfig(temperature=0, repetition_penalty=1, max_tokens=20)
RNG = np.random.default_rng(0)  # greedy sampling does not ask it
PROMPT = [3, 2]


class Words:
    """A tokenizer of a few words."""

    def stream(self) -> StreamDecoder:
        return StreamDecoder(WORDS)

    def encode(self, text: str) -> list[int]:
        return [WORDS.index(text.encode())]


class Script(Session):
    """Says what it is told to, whatever it reads, and writes down what that was."""

    def __init__(self, *words: str | bytes | int) -> None:
        self.ids = [w if isinstance(w, int) else WORDS.index(w if isinstance(w, bytes) else w.encode()) for w in words]
        self._script: Iterator[int] = iter([*self.ids, *[WORDS.index(b".")] * 50])
        self.fed: list[list[int]] = []

    def run(self, ids: np.ndarray, first_logit: int | None = None) -> np.ndarray:
        self.fed.append(ids.tolist())
        logits = np.zeros((1, len(WORDS)), np.float32)
        logits[0, next(self._script)] = 9
        return logits

    def reset(self) -> None:
        raise AssertionError("generation does not take back")

    def snapshot(self) -> Snapshot:
        raise AssertionError("generation does not take back")

    def restore(self, snapshot: Snapshot) -> None:
        raise AssertionError("generation does not take back")


def say(script: Script, max_tokens: int = 20) -> list[str]:
    return list(reply(script, Words(), PROMPT, replace(GREEDY, max_tokens=max_tokens), RNG))  # type: ignore[arg-type]


def read(script: Script) -> str:
    """What the session read after the prompt, word by word."""
    assert script.fed[0] == PROMPT
    assert all(len(ids) == 1 for ids in script.fed[1:])
    return b"".join(WORDS[ids[0]] for ids in script.fed[1:]).decode()


def test_generate_feeds_what_it_gave_when_the_next_is_asked_for() -> None:
    script = Script(" Hello", " there", ".", DOC_ID)
    ids = generate(script, PROMPT, GREEDY, RNG)
    assert script.fed == []
    fed = [PROMPT]
    for token_id in script.ids[:-1]:
        assert next(ids) == token_id
        assert script.fed == fed
        fed.append([token_id])
    assert list(ids) == []
    assert script.fed == fed, "the end of the document is not fed"


def test_generate_stops_after_max_tokens() -> None:
    assert len(list(generate(Script(), PROMPT, replace(GREEDY, max_tokens=7), RNG))) == 7


def test_generate_penalises_its_own_tokens_alone() -> None:
    class Stubborn(Script):
        def run(self, ids: np.ndarray, first_logit: int | None = None) -> np.ndarray:
            return np.log(np.array([[0.05, 0.6, 0.35]], np.float32))

    config = SampleConfig(temperature=0, repetition_penalty=2, max_tokens=3)
    assert list(generate(Stubborn(), [1, 1], config, RNG)) == [1, 2, 1]


def test_generate_mixes_in_what_it_is_given() -> None:
    seen = []

    def mix(history: Sequence[int], probabilities: np.ndarray) -> np.ndarray:
        seen.append((list(history), int(np.argmax(probabilities))))
        assert probabilities.shape == (len(WORDS),) and probabilities.sum() == pytest.approx(1)
        return np.roll(probabilities, 1)  # the next word of the list

    found = list(generate(Script(" Hello", "User", ":"), PROMPT, replace(GREEDY, max_tokens=3), RNG, mix))
    assert found == [3, 6, 8]
    assert seen == [(PROMPT, 2), ([*PROMPT, 3], 5), ([*PROMPT, 3, 6], 7)]


def test_generate_follows_its_seed() -> None:
    def draw(seed: int) -> list[int]:
        config = SampleConfig(temperature=5, top_p=1, max_tokens=20)
        return list(generate(Script(*[2, 3, 4] * 9), PROMPT, config, np.random.default_rng(seed)))

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


@pytest.mark.parametrize("label", ["User", "Assistant", " User"])
@pytest.mark.parametrize("line_end", ["\n", "\n\n", ".\n", " \n"])
def test_a_label_on_a_new_line_ends_the_turn(label: str, line_end: str) -> None:
    script = Script(" Hello", " there", line_end, label, ":", " Hello")
    assert "".join(say(script)) == ("Hello there" + line_end).rstrip()
    assert read(script) == " Hello there" + line_end, "neither the label nor a second line end"


def test_a_label_within_a_line_is_a_word() -> None:
    script = Script(" Hello", " User", ":", "User", "\n", "Users", "Assistant", "\n", "User", ":")
    assert "".join(say(script)) == "Hello User:User\nUsersAssistant"


def test_the_end_of_the_document_ends_the_turn() -> None:
    script = Script(" Hello", ".", DOC_ID, " there")
    assert say(script) == ["Hello", "."]
    assert read(script) == " Hello.\n"


def test_a_line_end_before_the_end_is_not_fed_twice() -> None:
    script = Script(" Hello", "\n", DOC_ID)
    assert say(script) == ["Hello"]
    assert read(script) == " Hello\n"


def test_the_turn_ends_after_max_tokens() -> None:
    script = Script(" Hello", " there", ".", " Hello")
    assert say(script, max_tokens=3) == ["Hello", " there", "."]
    assert read(script) == " Hello there.\n"


def test_a_last_token_that_ends_the_line() -> None:
    script = Script(" Hello", "\n", " Hello")
    assert say(script, max_tokens=2) == ["Hello"]
    assert read(script) == " Hello\n"


def test_line_ends_and_spaces_wait_for_what_follows() -> None:
    script = Script("\n", " ", " Hello", "\n\n", " ", " there", " ", "\n", DOC_ID)
    assert say(script) == ["Hello", "\n\n  there"]


def test_an_empty_turn() -> None:
    for words, fed in (((DOC_ID,), "\n"), (("\n", "User"), "\n"), ((" ", DOC_ID), " \n")):
        script = Script(*words)
        assert say(script) == []
        assert read(script) == fed


def test_characters_come_whole() -> None:
    script = Script(" Hello", EURO[:1], EURO[1:], DOC_ID)
    assert say(script) == ["Hello", "€"]


def test_a_caller_who_has_enough_feeds_no_more() -> None:
    script = Script(" Hello", " there", ".")
    pieces = reply(script, Words(), PROMPT, GREEDY, RNG)  # type: ignore[arg-type]
    assert [next(pieces), next(pieces)] == ["Hello", " there"]
    pieces.close()  # type: ignore[attr-defined]
    assert read(script) == " Hello"
