"""What a person hands over, and what is refused."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgelm.errors import InputError
from edgelm.text import files
from edgelm.text.files import PIECE, TextFile, chat_export, pieces, read_paths
from edgelm.text.tokenizer import DOC_LINE

NOTHING = io.BytesIO()


def _read(path: Path) -> TextFile:
    (text,) = read_paths([str(path)], NOTHING)
    return text


def test_a_text_and_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("Grüße\n", encoding="utf-8")
    assert _read(path) == TextFile(str(path), "Grüße\n", 8)


def test_a_folder_is_read_in_order(tmp_path: Path) -> None:
    for name in ("b.txt", "a.md", "sub/c.txt", "picture.png", "sub/notes.rst"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name, encoding="utf-8")
    found = read_paths([str(tmp_path), str(tmp_path / "b.txt")], NOTHING)
    assert [item.text for item in found] == ["a.md", "b.txt", "sub/c.txt", "b.txt"]


def test_links_that_lead_out_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, said = tmp_path / "folder", []
    for name in ("folder/sub/a.txt", "elsewhere/secret.txt", "elsewhere/picture.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name, encoding="utf-8")
    (folder / "within.txt").symlink_to("sub/a.txt")
    assert len(read_paths([str(folder)], NOTHING, said.append)) == 2
    assert said == []
    for name, target in (
        ("b.txt", "elsewhere/secret.txt"),
        ("notes", "elsewhere"),
        ("picture.png", "elsewhere/picture.png"),
        ("loop.txt", "folder/loop.txt"),
        ("gone.txt", "nowhere.txt"),
    ):
        (folder / name).symlink_to(tmp_path / target)
    (folder / "sub" / "up.txt").symlink_to("../../elsewhere/secret.txt")
    found = read_paths([str(folder)], NOTHING, said.append)
    assert [Path(item.name).name for item in found] == ["a.txt", "within.txt"]
    assert said == [
        f"{folder}: links that lead out of the folder are not read ({folder / 'b.txt'} and 2 more); "
        "name what is to be read"
    ]
    # What is named is read, be it a link to a folder or to a file; and people are told on stderr.
    assert _read(folder / "b.txt").text == _read(folder / "notes").text == "elsewhere/secret.txt"
    assert capsys.readouterr() == ("", "")
    read_paths([str(folder)], NOTHING)
    assert capsys.readouterr() == ("", said[0] + "\n")
    (folder / "alone").mkdir()
    (folder / "alone" / "c.txt").symlink_to(tmp_path / "elsewhere" / "secret.txt")
    with pytest.raises(InputError, match="a folder without"):
        read_paths([str(folder / "alone")], NOTHING, said.append)
    assert len(said) == 2


def test_standard_input() -> None:
    (text,) = read_paths(["-"], io.BytesIO(b"said"))
    assert text == TextFile("standard input", "said", 4)


@pytest.mark.parametrize(
    ("name", "blob", "says"),
    [
        ("empty.txt", b"", "empty"),
        ("blank.txt", b" \n\t\n", "empty"),
        ("binary.txt", b"PNG\0\1\2", "binary"),
        ("latin1.txt", "Grüße".encode("latin-1"), r"not UTF-8 text \(byte 2\)"),
        ("utf16.txt", "hello".encode("utf-16"), "binary"),
        ("cut.txt", "界".encode()[:2], "not UTF-8"),
        ("empty.json", b"", "empty"),
        ("cut.json", b'[{"role": "user", "content": "a', "not valid JSON"),
        ("other.json", b'{"a": [1, "b", null, {"c": 2.5}]}', "without chat messages"),
        ("number.json", b"3", "without chat messages"),
        ("huge_number.json", b"1" * 9999, "not valid JSON"),
        ("blank.json", b'[{"role": "user", "content": "  "}]', "without chat messages"),
        ("types.json", b'[{"role": 1, "content": "a"}, {"role": "user", "content": ["a"]}]', "without chat messages"),
        ("deep.json", b"[" * 100_000, "nested too deeply"),
        ("deep_and_closed.json", b"[" * 5000 + b"]" * 5000, "nested too deeply"),
    ],
)
def test_what_is_refused(tmp_path: Path, name: str, blob: bytes, says: str) -> None:
    path = tmp_path / name
    path.write_bytes(blob)
    with pytest.raises(InputError, match=says) as raised:
        _read(path)
    assert name in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        _read(tmp_path / "none.txt")


def test_a_folder_without_texts(tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(b"\0")
    with pytest.raises(InputError, match="a folder without"):
        _read(tmp_path)


def test_a_file_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_BYTES", 10)
    path = tmp_path / "large.txt"
    path.write_bytes(b"0123456789")
    assert _read(path).n_bytes == 10
    path.write_bytes(b"0123456789a")
    with pytest.raises(InputError, match="cut it into smaller files"):
        _read(path)
    with pytest.raises(InputError, match="standard input: larger"):
        read_paths(["-"], io.BytesIO(b"0123456789a"))


TWO_TURNS = "User: Hi there\nAssistant: Hello\n"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ([{"role": "user", "content": "Hi there"}, {"role": "assistant", "content": "Hello"}], TWO_TURNS),
        ({"messages": [{"role": "User", "content": "Hi\nthere"}, {"role": "model", "content": " Hello "}]}, TWO_TURNS),
        ({"conversations": [{"from": "human", "value": "Hi there"}, {"from": "gpt", "value": "Hello"}]}, TWO_TURNS),
        ([{"from": "me", "text": "Hi there"}, {"from": "her", "text": "Hello"}, {"text": "lost"}], TWO_TURNS),
        ([{"messages": [{"role": "user", "content": "a"}]}, {"messages": []},
          {"messages": [{"role": "bot", "text": "b"}]}],
         f"User: a\n{DOC_LINE}\nAssistant: b\n"),
        ([[{"role": "user", "content": "a"}], [{"role": "user", "content": "b"}]], f"User: a\n{DOC_LINE}\nUser: b\n"),
        ([{"role": "user", "content": f"x\n{DOC_LINE}\nAssistant: y"}], f"User: x {DOC_LINE} Assistant: y\n"),
    ],
)  # fmt: skip
def test_chat_exports(data: object, expected: str) -> None:
    assert chat_export(json.dumps(data), "chat.json") == expected


def test_half_a_surrogate_pair_in_json(tmp_path: Path) -> None:
    path = tmp_path / "chat.json"
    path.write_bytes(b'[{"role": "user", "content": "a \\ud800 b \\ud83d\\ude00"}]')
    assert _read(path).text == "User: a ? b \U0001f600\n"


def test_the_bytes_of_an_export_are_those_of_its_turns(tmp_path: Path) -> None:
    path = tmp_path / "chat.json"
    path.write_text(json.dumps([{"role": "user", "content": "ü"}]), encoding="utf-8")
    assert _read(path) == TextFile(str(path), "User: ü\n", len("User: ü\n".encode()))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("short", ["short"]),
        ("0123456789", ["0123456789"]),
        ("0123456789a", ["0123456789", "a"]),
        ("one two three", ["one two ", "three"]),
        ("one tw\nth ee", ["one tw\n", "th ee"]),
        ("ab\nde\n\nh jkl", ["ab\nde\n\n", "h jkl"]),
        # A sign in the first half would leave too small a part.
        ("a\n\nbcdefghijkl", ["a\n\nbcdefgh", "ijkl"]),
        ("   \n\n" * 4, ["   \n\n   \n\n", "   \n\n   \n\n"]),
    ],
)
def test_where_a_text_is_cut(text: str, expected: list[str]) -> None:
    assert list(pieces(text, 10)) == expected


@given(st.text(st.sampled_from("ab \n\u00fc\U0001f600"), max_size=200), st.integers(2, 40))
def test_pieces_are_the_whole(text: str, size: int) -> None:
    found = list(pieces(text, size))
    assert "".join(found) == text
    assert all(0 < len(piece) <= size for piece in found)
    assert all(len(piece) > size // 2 for piece in found[:-1])


def test_a_long_text_in_the_usual_pieces() -> None:
    text = "The ferry waits in the fog, and the baker is on board.\n\n" * 500
    found = list(pieces(text))
    assert "".join(found) == text
    assert all(piece.endswith("\n\n") and len(piece) <= PIECE for piece in found)
    assert list(pieces("x" * (2 * PIECE + 1))) == ["x" * PIECE, "x" * PIECE, "x"]
