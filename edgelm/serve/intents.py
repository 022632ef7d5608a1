"""Intents: what a person wants done, as a file lists it, and which of them a sentence means.

A file of intents is TOML::

    [slots]
    area = ["kitchen", "living room"]
    minutes = { from = 1, to = 90 }

    [[intent]]
    name = "HassTurnOn"
    examples = ["turn on the {area} light", "lights on"]
    entities = { domain = "light" }
    answer = "The light is on."

A slot holds one of its values; numbers are found as digits and, below 100, as words. An intent is meant only where each
slot that all its examples have is filled. ``entities`` are the same for every sentence, and ``answer`` is what may be
said afterwards; both may be left out. Two intents may have one name.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgelm.errors import InputError

MAX_BYTES, MAX_INTENTS, MAX_SLOTS, MAX_VALUES, MAX_EXAMPLES, MAX_CHARS, MAX_NUMBER = 1 << 18, 64, 32, 500, 64, 200, 999
"""Of a file, at most: bytes, intents, slots, values of a slot, examples and entities of an intent, characters of a
text, and the largest number."""
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_SLOT = re.compile(r"\{([^{}]*)\}")
_WORD = re.compile(r"\w+(?:'\w+)*")
_SMALL = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]  # fmt: skip
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
Value = str | int


def bare_words(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return _WORD.findall(text.casefold().replace("’", "'"))


@dataclass(frozen=True)
class Slot:
    """What may stand at a place of a sentence.

    Attributes
    ----------
    values : dict of tuple of str to str or int
        The words of each value, and the value.
    longest : int
        Words of the value that has most.
    """

    values: Mapping[tuple[str, ...], Value]
    longest: int


@dataclass(frozen=True)
class Intent:
    """Something that a person may want done.

    Attributes
    ----------
    name : str
    examples : tuple of str
        Without their slots.
    slots, needed : tuple of str
        Slots of any example, and those that every example has.
    entities : dict of str to str, int, float or bool
    answer : str
    """

    name: str
    examples: tuple[str, ...]
    slots: tuple[str, ...]
    needed: frozenset[str]
    entities: Mapping[str, Any] = field(default_factory=dict)
    answer: str = ""


@dataclass(frozen=True)
class Intents:
    """What a file of intents says.

    Attributes
    ----------
    intents : tuple of Intent
    slots : dict of str to Slot
    """

    intents: tuple[Intent, ...]
    slots: Mapping[str, Slot]


def read_intents(path: Path) -> Intents:
    """Reads a file of intents.

    Raises
    ------
    InputError
        It cannot be read, or is not as described above; the message says where.
    """
    try:
        with path.open("rb") as file:
            blob = file.read(MAX_BYTES + 1)
    except OSError as exc:
        raise InputError(f"{path}: cannot be read: {exc.strerror or exc}") from None
    if len(blob) > MAX_BYTES:
        raise InputError(f"{path}: a file of intents has at most {MAX_BYTES:,} bytes")
    try:
        data = tomllib.loads(blob.decode("utf-8"))
    except (ValueError, RecursionError) as exc:
        raise InputError(f"{path}: this is not TOML: {str(exc)[:200]}") from None
    try:
        return parse_intents(data)
    except InputError as exc:
        raise InputError(f"{path}: {exc}") from None


def parse_intents(data: Mapping[str, Any]) -> Intents:
    """Makes intents of what a TOML file holds.

    Raises
    ------
    InputError
        It is not as described above.
    """
    _fields(data, {"slots": dict, "intent": list}, "the file")
    given = data.get("slots", {})
    if len(given) > MAX_SLOTS:
        raise InputError(f"[slots]: at most {MAX_SLOTS} are allowed, {len(given)} were found")
    slots = {_name(name, "[slots]"): _slot(value, f"slots.{name}") for name, value in given.items()}
    found = data.get("intent", [])
    if not 1 <= len(found) <= MAX_INTENTS:
        raise InputError(f"[[intent]]: 1 to {MAX_INTENTS} are needed, {len(found)} were found")
    return Intents(tuple(_intent(one, slots, f"intent {i}") for i, one in enumerate(found, 1)), slots)


def _fields(data: Any, allowed: Mapping[str, type], where: str) -> None:
    if not isinstance(data, Mapping):
        raise InputError(f"{where}: a table was expected, not {type(data).__name__}")
    for name, value in data.items():
        if name not in allowed:
            raise InputError(f"{where}: there is no field {name[:80]!r}; allowed are {', '.join(allowed)}")
        if not isinstance(value, allowed[name]) or isinstance(value, bool):
            raise InputError(f"{where}: {name} must be of type {allowed[name].__name__}")


def _name(name: Any, where: str) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InputError(f"{where}: {str(name)[:80]!r} is no name: a letter, then letters, digits and _.-, 64 at most")
    return name


def _text(text: Any, where: str) -> str:
    if not isinstance(text, str) or not text.strip() or len(text) > MAX_CHARS or not text.isprintable():
        raise InputError(f"{where}: a printable text of 1 to {MAX_CHARS} characters was expected")
    return " ".join(text.split())


def _slot(given: Any, where: str) -> Slot:
    values: dict[tuple[str, ...], Value] = {}
    if isinstance(given, Mapping):
        _fields(given, {"from": int, "to": int}, where)
        first, last = given.get("from", -1), given.get("to", -1)
        if not 0 <= first <= last <= MAX_NUMBER:
            raise InputError(f"{where}: from and to must be numbers with 0 <= from <= to <= {MAX_NUMBER}")
        for number in range(first, last + 1):
            values |= dict.fromkeys([(str(number),), *_spoken(number)], number)
    elif isinstance(given, list) and 1 <= len(given) <= MAX_VALUES:
        for value in given:
            text = _text(value, where)
            if not (words := tuple(bare_words(text))):
                raise InputError(f"{where}: {text[:80]!r} has no words")
            values[words] = text
    else:
        raise InputError(f"{where}: a list of 1 to {MAX_VALUES} texts, or {{ from = 1, to = 9 }}, was expected")
    return Slot(values, max(map(len, values)))


def _spoken(number: int) -> list[tuple[str, ...]]:
    """A number as words: none from 100 on."""
    if number < 20:
        return [(_SMALL[number],)]
    if number > 99:
        return []
    return [(_TENS[number // 10 - 2], *([_SMALL[number % 10]] if number % 10 else []))]


def _intent(given: Any, slots: Mapping[str, Slot], where: str) -> Intent:
    _fields(given, {"name": str, "examples": list, "entities": dict, "answer": str}, where)
    name = _name(given.get("name"), f"{where}: name")
    where = f"{where} ({name})"
    examples, entities = given.get("examples", []), given.get("entities", {})
    if not 1 <= len(examples) <= MAX_EXAMPLES:
        raise InputError(f"{where}: 1 to {MAX_EXAMPLES} examples are needed, {len(examples)} were found")
    if len(entities) > MAX_EXAMPLES:
        raise InputError(f"{where}: at most {MAX_EXAMPLES} entities are allowed")
    bare, used = list[str](), list[list[str]]()
    for example in examples:
        text = _text(example, f"{where}: examples")
        used.append(_SLOT.findall(text))
        if unknown := [slot for slot in used[-1] if slot not in slots]:
            raise InputError(f"{where}: {text[:80]!r} names the slot {unknown[0][:80]!r}, which [slots] does not have")
        bare.append(" ".join(bare_words(_SLOT.sub(" ", text))))
        if not bare[-1]:
            raise InputError(f"{where}: {text[:80]!r} has no words beside its slots")
    for key, value in entities.items():
        _name(key, f"{where}: entities")
        if not isinstance(value, (int, float)):
            _text(value, f"{where}: entities.{key}")
        elif not math.isfinite(value):
            raise InputError(f"{where}: entities.{key}: a finite number was expected")
    answer = _text(given["answer"], f"{where}: answer") if "answer" in given else ""
    all_used = tuple(dict.fromkeys(slot for one in used for slot in one))
    return Intent(name, tuple(bare), all_used, frozenset.intersection(*map(frozenset, used)), dict(entities), answer)
