"""Generation with a scripted session: what is said, what is fed, and where a turn ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest

from edgelm.config import SampleConfig
from edgelm.engine.generate import Ended, Generation, Mix, Reply, no_mix
from edgelm.engine.session import Session, Snapshot
from edgelm.text.template import USUAL, Template
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


def turn(script: Script, max_tokens: int = 20, template: Template = USUAL) -> Reply:
    config = replace(GREEDY, max_tokens=max_tokens)
    return Reply(script, Words(), PROMPT, config, RNG, template=template)  # type: ignore[arg-type]


def say(script: Script, max_tokens: int = 20) -> list[str]:
    return list(turn(script, max_tokens))


def generated(script: Session, prompt: list[int], config: SampleConfig, rng=RNG, mix: Mix = no_mix) -> list[int]:  # type: ignore[no-untyped-def]
    return [token.id for token in Generation(script, prompt, config, rng, mix)]


def read(script: Script) -> str:
    """What the session read after the prompt, word by word."""
    assert script.fed[0] == PROMPT
    assert all(len(ids) == 1 for ids in script.fed[1:])
    return b"".join(WORDS[ids[0]] for ids in script.fed[1:]).decode()


def test_generate_feeds_what_it_gave_when_the_next_is_asked_for() -> None:
    script = Script(" Hello", " there", ".", DOC_ID)
    tokens = Generation(script, PROMPT, GREEDY, RNG)
    assert script.fed == []
    fed = [PROMPT]
    for token_id in script.ids[:-1]:
        assert next(tokens).id == token_id
        assert script.fed == fed
        fed.append([token_id])
    assert tokens.ended is None
    assert list(tokens) == []
    assert tokens.ended == Ended.END_OF_DOCUMENT == "end_of_document"
    assert script.fed == fed, "the end of the document is not fed"


def test_generate_stops_after_max_tokens() -> None:
    assert len(generated(Script(), PROMPT, replace(GREEDY, max_tokens=7))) == 7


def test_generate_penalises_its_own_tokens_alone() -> None:
    class Stubborn(Script):
        def run(self, ids: np.ndarray, first_logit: int | None = None) -> np.ndarray:
            return np.log(np.array([[0.05, 0.6, 0.35]], np.float32))

    config = SampleConfig(temperature=0, repetition_penalty=2, max_tokens=3)
    assert generated(Stubborn(), [1, 1], config) == [1, 2, 1]


def test_generate_mixes_in_what_it_is_given() -> None:
    seen = []

    def mix(ids: Sequence[int], probabilities: np.ndarray) -> np.ndarray:
        seen.append((list(ids), int(np.argmax(probabilities))))
        assert probabilities.shape == (len(WORDS),) and probabilities.sum() == pytest.approx(1)
        return np.roll(probabilities, 1)  # the next word of the list

    found = generated(Script(" Hello", "User", ":"), PROMPT, replace(GREEDY, max_tokens=3), RNG, mix)
    assert found == [3, 6, 8]
    assert seen == [(PROMPT, 2), ([3], 5), ([6], 7)]


def test_generate_follows_its_seed() -> None:
    def draw(seed: int) -> list[int]:
        config = SampleConfig(temperature=5, top_p=1, max_tokens=20)
        return generated(Script(*[2, 3, 4] * 9), PROMPT, config, np.random.default_rng(seed))

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
    pieces = turn(script)
    assert [next(pieces), next(pieces)] == ["Hello", " there"]
    pieces.close()
    assert read(script) == " Hello"


class Reader(Script):
    """Its state is what it has read."""

    def __init__(self, *words: str | bytes | int) -> None:
        super().__init__(*words)
        self.has_read: list[int] = []

    def run(self, ids: np.ndarray, first_logit: int | None = None) -> np.ndarray:
        self.has_read += ids.tolist()
        return super().run(ids, first_logit)

    def snapshot(self) -> Snapshot:
        return [np.array(self.has_read)]

    def restore(self, snapshot: Snapshot) -> None:
        self.has_read = snapshot[0].tolist()


class Letters(Words):
    """Knows some words, and spells others letter by letter."""

    table: ClassVar = [*WORDS, *(bytes([i]) for i in range(256))]

    def stream(self) -> StreamDecoder:
        return StreamDecoder(self.table)

    def encode(self, text: str) -> list[int]:
        return [len(WORDS) + byte for byte in text.encode()]


@pytest.mark.parametrize(
    ("words", "reply", "read", "ended"),
    [
        ((" Hello", ".", "\n\n", "User"), "Hello.", " Hello.\n\n", Ended.STOP),
        ((" Hello", "\n", "\n", "User"), "Hello", " Hello\n\n", Ended.STOP),
        ((" Hello", "\n", " there", DOC_ID), "Hello\n there", " Hello\n there\n\n", Ended.END_OF_DOCUMENT),
        ((" Hello", "\n", "User"), "Hello", " Hello\n\n", Ended.STOP),
        ((" Hello", "Users", ":", "\n"), "HelloUsers:", " HelloUsers:\n\n", Ended.LENGTH),
        ((" Hello", "Assistant", ".\n", "\n"), "HelloAssistant.", " HelloAssistant.\n\n", Ended.STOP),
        ((" Hello", ":", ":", " there"), "Hello", " Hello\n\n", Ended.STOP),
        ((" Hello", ":", ".", DOC_ID), "Hello:.", " Hello:.\n\n", Ended.END_OF_DOCUMENT),
    ],
)
def test_stop_strings_are_neither_said_nor_read(
    words: tuple[str | int, ...], reply: str, read: str, ended: Ended
) -> None:
    class Narrow(Reader):
        def run(self, ids: np.ndarray, first_logit: int | None = None) -> np.ndarray:
            return np.pad(super().run(ids, first_logit), ((0, 0), (0, 256)))

    template = Template(turn="{label}: {text}\n\n", stops=("\n\n", "::"))
    script, config = Narrow(*words), replace(GREEDY, max_tokens=4)
    said = Reply(script, Letters(), PROMPT, config, RNG, template=template)  # type: ignore[arg-type]
    assert "".join(said) == reply
    assert said.ended == ended
    assert b"".join(Letters.table[i] for i in script.has_read[len(PROMPT) :]).decode() == read


def test_a_label_of_several_tokens_ends_the_turn() -> None:
    template = Template("Users::", "Assistant")
    script = Reader(" Hello", "\n", "Users", ":", ":", " there")
    said = turn(script, template=template)
    assert list(said) == ["Hello"] and said.ended == Ended.STOP
    assert b"".join(WORDS[i] for i in script.has_read[len(PROMPT) :]) == b" Hello\n"
    assert [token.id for token in said.tokens] == script.ids[:2]


def test_a_turn_tells_why_it_ended_and_what_its_tokens_cost() -> None:
    said = turn(Script(" Hello", ".", DOC_ID))
    assert said.ended is None and said.mean_log_probability == 0
    list(said)
    assert said.ended == Ended.END_OF_DOCUMENT
    sure = 9 - np.log(np.exp(9) + len(WORDS) - 1)
    assert [token.log_probability for token in said.tokens] == pytest.approx([sure, sure])
    assert said.mean_log_probability == pytest.approx(sure)
    for script, ended in ((Script(" Hello", "\n", "User"), Ended.STOP), (Script(), Ended.LENGTH)):
        said = turn(script, 5)
        list(said)
        assert said.ended == ended
