"""The longest match of a list of byte strings, and the files that such a list comes from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgelm.errors import InputError, ModelFileError
from edgelm.text.opening import open_tokenizer
from edgelm.text.tokenizer import DOC_ID, DOC_LINE, MAX_VOCAB_SIZE, Tokenizer, read_spec
from edgelm.text.world import MAX_TOKEN_BYTES, LongestMatch, byte_tokens, read_vocabulary, write_spec

WORDS = ["a", "ab", "abcd", "b", "bc", "bcdea", "é", "渡", "渡船", " the", "the", "th", "\n\n", "  ", " " * 9]
ALL_BYTES = [b"", *(bytes([byte]) for byte in range(256))]
TOKENS = [*ALL_BYTES, *(word.encode() for word in WORDS if len(word.encode()) > 1), b"\xe6\xb8", b"", b"\xa1\xe8"]
TEXTS = st.text(st.sampled_from("abcde th\n\0é渡船🚢"), max_size=60) | st.text(max_size=60)


def _tokenizer(tokens: list[bytes]) -> LongestMatch:
    return LongestMatch(read_spec(write_spec(tokens)))


WORLD, BYTES = _tokenizer(TOKENS), _tokenizer(byte_tokens())


class Trie:
    """The slow twin: a node for each byte, the deepest id on the way wins."""

    def __init__(self, tokens: list[bytes]) -> None:
        self.root: dict[Any, Any] = {}
        for token_id, token in enumerate(tokens):
            node = self.root
            for byte in token:
                node = node.setdefault(byte, {})
            if token:
                node["id"] = token_id

    def encode(self, data: bytes) -> list[int]:
        """Ids of the longest matches, one after the other."""
        ids, at = [], 0
        while at < len(data):
            node, found = self.root, None
            for end in range(at, len(data)):
                if data[end] not in node:
                    break
                node = node[data[end]]
                if "id" in node:
                    found = node["id"], end + 1
            assert found is not None
            ids.append(found[0])
            at = found[1]
        return ids


TRIE = Trie(TOKENS)


@given(text=TEXTS)
@example(text="abcdea bcde")
@example(text="渡船渡é")
@example(text=" " * 25)
def test_it_takes_the_longest_match(text: str) -> None:
    ids = WORLD.encode(text)
    assert ids == TRIE.encode(text.encode())
    assert WORLD.decode(ids) == text
    assert WORLD.decode_bytes(ids) == text.encode()
    assert DOC_ID not in ids


def test_ids_are_those_written_down() -> None:
    assert [TOKENS.index(part) for part in (b"abcd", b"e", b" the", b"\n\n", b"!")] == WORLD.encode("abcde the\n\n!")


@given(text=TEXTS)
def test_bytes_are_their_own_ids(text: str) -> None:
    assert BYTES.encode(text) == [byte for byte in text.encode() if byte]
    assert BYTES.decode(BYTES.encode(text)) == text.replace("\0", "")
    assert BYTES.vocab_size == 256


@given(lines=st.lists(st.sampled_from([DOC_LINE, "", "ab", " " + DOC_LINE]) | TEXTS))
def test_document_lines_are_one_id(lines: list[str]) -> None:
    text = "\n".join(lines)
    ids = WORLD.encode_document_lines(text)
    assert ids.count(WORLD.document_id) == text.split("\n").count(DOC_LINE)
    assert WORLD.decode(ids) == text + "\n" * (text.split("\n")[-1] == DOC_LINE)


@given(ids=st.lists(st.integers(0, len(TOKENS) - 1)))
def test_a_stream_of_any_ids_equals_their_decoding(ids: list[int]) -> None:
    decoder = WORLD.stream()
    assert "".join([*map(decoder.feed, ids), decoder.flush()]) == WORLD.decode(ids)


def test_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(InputError, match="UTF-8"):
        WORLD.encode("a\udcffb")


def test_an_unused_id_is_never_given_and_writes_nothing() -> None:
    unused = len(ALL_BYTES) + TOKENS[len(ALL_BYTES) :].index(b"")
    assert WORLD.decode([unused]) == ""
    assert unused not in WORLD.encode("".join(WORDS))


def test_one_function_opens_either_kind(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(write_spec(TOKENS))
    opened = open_tokenizer(path)
    assert isinstance(opened, LongestMatch) and not isinstance(tokenizer, LongestMatch)
    assert opened.vocab_size == len(TOKENS)
    assert opened.encode("abcde") == WORLD.encode("abcde")
    with pytest.raises(ModelFileError, match="SHA-256"):
        open_tokenizer(path, "0" * 64)


def _changed(**model: Any) -> dict[str, Any]:
    spec = json.loads(write_spec(TOKENS))
    return spec | {"model": spec["model"] | model}


SPELT = [token.decode("latin-1") for token in TOKENS]


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (_changed() | {"version": "2.0"}, "not LongestMatch 1.0"),
        (_changed() | {"more": 1}, "a field"),
        (_changed(more=1), "a field"),
        ({"model": _changed()["model"]}, "a field"),
        (_changed(tokens={"a": 1}), "must have 256"),
        (_changed(tokens=SPELT[:255]), "must have 256"),
        (_changed(tokens=SPELT + [f"{i:9}" for i in range(MAX_VOCAB_SIZE)]), "must have 256"),
        (_changed(tokens=[*SPELT, 3]), "not texts"),
        (_changed(tokens=[*SPELT, "x" * (MAX_TOKEN_BYTES + 1)]), "at most 128"),
        (_changed(tokens=["<|doc|>", *SPELT[1:]]), "id 0"),
        (_changed(tokens=[*SPELT, "渡"]), "no bytes"),
        (_changed(tokens=[*SPELT, SPELT[-1]]), "twice"),
        (_changed(tokens=[token for token in SPELT if token != "q"]), "some byte"),
    ],
)
def test_what_is_refused(tmp_path: Path, spec: dict[str, Any], says: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(spec), encoding="utf-8")
    with pytest.raises(ModelFileError, match=says) as raised:
        open_tokenizer(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("tokens", [ALL_BYTES[1:], [*ALL_BYTES, b"x" * 129], [b""]])
def test_what_is_not_written(tokens: list[bytes]) -> None:
    with pytest.raises(ValueError, match=r"it|its"):
        write_spec(tokens)


def _lines(tokens: list[bytes]) -> list[str]:
    """A vocabulary file: text where the bytes are text, as whoever made the first one did."""
    lines = []
    for token_id, token in enumerate(tokens):
        try:
            literal = repr(token.decode())
        except UnicodeDecodeError:
            literal = repr(token)
        lines += [f"{token_id} {literal} {len(token)}"] if token else []
    return lines


def test_a_vocabulary_file(tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.txt"
    tokens = [*TOKENS, b"it's", b'say "', b"both ' and \"", b"back\\slash", "\u2028\x85\U000e0001".encode()]
    path.write_text("\n".join(_lines(tokens)) + "\n", encoding="utf-8")
    assert read_vocabulary(path) == tokens


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("", "line 257 is not"),
        ("300 open('x') 3", "line 257 is not"),
        ("300 'a' + 'b' 2", "line 257 is not"),
        ("300 f'{1}bc' 3", "line 257 is not"),
        ("300 'a''b' 2", "line 257 is not"),
        (r"300 '\N{DASH}' 3", "line 257 is not"),
        (r"300 b'\u0041' 1", "line 257 is not"),
        ("0300 'abc' 3", "line 257 is not"),
        ("300 'abc' 4", "line 257: a token of 3 bytes"),
        (r"300 '\ud800' 3", "line 257: a token that cannot be read"),
        ("300 '\0bc' 3", "line 257"),
        ("256 'abc' 3", "does not rise"),
        ("65536 'abc' 3", "below 65536"),
        ("300 'a' 1", "twice"),
        (f"300 '{'x' * 129}' 129", "at most 128"),
    ],
)
def test_a_vocabulary_that_is_refused(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "vocabulary.txt"
    path.write_text("\n".join([*_lines(ALL_BYTES), line]) + "\n", encoding="utf-8")
    with pytest.raises(ModelFileError, match=says) as raised:
        read_vocabulary(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("blob", [b"", b"\xff\xfe", b"1 'a' 1\n"])
def test_what_is_no_vocabulary(tmp_path: Path, blob: bytes) -> None:
    path = tmp_path / "vocabulary.txt"
    with pytest.raises(ModelFileError, match="cannot be read"):
        read_vocabulary(path)
    path.write_bytes(blob)
    with pytest.raises(ModelFileError, match="not a vocabulary"):
        read_vocabulary(path)


GOLDEN = "It's 1 ferry: the boat's 第一艘渡船 waits.\r\n\tNaïve  🚢\u2028\0!"


def test_ids_of_the_package_itself() -> None:
    package = pytest.importorskip("rwkv", reason="the package rwkv brings the vocabulary and its own tokenizer")
    from rwkv.rwkv_tokenizer import TRIE_TOKENIZER

    path = Path(package.__file__).with_name("rwkv_vocab_v20230424.txt")
    tokens = read_vocabulary(path)
    assert len(tokens) == 65530 and tokens.count(b"") == 1
    tokenizer = _tokenizer(tokens)
    text = GOLDEN + Path(__file__).with_name("secrets_seen.txt").read_text(encoding="utf-8")
    assert tokenizer.encode(text) == TRIE_TOKENIZER(str(path)).encode(text) == Trie(tokens).encode(text.encode())
