"""Text to token ids and back: what every tokenizer can do, whatever its vocabulary.

Id 0 is the end-of-document token; it has no spelling, so text can never produce it: ``<|doc|>`` typed by a person is
seven ordinary characters. ``edgelm.text.opening`` opens the ``tokenizer.json`` of a model.
"""

from __future__ import annotations

import codecs
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

from edgelm.config import LARGEST

DOC_ID = 0
DOC_LINE = "<|doc|>"
MAX_VOCAB_SIZE, MAX_FILE_BYTES = LARGEST, 16 << 20


class Tokenizer(ABC):
    """A vocabulary of byte strings with one special id, and a way to cut text into them.

    Parameters
    ----------
    spellings : sequence of bytes
        Of all ids but the end-of-document token, from id 1 on.

    Attributes
    ----------
    vocab_size : int
    document_id : int
        The end-of-document token.
    """

    document_id = DOC_ID

    def __init__(self, spellings: Sequence[bytes]) -> None:
        self._bytes = [(DOC_LINE + "\n").encode(), *spellings]
        self.vocab_size = len(self._bytes)

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Token ids of ``text``; no special id is ever among them.

        Raises
        ------
        InputError
            ``text`` has a lone surrogate, as an argument that was not UTF-8 has.
        """

    def encode_document_lines(self, text: str) -> list[int]:
        """Token ids of a corpus text, in which each line ``<|doc|>`` is one end-of-document id."""
        ids: list[int] = []
        start = 0
        for position in document_breaks(text):
            if position > start:
                ids.extend(self.encode(text[start:position]))
            ids.append(DOC_ID)
            start = min(position + len(DOC_LINE) + 1, len(text))
        if start < len(text):
            ids.extend(self.encode(text[start:]))
        return ids

    def decode(self, ids: list[int]) -> str:
        """Text of ``ids``; an incomplete character becomes U+FFFD, the special id its line."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: list[int]) -> bytes:
        """UTF-8 bytes of ``ids``, exactly."""
        return b"".join(self._bytes[i] for i in ids)

    def stream(self) -> StreamDecoder:
        """A decoder that is fed one id at a time and never yields half a character."""
        return StreamDecoder(self._bytes)


class StreamDecoder:
    """Turns ids into text as they come, holding back incomplete UTF-8 sequences."""

    def __init__(self, table: list[bytes]) -> None:
        self._table = table
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, token_id: int) -> str:
        """The text that ``token_id`` completes; often one token's, sometimes empty."""
        return self._utf8.decode(self._table[token_id])

    def flush(self) -> str:
        """What is left at the end (U+FFFD if a character was cut)."""
        return self._utf8.decode(b"", final=True)


def document_breaks(text: str) -> Iterator[int]:
    """Positions in ``text`` of the lines that are exactly ``<|doc|>``."""
    position = text.find(DOC_LINE)
    while position >= 0:
        end = position + len(DOC_LINE)
        if (position == 0 or text[position - 1] == "\n") and (end == len(text) or text[end] == "\n"):
            yield position
        position = text.find(DOC_LINE, end)


def document_ids(ids: Sequence[int]) -> list[list[int]]:
    """Cuts the ids of a corpus text into documents, each [0, ids..., 0] or, at the very end, [0, ids...]."""
    documents, current = [], [DOC_ID]
    for token_id in ids:
        current.append(token_id)
        if token_id == DOC_ID:
            documents.append(current)
            current = [DOC_ID]
    if len(current) > 1:
        documents.append(current)
    return documents


def read_spec(blob: bytes) -> dict[str, Any]:
    """The object that a ``tokenizer.json`` holds, with its ``model``; nothing of it was looked at yet.

    Raises
    ------
    ValueError
        It is too large, no JSON, or lacks a model; the message says so.
    """
    if len(blob) > MAX_FILE_BYTES:
        raise ValueError("it is too large")
    try:
        spec = json.loads(blob)
    except (ValueError, RecursionError):
        raise ValueError("it is no JSON") from None
    if not isinstance(spec, dict) or not isinstance(spec.get("model"), dict):
        raise ValueError("it has no model")
    return spec
