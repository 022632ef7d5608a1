"""A byte-level BPE: every UTF-8 text has exactly one encoding and decodes to itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from edgelm.errors import InputError
from edgelm.text.tokenizer import DOC_ID, DOC_LINE, MAX_VOCAB_SIZE, Tokenizer

SPLIT = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\n+|[^\S\n]+(?!\S)|[^\S\n]+"
"""Words with the space before them, single digits, runs of signs, line ends, spaces; no token crosses one of them."""
SPEC: dict[str, Any] = {
    "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
    "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": SPLIT}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
    ]},
    "post_processor": None,
    "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    "model": {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
    },
}  # fmt: skip
"""All of a ``tokenizer.json`` but its tokens and merges: nothing else is allowed."""
_CHUNK_CHARS = 1 << 16


class BytePairs(Tokenizer):
    """Byte-level BPE with one special id.

    Parameters
    ----------
    spec : dict
        What a ``tokenizer.json`` as written by ``tools/pretrain/tokenizer.py`` holds.

    Raises
    ------
    ValueError
        It holds anything else; the message says what.
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        tokens, merges = read_pairs(spec)
        # Imported here: `edgelm --help` must start without it.
        from tokenizers import Tokenizer as Backend

        vocab = {token: token_id for token_id, token in enumerate(tokens)}
        model = SPEC["model"] | {"vocab": vocab, "merges": merges}
        self._backend = Backend.from_str(json.dumps(SPEC | {"model": model}))
        super().__init__([bytes(_BYTES[c] for c in token) for token in tokens[1:]])

    def encode(self, text: str) -> list[int]:
        ids: list[int] = []
        # Cut at line ends: the splitter never joins across one, and a cut keeps memory flat on large files.
        for chunk in _chunks(text):
            try:
                found = self._backend.encode(chunk, add_special_tokens=False).ids
            except TypeError:
                raise InputError("a text that is not UTF-8; convert it first") from None
            # Kernels index by ids without looking: whatever the backend does, others never leave here.
            if found and not (min(found) > DOC_ID and max(found) < self.vocab_size):
                raise RuntimeError("the tokenizer gave an id that it does not have; please report this")
            ids.extend(found)
        return ids


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


def _byte_of_character() -> dict[str, int]:
    # Byte-level BPE spells each byte as one printable character (GPT-2's table); this inverts it.
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in set(printable)]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}


_BYTES = _byte_of_character()


def read_pairs(spec: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The tokens, in the order of their ids, and the merges of the object that a ``tokenizer.json`` holds.

    Allowed is what ``SPEC`` says, and within it: ids are 0 to V - 1, each of one token; id 0 is the end-of-document
    line, which no merge makes; every byte is a token; merges join tokens to tokens.

    Raises
    ------
    ValueError
        It holds anything else; the message says what.
    """
    model = dict(spec["model"])
    vocab, merges = model.pop("vocab", None), model.pop("merges", None)
    for expected, found in ((SPEC | {"model": None}, spec | {"model": None}), (SPEC["model"], model)):
        if foreign := [key for key in found if key not in expected or not _same(found[key], expected[key])]:
            raise ValueError(f"{str(foreign[0])[:40]!r} is not as edgelm has it")
        if lacking := [key for key in expected if key not in found]:
            raise ValueError(f"it lacks {lacking[0]!r}")
    return _tokens(vocab), _merges(merges, vocab)


def _same(found: object, expected: object) -> bool:
    """Equal, and true is not 1."""
    try:
        return json.dumps(found, sort_keys=True) == json.dumps(expected, sort_keys=True)
    except RecursionError:  # JSON may be read that is too deep to be written
        return False


def _tokens(vocab: object) -> list[str]:
    if not isinstance(vocab, dict) or not len(_BYTES) < len(vocab) <= MAX_VOCAB_SIZE:
        raise ValueError(f"it must have more than {len(_BYTES)} tokens and at most {MAX_VOCAB_SIZE}")
    tokens: list[str] = [""] * len(vocab)
    for token, token_id in vocab.items():
        if type(token_id) is not int or not 0 <= token_id < len(vocab) or tokens[token_id]:
            raise ValueError("its ids are not 0, 1, 2, ..., each of one token")
        if not token or not _BYTES.keys() >= set(token):
            raise ValueError("it has a token that is no bytes")
        tokens[token_id] = token
    if tokens[DOC_ID] != DOC_LINE:
        raise ValueError(f"its id {DOC_ID} is not {DOC_LINE}")
    if not vocab.keys() >= _BYTES.keys():
        raise ValueError("it lacks a token for some byte")
    return tokens


def _merges(merges: object, vocab: dict[str, int]) -> list[list[str]]:
    if not isinstance(merges, list) or len(merges) >= len(vocab):
        raise ValueError("it has no merges, or more than tokens")
    for pair in merges:
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(part, str) for part in pair)):
            raise ValueError("it has a merge that is not of two tokens")
        made = pair[0] + pair[1]
        if DOC_LINE in (*pair, made) or not vocab.keys() >= {*pair, made}:
            raise ValueError("it has a merge of or to something that is no token")
    return merges
