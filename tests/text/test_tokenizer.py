"""Text to ids and back, whatever the text."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgelm.errors import InputError, ModelFileError
from edgelm.model import hub
from edgelm.text import byte_pairs as module
from edgelm.text.byte_pairs import BytePairs
from edgelm.text.opening import open_tokenizer
from edgelm.text.tokenizer import DOC_ID, DOC_LINE, MAX_FILE_BYTES, Tokenizer

SAMPLES = (
    "", "\0", "a\0b", "\u0301", "e\u0301\u0301 \u0301", "\U0001f469\u200d\U0001f4bb\U0001f1e9\U0001f1ea",
    "你好，世界。今天天气很好。", "  two  spaces \t\r\n\n x ", "<|doc|>", "a\n<|doc|>\nb\n", "\ufeffbom",
    "\uffff\U0010ffff", "it's we'll 1234567890", "\u202eright to left\u2028line\u2029paragraph\x85next", "a" * 300,
)  # fmt: skip
LINES = st.lists(
    st.sampled_from([DOC_LINE, "", " " + DOC_LINE, DOC_LINE + " ", "x" + DOC_LINE, "\t", "ab"]) | st.text()
)


@given(text=st.text())
@settings(deadline=None)
def test_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert all(DOC_ID < token_id < tokenizer.vocab_size for token_id in ids)


@pytest.mark.parametrize("text", SAMPLES)
@pytest.mark.parametrize("name", ["tiny", "bundled"])
def test_awkward_text_comes_back(tokenizer: Tokenizer, name: str, text: str) -> None:
    used = tokenizer if name == "tiny" else open_tokenizer(hub.find(None) / "tokenizer.json")
    ids = used.encode(text)
    assert used.decode(ids) == text
    assert used.decode_bytes(ids) == text.encode()
    assert DOC_ID not in ids


@pytest.mark.parametrize("text", ["\ud800", "a\udcffb"])
def test_half_a_surrogate_pair_is_refused(tokenizer: Tokenizer, text: str) -> None:
    with pytest.raises(InputError, match="UTF-8"):
        tokenizer.encode(text)


@given(lines=LINES)
@example(lines=[DOC_LINE])
@example(lines=[DOC_LINE, ""])
@example(lines=["a", DOC_LINE, DOC_LINE, "b"])
@settings(deadline=None)
def test_document_lines(tokenizer: Tokenizer, lines: list[str]) -> None:
    text = "\n".join(lines)
    ids = tokenizer.encode_document_lines(text)
    lines = text.split("\n")
    assert ids.count(DOC_ID) == lines.count(DOC_LINE)
    # The id stands for the line and its end, which the very last line may lack.
    assert tokenizer.decode(ids) == text + "\n" * (lines[-1] == DOC_LINE)
    if DOC_LINE not in lines:
        assert ids == tokenizer.encode(text)


@given(lines=LINES | st.lists(st.text("ab \n\t", max_size=9), min_size=5), limit=st.integers(8, 40))
@example(lines=["a" * 100], limit=8)
@example(lines=["\n" * 50], limit=8)
@settings(deadline=None)
def test_chunks_are_small_and_lose_nothing(tokenizer: Tokenizer, lines: list[str], limit: int) -> None:
    text = "\n".join(lines)
    with mock.patch.object(module, "_CHUNK_CHARS", limit):
        chunks = list(module._chunks(text))
        ids = tokenizer.encode(text)
    assert "".join(chunks) == text
    assert max(map(len, chunks)) <= limit
    assert tokenizer.decode(ids) == text
    at_line_ends = all(a[-1] == "\n" and not b[0].isspace() for a, b in pairwise(chunks))
    if at_line_ends:
        assert ids == tokenizer.encode(text)


def test_a_large_text_is_cut_at_line_ends_alone(tokenizer: BytePairs) -> None:
    text = "".join(f"Line {i} of the log, with 'words' and {i % 7} marks ...\n" for i in range(4000))
    chunks = list(module._chunks(text))
    assert len(chunks) > 2
    whole = tokenizer._backend.encode(text, add_special_tokens=False).ids
    assert tokenizer.encode(text) == whole


def test_a_long_line_comes_back(tokenizer: Tokenizer) -> None:
    text = "word 词 " * 30_000
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(text=st.text().filter(lambda text: "\ufffd" not in text))
@example(text="\U0001f469\u200d\U0001f4bb")
@settings(deadline=None)
def test_a_stream_never_yields_half_a_character(tokenizer: Tokenizer, text: str) -> None:
    decoder = tokenizer.stream()
    pieces = [decoder.feed(token_id) for token_id in tokenizer.encode(text)]
    assert not any("\ufffd" in piece for piece in pieces)
    assert "".join(pieces) == text
    assert decoder.flush() == ""


@given(data=st.data())
@settings(deadline=None)
def test_a_stream_of_any_ids_equals_their_decoding(tokenizer: Tokenizer, data: st.DataObject) -> None:
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1)))
    decoder = tokenizer.stream()
    assert "".join([*map(decoder.feed, ids), decoder.flush()]) == tokenizer.decode(ids)


def _spec(tiny_model: Path) -> dict:
    return json.loads((tiny_model / "tokenizer.json").read_text(encoding="utf-8"))


def test_a_missing_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"cannot be read .*is this a model folder"):
        open_tokenizer(tmp_path / "tokenizer.json")


@pytest.mark.parametrize("blob", [b"", b"{}", b"[1, 2", b"\xff\xfe", b'{"model": 3}'])
def test_what_is_no_tokenizer_is_refused(tmp_path: Path, blob: bytes) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(blob)
    with pytest.raises(ModelFileError, match="not a tokenizer"):
        open_tokenizer(path)


def test_a_spelling_of_the_special_id_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    spec = _spec(tiny_model) | {"added_tokens": [{"id": 0, "content": DOC_LINE, "special": True, **flags}]}
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(spec), encoding="utf-8")
    with pytest.raises(ModelFileError, match="'added_tokens' is not as edgelm has it"):
        open_tokenizer(path)


def test_a_tokenizer_of_words_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    spec = _spec(tiny_model)
    spec["model"] = {"type": "WordLevel", "vocab": {"doc": 0, "a word": 1, "[UNK]": 2}, "unk_token": "[UNK]"}
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(spec), encoding="utf-8")
    with pytest.raises(ModelFileError, match="'type' is not as edgelm has it"):
        open_tokenizer(path)


def _change(spec: dict, path: str, value: object) -> None:
    *parents, last = path.split(".")
    for parent in parents:
        spec = spec[parent]
    spec[last] = value


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("normalizer", {"type": "Lowercase"}, "'normalizer' is not"),
        ("padding", {"strategy": {"Fixed": 2_000_000_000}}, "'padding' is not"),
        ("truncation", {"max_length": 1, "strategy": "LongestFirst", "stride": 0}, "'truncation' is not"),
        ("post_processor", {"type": "TemplateProcessing"}, "'post_processor' is not"),
        ("pre_tokenizer", {"type": "Split", "pattern": {"Regex": "(a|a)*b"}}, "'pre_tokenizer' is not"),
        ("pre_tokenizer.pretokenizers", [], "'pre_tokenizer' is not"),
        ("model.unk_token", "!", "'unk_token' is not"),
        ("model.dropout", 0.5, "'dropout' is not"),
        ("model.fuse_unk", 0, "'fuse_unk' is not"),
        ("model.byte_fallback", True, "'byte_fallback' is not"),
        ("model.more", None, "'more' is not"),
        ("model.vocab.~", 4_000_000_000, "its ids are not"),
        ("model.vocab.~", 70_000, "its ids are not"),
        ("model.vocab.~", -1, "its ids are not"),
        ("model.vocab.~", 0, "its ids are not"),
        ("model.vocab.~", 1, "its ids are not"),
        ("model.vocab.~", True, "its ids are not"),
        ("model.vocab.~", 5.0, "its ids are not"),
        ("model.vocab.~", None, "its ids are not"),
        ("model.vocab", [], "it must have more than"),
        ("model.vocab", {}, "it must have more than"),
        ("model.merges", None, "it has no merges"),
        ("model.merges", ["t h"], "not of two tokens"),
        ("model.merges", [["t", "h", "e"]], "not of two tokens"),
        ("model.merges", [["t", 3]], "not of two tokens"),
        ("model.merges", [["~", "~"]], "no token"),
        ("model.merges", [["<|doc|", ">"]], "no token"),
        ("model.merges", [["t", "h"]] * 70_000, "it has no merges, or more"),
    ],
)
def test_what_edgelm_does_not_write_is_refused(
    tiny_model: Path, tmp_path: Path, path: str, value: object, says: str
) -> None:
    spec = _spec(tiny_model)
    _change(spec, path, value)
    changed = tmp_path / "tokenizer.json"
    changed.write_text(json.dumps(spec), encoding="utf-8")
    with pytest.raises(ModelFileError, match=says):
        open_tokenizer(changed)


@pytest.mark.parametrize("other", ["word more", "é", ""])
def test_tokens_are_bytes(tiny_model: Path, tmp_path: Path, other: str) -> None:
    """A last token of one more, with its id, that is no spelling of bytes."""
    spec = _spec(tiny_model)
    spec["model"]["vocab"][other] = len(spec["model"]["vocab"])
    changed = tmp_path / "tokenizer.json"
    changed.write_text(json.dumps(spec), encoding="utf-8")
    with pytest.raises(ModelFileError, match=r"no bytes|each of one token"):
        open_tokenizer(changed)


def test_a_byte_that_has_no_token(tiny_model: Path, tmp_path: Path) -> None:
    spec = _spec(tiny_model)
    vocab = spec["model"]["vocab"]
    vocab["~~"] = vocab.pop("~")
    changed = tmp_path / "tokenizer.json"
    changed.write_text(json.dumps(spec), encoding="utf-8")
    with pytest.raises(ModelFileError, match="lacks a token for some byte"):
        open_tokenizer(changed)


def test_nested_without_end_and_too_large(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text('{"normalizer":' * 100_000, encoding="utf-8")
    with pytest.raises(ModelFileError, match="no JSON"):
        open_tokenizer(path)
    path.write_bytes(b" " * (MAX_FILE_BYTES + 1))
    with pytest.raises(ModelFileError, match="too large"):
        open_tokenizer(path)


def test_what_is_too_deep_to_be_compared(tiny_model: Path) -> None:
    """JSON may be read that is a few levels too deep to be written again."""
    deep: list[object] = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(ValueError, match="'normalizer' is not as edgelm has it"):
        BytePairs(_spec(tiny_model) | {"normalizer": deep})


def test_ids_are_looked_at_before_kernels_see_them(tokenizer: BytePairs) -> None:
    strange = mock.Mock()
    for found in ([0], [tokenizer.vocab_size], [5, 4_000_000_000]):
        strange.encode.return_value.ids = found
        with mock.patch.object(tokenizer, "_backend", strange), pytest.raises(RuntimeError, match="does not have"):
            tokenizer.encode("~")
