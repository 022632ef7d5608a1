"""Reads what a person hands over: files, folders, standard input."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from edgelm.errors import InputError

SUFFIXES = (".txt", ".md", ".json")
MAX_BYTES = 64 << 20
"""Largest file that is read: learning from more would take a device many hours."""

PIECE = 4096
"""Characters that are learned, logged and forgotten together."""


@dataclass(frozen=True)
class TextFile:
    """A text and where it came from; ``n_bytes`` counts its UTF-8 bytes."""

    name: str
    text: str
    n_bytes: int


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)


def read_paths(paths: Iterable[str], stdin: BinaryIO, say: Callable[[str], None] = _to_stderr) -> list[TextFile]:
    """Texts of files, of all ``.txt .md .json`` files in folders, and of ``-`` (standard input), in order.

    A symbolic link in a folder that leads out of it is not followed: ``say`` is told so.

    Raises
    ------
    InputError
        Something is missing, empty, too large, not UTF-8 text, or a folder without texts.
    """
    return [read_file(name, stdin) for path in paths for name in _expand(path, say)]


def _expand(path: str, say: Callable[[str], None]) -> Iterator[str]:
    folder = Path(path)
    if path == "-" or not folder.is_dir():
        yield path
        return
    found: list[str] = []
    outside: list[str] = []
    for item in sorted(folder.rglob("*"), key=str):
        is_text = item.suffix in SUFFIXES and item.is_file()
        if item.is_symlink() and (is_text or item.is_dir()) and not item.resolve().is_relative_to(folder.resolve()):
            outside.append(str(item))
        elif is_text:
            found.append(str(item))
    if outside:
        more = f" and {len(outside) - 1} more" if len(outside) > 1 else ""
        say(f"{path}: links that lead out of the folder are not read ({outside[0]}{more}); name what is to be read")
    if not found:
        raise InputError(f"{path}: a folder without {', '.join(SUFFIXES)} files")
    yield from found


def read_file(path: str, stdin: BinaryIO) -> TextFile:
    """One file, or standard input for ``-``."""
    name = "standard input" if path == "-" else path
    try:
        if path == "-":
            blob = stdin.read(MAX_BYTES + 1)
        else:
            with Path(path).open("rb") as file:
                blob = file.read(MAX_BYTES + 1)
    except OSError as exc:
        raise InputError(f"{name}: cannot be read ({(exc.strerror or str(exc)).lower()})") from None
    if len(blob) > MAX_BYTES:
        raise InputError(f"{name}: larger than {MAX_BYTES >> 20} MiB; cut it into smaller files")
    if b"\0" in blob:
        raise InputError(f"{name}: binary, not text")
    try:
        text = blob.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise InputError(f"{name}: not UTF-8 text (byte {exc.start}); convert it first") from None
    if not text.strip():
        raise InputError(f"{name}: empty, there is nothing to read")
    if name.endswith(".json"):
        text = chat_export(text, name)
        blob = text.encode()
    return TextFile(name, text, len(blob))


def pieces(text: str, size: int = PIECE) -> Iterator[str]:
    """``text`` cut into parts of at most ``size`` characters, together the whole: after a blank line if there
    is one in the last half of a part, else after a line, a space, or anywhere."""
    start = 0
    while start < len(text):
        end = min(len(text), start + size)
        if end < len(text):
            for sign in ("\n\n", "\n", " "):
                found = text.rfind(sign, start + size // 2, end)
                if found >= 0:
                    end = found + len(sign)
                    break
        yield text[start:end]
        start = end


def chat_export(text: str, name: str) -> str:
    """Turns of a JSON chat export as conversation lines, a document each conversation.

    Understood: lists of ``{"role" or "from", "content" or "value" or "text"}``, alone, under
    ``messages`` or ``conversations``, or a list of such.
    """
    try:
        documents = list(_conversations(json.loads(text)))
    except ValueError as exc:
        raise InputError(f"{name}: not valid JSON ({exc})") from None
    except RecursionError:
        raise InputError(f"{name}: JSON nested too deeply (expected a list of role and content)") from None
    if not documents:
        raise InputError(f"{name}: JSON without chat messages (expected a list of role and content)")
    return "<|doc|>\n".join("".join(lines) for lines in documents)


def _conversations(data: Any) -> Iterator[list[str]]:
    if isinstance(data, dict):
        for key in ("messages", "conversations"):
            if isinstance(data.get(key), list):
                yield from _conversations(data[key])
    elif isinstance(data, list):
        lines = [line for line in map(_message, data) if line]
        if lines:
            yield lines
        else:
            for item in data:
                yield from _conversations(item)


def _message(item: Any) -> str | None:
    if not isinstance(item, dict):
        return None
    role, content = item.get("role", item.get("from")), item.get("content", item.get("value", item.get("text")))
    if not isinstance(role, str) or not isinstance(content, str) or not content.strip():
        return None
    label = "User" if role.lower() in ("user", "human", "me") else "Assistant"
    # JSON can spell half a surrogate pair; UTF-8 cannot.
    whole = content.encode("utf-8", "replace").decode("utf-8")
    return f"{label}: {' '.join(whole.split())}\n"
