"""Reads a corpus folder and its mixture.

A corpus folder holds ``NAME.txt`` or ``NAME.txt.xz`` files: UTF-8 text, documents separated by a line
``<|doc|>``. A mixture is a TOML table ``NAME = weight``; a weight counts epochs relative to weight 1.
"""

from __future__ import annotations

import itertools
import lzma
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

from edgelm.text.tokenizer import DOC_LINE

SEPARATOR = f"\n{DOC_LINE}\n"


def read_mixture(path: Path) -> dict[str, float]:
    """The weights of a mixture file, in its order."""
    with path.open("rb") as file:
        table = tomllib.load(file)
    return {name: float(weight) for name, weight in table.items() if float(weight) > 0}


def has_text(folder: Path, name: str) -> bool:
    """Whether a folder holds the text of a source."""
    return any((folder / f"{name}{end}").exists() for end in (".txt", ".txt.xz"))


def read_documents(folder: Path, name: str) -> Iterator[str]:
    """The documents of one source, ``NAME.txt`` or ``NAME.txt.xz``, read as they are asked for."""
    plain, packed = folder / f"{name}.txt", folder / f"{name}.txt.xz"
    if plain.exists():
        with plain.open(encoding="utf-8", newline="\n") as file:
            yield from documents(file)
    else:
        with lzma.open(packed, "rt", encoding="utf-8", newline="\n") as file:
            yield from documents(file)


def documents(lines: Iterable[str]) -> Iterator[str]:
    """The documents in the lines of a text, each ending in a newline."""
    parts: list[str] = []
    for line in itertools.chain(lines, [DOC_LINE]):
        if line.removesuffix("\n") != DOC_LINE:
            parts.append(line)
            continue
        document = "".join(parts)
        parts.clear()
        if document.strip():
            yield document if document.endswith("\n") else document + "\n"
