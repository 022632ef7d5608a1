"""Files of intents, and which intent a sentence means."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgelm.errors import InputError
from edgelm.memory.meaning import Meaning
from edgelm.serve.intents import parse_intents, read_intents
from edgelm.serve.recognise import MOST_WORDS, THRESHOLD, Recogniser
from tests.command import run_cli

MEASURED = Path(__file__).resolve().parents[2] / "tools" / "measure"


@pytest.fixture(scope="module")
def recogniser() -> Recogniser:
    return Recogniser(read_intents(MEASURED / "intents.toml"), Meaning())


@pytest.mark.parametrize(
    ("text", "name", "entities"),
    [
        ("Could you switch on the light in the kitchen, please?", "HassTurnOn", {"domain": "light", "area": "kitchen"}),
        ("set the thermostat to 21", "HassClimateSetTemperature", {"temperature": 21}),
        ("the temperature should be Twenty Two", "HassClimateSetTemperature", {"temperature": 22}),
        ("I need a timer of ten minutes", "HassStartTimer", {"minutes": 10}),
        ("please lock the back door", "HassTurnOn", {"domain": "lock", "name": "back door"}),
    ],
)
def test_what_is_meant_is_recognised(recogniser: Recogniser, text: str, name: str, entities: dict[str, Any]) -> None:
    found = recogniser.recognise(text)
    assert found is not None
    assert (found.name, found.entities) == (name, entities)


@pytest.mark.parametrize(
    "text",
    [
        "", "?!", "what is your name", "set the thermostat", "start a timer", "lights " * (MOST_WORDS + 1),
        "set a timer for 91 minutes", "qwxz",
    ],
)  # fmt: skip
def test_what_is_no_intent_is_none(recogniser: Recogniser, text: str) -> None:
    assert recogniser.recognise(text) is None


def test_the_answer_is_that_of_the_file(recogniser: Recogniser) -> None:
    found = recogniser.recognise("lock the front door")
    assert found is not None
    assert found.answer == "The door is being locked."


def test_every_example_means_its_own_intent(recogniser: Recogniser) -> None:
    data = tomllib.loads((MEASURED / "intents.toml").read_text(encoding="utf-8"))
    filled = {"area": "garden", "temperature": "20", "minutes": "ninety", "name": "front door"}
    for number, intent in enumerate(data["intent"]):
        for example in intent["examples"]:
            assert int(np.argmax(recogniser.scores(example.format(**filled)))) == number, example


@pytest.mark.parametrize(("name", "found", "mistaken"), [("intents_heard", 50, 4), ("intents_later", 26, 5)])
def test_sentences_that_no_example_has_are_told_apart(
    recogniser: Recogniser, name: str, found: int, mistaken: int
) -> None:
    """The figures of docs/experiments.md, with a little room."""
    heard = tomllib.loads((MEASURED / f"{name}.toml").read_text(encoding="utf-8"))["heard"]
    scores = np.array([recogniser.scores(one["text"]) for one in heard])
    wanted = np.array([one["intent"] for one in heard])
    got = np.where(scores.max(1) >= THRESHOLD, scores.argmax(1) + 1, 0)
    assert ((got == wanted) & (wanted > 0)).sum() >= found
    assert ((got > 0) & (wanted == 0)).sum() <= mistaken


def test_slots_do_not_share_words() -> None:
    data = {
        "slots": {"hours": {"from": 1, "to": 12}, "minutes": {"from": 0, "to": 59}, "who": ["Ann", "Ann Lee"]},
        "intent": [{"name": "Alarm", "examples": ["wake {who} at {hours} {minutes}"]}],
    }
    found = Recogniser(parse_intents(data), Meaning()).recognise("wake ann lee at seven thirty")
    assert found is not None
    assert found.entities == {"who": "Ann Lee", "hours": 7, "minutes": 30}


ONE = {"name": "A", "examples": ["do it"]}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({}, "1 to 64 are needed"),
        ({"intent": [ONE] * 65}, "65 were found"),
        ({"intents": [ONE]}, "no field 'intents'"),
        ({"intent": {"name": "A"}}, "intent must be of type list"),
        ({"intent": ["A"]}, "a table was expected"),
        ({"intent": [{**ONE, "example": "x"}]}, "no field 'example'"),
        ({"intent": [{**ONE, "name": "a b"}]}, "is no name"),
        ({"intent": [{"examples": ["x"]}]}, "is no name"),
        ({"intent": [{"name": "A"}]}, "examples are needed"),
        ({"intent": [{**ONE, "examples": ["x"] * 65}]}, "65 were found"),
        ({"intent": [{**ONE, "examples": ["x" * 201]}]}, "a printable text"),
        ({"intent": [{**ONE, "examples": [["x"]]}]}, "a printable text"),
        ({"intent": [{**ONE, "examples": ["\x1b[2J"]}]}, "a printable text"),
        ({"intent": [{**ONE, "examples": ["go to {room}"]}]}, "names the slot 'room'"),
        ({"intent": [{**ONE, "examples": ["{a}"]}], "slots": {"a": ["x"]}}, "no words beside its slots"),
        ({"intent": [{**ONE, "entities": {"x": [1]}}]}, "a printable text"),
        ({"intent": [{**ONE, "entities": {"x": float("nan")}}]}, "a finite number"),
        ({"intent": [{**ONE, "entities": {f"x{i}": 1 for i in range(65)}}]}, "at most 64 entities"),
        ({"intent": [{**ONE, "answer": 3}]}, "answer must be of type str"),
        ({"intent": [ONE], "slots": {"a": []}}, "a list of 1 to 500"),
        ({"intent": [ONE], "slots": {"a": ["?"]}}, "has no words"),
        ({"intent": [ONE], "slots": {"a": "x"}}, "a list of 1 to 500"),
        ({"intent": [ONE], "slots": {"a": {"from": 3, "to": 2}}}, "from <= to"),
        ({"intent": [ONE], "slots": {"a": {"from": True, "to": 2}}}, "from must be of type int"),
        ({"intent": [ONE], "slots": {"a": {"from": 0, "to": 10**9}}}, "from <= to"),
        ({"intent": [ONE], "slots": {"a b": ["x"]}}, "is no name"),
        ({"intent": [ONE], "slots": {f"s{i}": ["x"] for i in range(33)}}, "at most 32"),
    ],
)
def test_what_is_not_allowed_is_said(data: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        parse_intents(data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("blob", "said"),
    [
        (b"intent = [", "not TOML"),
        (b"\xff\xfe", "not TOML"),
        (b"a = " + b"[" * 50_000, "not TOML"),
        (b"#" * (1 << 18) + b"#", "at most"),
        (b"x = 1", "no field"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(blob: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "intents.toml"
    path.write_bytes(blob)
    with pytest.raises(InputError, match=said) as caught:
        read_intents(path)
    assert str(path) in str(caught.value)
    with pytest.raises(InputError, match="cannot be read"):
        read_intents(tmp_path / "none.toml")


def test_the_command_says_what_it_needs(tmp_path: Path, home: Path) -> None:
    path = tmp_path / "intents.toml"
    path.write_text("x = 1", encoding="utf-8")
    told = run_cli(["serve", "--intents", str(path)])
    assert told.code == 2
    assert "--wyoming" in told.stderr
    told = run_cli(["serve", "--wyoming", "0", "--intents", str(path)])
    assert told.code == 1
    assert "no field 'x'" in told.stderr
