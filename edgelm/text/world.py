r"""A tokenizer that always takes the longest token which comes next: that of RWKV's "world" models.

Its vocabulary is a list of byte strings, the ids in their order; nothing cuts the text before. The ``tokenizer.json``
of a model holds them as characters U+0000 to U+00FF, one for each byte::

    {"version": "1.0", "model": {"type": "LongestMatch", "tokens": ["", "\u0000", "\u0001", ...]}}

Id 0 ends a document and has no spelling. Neither has an id that the source leaves out: its token is empty too, so that
no text gives it, and if a model chooses it, nothing is written.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgelm.errors import InputError, ModelFileError
from edgelm.text.tokenizer import MAX_FILE_BYTES, MAX_VOCAB_SIZE, Tokenizer

KIND, VERSION = "LongestMatch", "1.0"
MAX_TOKEN_BYTES = 128
_PREFIX = 2
"""Bytes by which it is looked up how long the tokens are that begin with them."""
_TEXT = r"""'(?:[^'\\]|ESCAPE)+'|"(?:[^"\\]|ESCAPE)+\""""
_IN_BYTES = r"""\\(?:[\\'"abfnrtv]|x[0-9a-f]{2})"""
_IN_TEXT = rf"""{_IN_BYTES}|\\u[0-9a-f]{{4}}|\\U[0-9a-f]{{8}}"""
_LITERAL = f"b(?:{_TEXT.replace('ESCAPE', _IN_BYTES)})|(?:{_TEXT.replace('ESCAPE', _IN_TEXT)})"
_LINE = re.compile(rf"([1-9][0-9]{{0,4}}) ({_LITERAL}) ([1-9][0-9]{{0,2}})")
"""A line of the vocabulary of the package ``rwkv``: an id, a literal of text or bytes, and how many bytes it has."""


class LongestMatch(Tokenizer):
    """Greedy longest match over byte strings.

    Where byte 0 is no token, it is left out of a text: in a vocabulary of bytes id 0 takes its place.

    Parameters
    ----------
    spec : dict
        What the ``tokenizer.json`` holds.

    Raises
    ------
    ValueError
        It holds anything else; the message says what.
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        tokens = _tokens(spec)
        super().__init__(tokens[1:])
        self._ids = {token: token_id for token_id, token in enumerate(tokens) if token}
        lengths: dict[bytes, set[int]] = {}
        for token in self._ids:
            lengths.setdefault(token[:_PREFIX], {1}).add(len(token))
        self._lengths = {prefix: tuple(sorted(found, reverse=True)) for prefix, found in lengths.items()}
        self._takes_nul = b"\0" in self._ids

    def encode(self, text: str) -> list[int]:
        try:
            data = text.encode()
        except UnicodeEncodeError:
            raise InputError("a text that is not UTF-8; convert it first") from None
        if not self._takes_nul:
            data = data.replace(b"\0", b"")
        found: list[int] = []
        find, lengths_of, append = self._ids.get, self._lengths.get, found.append
        at, end, one = 0, len(data), (1,)
        while at < end:
            # The last of the lengths is 1, and every byte is a token.
            for length in lengths_of(data[at : at + _PREFIX], one):
                token_id = find(data[at : at + length])
                if token_id is not None:
                    append(token_id)
                    at += length
                    break
        return found


def byte_tokens() -> list[bytes]:
    """The vocabulary of bytes, 256 ids: each byte is its own id, and id 0 ends a document."""
    return [b"", *(bytes([byte]) for byte in range(1, 256))]


def write_spec(tokens: Sequence[bytes]) -> bytes:
    """The ``tokenizer.json`` of a vocabulary.

    Parameters
    ----------
    tokens : sequence of bytes
        In the order of their ids, the first one empty.

    Raises
    ------
    ValueError
        It is no vocabulary of this tokenizer; the message says why.
    """
    spec = {"version": VERSION, "model": {"type": KIND, "tokens": [token.decode("latin-1") for token in tokens]}}
    _tokens(spec)
    return json.dumps(spec, ensure_ascii=False, separators=(",", ":")).encode()


def read_vocabulary(path: Path) -> list[bytes]:
    """The tokens of a vocabulary file of the package ``rwkv``, in the order of their ids, for ``write_spec``.

    Parameters
    ----------
    path : Path
        A text with a line ``id literal length`` for each token; ids rise. Those that are left out become empty tokens,
        as id 0 is.

    Raises
    ------
    ModelFileError
        The file cannot be read, or a line is anything else.
    """
    try:
        with path.open("rb") as file:
            blob = file.read(MAX_FILE_BYTES + 1)
    except OSError as exc:
        raise ModelFileError(f"{path}: cannot be read ({exc.strerror})") from None
    try:
        if len(blob) > MAX_FILE_BYTES:
            raise ValueError("it is too large")
        tokens = [b""]
        for number, line in enumerate(blob.decode().removesuffix("\n").split("\n"), 1):
            token_id, token = _read_line(line.removesuffix("\r"), number)
            if not len(tokens) <= token_id < MAX_VOCAB_SIZE:
                raise ValueError(f"line {number}: id {token_id} does not rise, or is not below {MAX_VOCAB_SIZE}")
            tokens += [b""] * (token_id - len(tokens))
            tokens.append(token)
        write_spec(tokens)
    except ValueError as exc:
        raise ModelFileError(f"{path}: not a vocabulary of RWKV ({exc})") from None
    return tokens


def _read_line(line: str, number: int) -> tuple[int, bytes]:
    found = _LINE.fullmatch(line)
    if found is None:
        raise ValueError(f"line {number} is not an id, a quoted token and its length")
    try:
        literal = ast.literal_eval(found[2])
        token = literal.encode() if isinstance(literal, str) else literal
    except (ValueError, SyntaxError):
        raise ValueError(f"line {number}: a token that cannot be read") from None
    if len(token) != int(found[3]):
        raise ValueError(f"line {number}: a token of {len(token)} bytes, not {found[3]} as it says")
    return int(found[1]), token


def _tokens(spec: dict[str, Any]) -> list[bytes]:
    """The tokens of a ``tokenizer.json``, checked."""
    model = spec["model"]
    if spec.keys() != {"version", "model"} or model.keys() != {"type", "tokens"}:
        raise ValueError("it lacks a field, or has one too many")
    if spec["version"] != VERSION or model["type"] != KIND:
        raise ValueError(f"it is not {KIND} {VERSION}")
    found = model["tokens"]
    if not isinstance(found, list) or not 256 <= len(found) <= MAX_VOCAB_SIZE:
        raise ValueError(f"it must have 256 to {MAX_VOCAB_SIZE} tokens")
    if not all(isinstance(token, str) and len(token) <= MAX_TOKEN_BYTES for token in found):
        raise ValueError(f"its tokens are not texts of at most {MAX_TOKEN_BYTES} bytes")
    if found[0]:
        raise ValueError("its id 0 must be empty")
    try:
        tokens = [token.encode("latin-1") for token in found]
    except UnicodeEncodeError:
        raise ValueError("it has a token that is no bytes") from None
    distinct = set(tokens)
    if len(distinct) != len(tokens) - tokens.count(b"") + 1:
        raise ValueError("it has a token twice")
    if not distinct.issuperset(byte_tokens()):
        raise ValueError("it lacks a token for some byte")
    return tokens
