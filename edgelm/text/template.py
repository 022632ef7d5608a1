"""How a conversation is written as text, and where a reply or a document ends: part of what a model is.

A model has learned from conversations that were written in one way, and can answer only in that way. So the template
comes with the model, as the optional ``template`` of its ``config.json``; without one it is that of the bundled models:
the literal lines ``User: `` and ``Assistant: ``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgelm.config import MAX_STOP_CHARS, MAX_STOPS
from edgelm.errors import ConfigError
from edgelm.text.tokenizer import DOC_ID, DOC_LINE, MAX_VOCAB_SIZE

LABEL, TEXT = "{label}", "{text}"
MAX_CHARS = MAX_STOP_CHARS
"""Characters of a label, a form or a stop string at most."""


@dataclass(frozen=True)
class Template:
    """The forms of a conversation.

    Parameters
    ----------
    user_label, assistant_label : str
        Who speaks. A reply ends where a new line begins with one of them.
    turn : str
        A whole turn; ``{label}`` and then ``{text}`` each stand in it once.
    system : str
        What stands before the first turn, with ``{text}`` in it once.
    stops : tuple of str
        Strings at which a reply ends, wherever they come; they are no part of it.
    document_id : int
        The token that ends a document.
    document_line : str
        The line that stands for this token in a text of several documents.

    Raises
    ------
    ConfigError
        A field is of another type, too long, empty, or lacks what must stand in it.
    """

    user_label: str = "User"
    assistant_label: str = "Assistant"
    turn: str = "{label}: {text}\n"
    system: str = "{text}\n"
    stops: tuple[str, ...] = ()
    document_id: int = DOC_ID
    document_line: str = DOC_LINE

    def __post_init__(self) -> None:
        for name in ("user_label", "assistant_label", "turn", "system", "document_line"):
            _check_text(name, getattr(self, name))
        for name in ("user_label", "assistant_label", "document_line"):
            if (value := getattr(self, name)) != value.strip() or set(value) & set("\n\t{}"):
                raise ConfigError(
                    f"template: {name} must be one line without spaces around it or braces, not {value!r}"
                )
        if self.user_label == self.assistant_label:
            raise ConfigError(f"template: user_label and assistant_label must differ, both are {self.user_label!r}")
        _check_form("turn", self.turn, (LABEL, TEXT))
        _check_form("system", self.system, (TEXT,))
        if not self.turn_end:
            raise ConfigError(f"template: turn must go on after {TEXT}, or nothing ends a turn; it is {self.turn!r}")
        if not isinstance(self.stops, tuple) or len(self.stops) > MAX_STOPS:
            raise ConfigError(f"template: stops must be a list of at most {MAX_STOPS} strings, not {self.stops!r}")
        for stop in self.stops:
            _check_text("stops", stop)
        if type(self.document_id) is not int or not 0 <= self.document_id < MAX_VOCAB_SIZE:
            raise ConfigError(f"template: document_id must be below {MAX_VOCAB_SIZE}, not {self.document_id!r}")

    @property
    def labels(self) -> tuple[str, str]:
        """The person's label and the assistant's."""
        return self.user_label, self.assistant_label

    @property
    def turn_end(self) -> str:
        """What stands after the words of a turn."""
        return self.turn.partition(TEXT)[2]

    @property
    def user_prompt(self) -> str:
        """What stands before the words of the person, without the space before them."""
        return self._before(self.user_label)

    def user_turn(self, text: str) -> str:
        """What a person said, as a turn of the conversation."""
        return self._turn(self.user_label, text)

    def assistant_turn(self, text: str) -> str:
        """What the model said, as a turn of the conversation."""
        return self._turn(self.assistant_label, text)

    def reply_prompt(self) -> str:
        """What stands before an answer; the answer begins with the space after it, if the form has one."""
        return self._before(self.assistant_label)

    def answer(self, text: str) -> str:
        """What follows ``reply_prompt``, so that both together are the turn; ``text`` is taken as it is."""
        return self.turn.replace(LABEL, self.assistant_label, 1)[len(self.reply_prompt()) :].replace(TEXT, text, 1)

    def system_text(self, text: str) -> str:
        """What stands before the first turn."""
        return self.system.replace(TEXT, self.clean(text), 1)

    def document(self, ids: Sequence[int]) -> list[int]:
        """The ids of a text as a document that begins: after the end of the one before it."""
        return [self.document_id, *ids]

    def clean(self, text: str) -> str:
        """A turn without white space around it; a label within cannot start a line, so it cannot forge a turn."""
        starts = tuple(self._before(label) for label in self.labels)
        lines = text.strip().splitlines()
        return "\n".join(" " + line if line.startswith(starts) else line for line in lines).strip()

    def to_dict(self) -> dict[str, Any]:
        """The fields that differ from those of the bundled models, for ``config.json``."""
        fields = dataclasses.asdict(self) | {"stops": list(self.stops)}
        usual = dataclasses.asdict(Template()) | {"stops": []}
        return {name: value for name, value in fields.items() if value != usual[name]}

    @classmethod
    def from_dict(cls, fields: object) -> Template:
        """The inverse of ``to_dict``.

        Raises
        ------
        ConfigError
            It is no object, has an unknown field, or one that is not allowed.
        """
        if not isinstance(fields, dict):
            raise ConfigError(f"template must be an object, not {type(fields).__name__}")
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(str(name) for name in fields if name not in known):
            raise ConfigError(f"template: unknown field {unknown[0][:MAX_CHARS]!r}; is the model newer than edgelm?")
        stops = fields.get("stops", [])
        if not isinstance(stops, list):
            raise ConfigError(f"template: stops must be a list of strings, not {type(stops).__name__}")
        return cls(**(fields | {"stops": tuple(stops)}))

    def _turn(self, label: str, text: str) -> str:
        return self.turn.replace(LABEL, label, 1).replace(TEXT, self.clean(text), 1)

    def _before(self, label: str) -> str:
        return self.turn.partition(TEXT)[0].replace(LABEL, label, 1).rstrip(" ")


def _check_text(name: str, value: object) -> None:
    fits = isinstance(value, str) and 0 < len(value) <= MAX_CHARS
    if not fits or not all(c in "\n\t" or c.isprintable() for c in str(value)):
        raise ConfigError(f"template: {name} must be 1 to {MAX_CHARS} printable characters, not {str(value)[:80]!r}")


def _check_form(name: str, form: str, parts: tuple[str, ...]) -> None:
    places = [form.find(part) for part in parts]
    if any(form.count(part) != 1 for part in parts) or places != sorted(places):
        raise ConfigError(f"template: {name} must hold {' and then '.join(parts)} once, it is {form!r}")


USUAL = Template()
"""That of the bundled models."""
