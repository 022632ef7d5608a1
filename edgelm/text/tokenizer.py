"""Text to token ids and back.

A byte-level BPE: every UTF-8 text has exactly one encoding and decodes to itself. Id 0 is the
end-of-document token; it has no spelling, so text can never produce it: ``<|doc|>`` typed by a
person is seven ordinary characters.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from pathlib import Path

from edgelm.errors import InputError, ModelFileError

DOC_ID = 0
DOC_LINE = "<|doc|>"
_CHUNK_CHARS = 1 << 16


class Tokenizer:
    """Byte-level BPE with one special id.

    Parameters
    ----------
    path : Path
        A ``tokenizer.json`` as written by ``tools/pretrain/tokenizer.py``.

    Raises
    ------
    ModelFileError
        The file is missing, is no tokenizer, or gives text a way to spell the special id.
    """

    def __init__(self, path: Path) -> None:
        # Imported here: `edgelm --help` must start without it.
        from tokenizers import Tokenizer as Backend

        try:
            self._backend = Backend.from_str(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ModelFileError(f"{path}: no tokenizer there; is this a model folder?") from None
        except Exception as exc:  # the backend raises bare Exception
            raise ModelFileError(f"{path}: not a tokenizer ({exc}); get the model again") from None
        if self._backend.get_added_tokens_decoder():
            raise ModelFileError(f"{path}: has special tokens that text could spell; edgelm models have none")
        self.vocab_size: int = self._backend.get_vocab_size()
        try:
            self._bytes = _token_bytes(self._backend, self.vocab_size)
        except (KeyError, TypeError):
            raise ModelFileError(f"{path}: not a byte-level tokenizer; get the model again") from None

    def encode(self, text: str) -> list[int]:
        """Token ids of ``text``; no special id is ever among them.

        Raises
        ------
        InputError
            ``text`` has a lone surrogate, as an argument that was not UTF-8 has.
        """
        ids: list[int] = []
        # Cut at line ends: the splitter never joins across one, and a cut keeps memory flat on large files.
        for chunk in _chunks(text):
            try:
                ids.extend(self._backend.encode(chunk, add_special_tokens=False).ids)
            except TypeError:
                raise InputError("a text that is not UTF-8; convert it first") from None
        return ids

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


def _chunks(text: str) -> Iterator[str]:
    start = 0
    while len(text) - start > _CHUNK_CHARS:
        cut = text.rfind("\n", start, start + _CHUNK_CHARS)
        # Only between a line end and a character that is no white space: there the splitter always cuts.
        while cut > start and text[cut + 1].isspace():
            cut = text.rfind("\n", start, cut)
        if cut <= start:
            cut = start + _CHUNK_CHARS - 1
        yield text[start : cut + 1]
        start = cut + 1
    yield text[start:]


def _token_bytes(backend: object, vocab_size: int) -> list[bytes]:
    # Byte-level BPE spells each byte as one printable character (GPT-2's table); this inverts it.
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in set(printable)]
    to_byte = {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}
    table = [(DOC_LINE + "\n").encode()]
    for token_id in range(1, vocab_size):
        table.append(bytes(to_byte[c] for c in backend.id_to_token(token_id)))  # type: ignore[attr-defined]
    return table
