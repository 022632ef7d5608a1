"""Reads a corpus folder and its mixture.

A corpus folder holds ``NAME.txt`` or ``NAME.txt.xz`` files: UTF-8 text, documents separated by a line
``<|doc|>``. A mixture is a TOML table ``NAME = weight``; a weight counts epochs relative to weight 1.
"""

from __future__ import annotations

import lzma
import tomllib
from collections.abc import Iterator
from pathlib import Path

from edgelm.text.tokenizer import DOC_LINE, document_breaks

SEPARATOR = f"\n{DOC_LINE}\n"


def read_mixture(path: Path) -> dict[str, float]:
    """The weights of a mixture file, in its order."""
    with path.open("rb") as file:
        table = tomllib.load(file)
    return {name: float(weight) for name, weight in table.items() if float(weight) > 0}


def read_text(folder: Path, name: str) -> str:
    """The whole text of one source, ``NAME.txt`` or ``NAME.txt.xz``."""
    plain, packed = folder / f"{name}.txt", folder / f"{name}.txt.xz"
    if plain.exists():
        return plain.read_text(encoding="utf-8")
    with lzma.open(packed, "rt", encoding="utf-8") as file:
        return file.read()


def documents(text: str) -> Iterator[str]:
    """The documents of a text, each ending in a newline."""
    start = 0
    for position in (*document_breaks(text), len(text)):
        document = text[start:position].removesuffix("\n")
        start = position + len(DOC_LINE) + 1
        if document.strip():
            yield document if document.endswith("\n") else document + "\n"
