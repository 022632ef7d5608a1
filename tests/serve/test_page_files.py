"""The files of the page: few, small, and nothing from elsewhere."""

from __future__ import annotations

import re

import pytest

from tests.command import ROOT

pytest.importorskip("msgspec")
from edgelm.serve.pages import NAMES

FOLDER = ROOT / "edgelm" / "serve" / "page"


def test_the_page_is_small_and_whole() -> None:
    files = {path.name: path.read_bytes() for path in FOLDER.iterdir()}
    assert sorted(files) == sorted(NAMES)
    assert sum(map(len, files.values())) < 150_000
    assert {name: n for name, text in files.items() if (n := text.count(b"\n")) > 400} == {}
    for name in NAMES:
        if name.endswith((".js", ".html")):
            assert max(map(len, files[name].decode().splitlines())) <= 120, name


def test_the_page_takes_nothing_as_html_and_nothing_from_elsewhere() -> None:
    text = "\n".join((FOLDER / name).read_text(encoding="utf-8") for name in NAMES)
    assert re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", text) == []
    assert set(re.findall(r"https?://[^\s\"')]+", text)) <= {"http://www.w3.org/2000/svg"}
    assert re.findall(r" style=| on[a-z]+=", (FOLDER / "index.html").read_text(encoding="utf-8")) == []


def test_files_of_the_page_import_only_one_another() -> None:
    for name in NAMES:
        if name.endswith(".js"):
            found = re.findall(r' from "\./([^"]+)"', (FOLDER / name).read_text(encoding="utf-8"))
            assert set(found) <= set(NAMES), name
