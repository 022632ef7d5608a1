"""The documentation says what is there."""

from __future__ import annotations

import re
from pathlib import Path

from tools.docs import BENCHMARKS_PAGE, CLI_PAGE, benchmarks_page, cli_page

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_cli_page_is_current() -> None:
    assert CLI_PAGE.read_text(encoding="utf-8") == cli_page(), "run `make docs`"


def test_the_benchmarks_page_is_current() -> None:
    assert BENCHMARKS_PAGE.read_text(encoding="utf-8") == benchmarks_page(), "run `make docs`"


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if not target.startswith(("http://", "https://")):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_paths_that_pages_name_exist() -> None:
    named = re.compile(r"`((?:edgelm|tools|tests|docs|ports)/[\w./-]*)`")
    for page in PAGES:
        for path in named.findall(page.read_text(encoding="utf-8")):
            assert (ROOT / path).exists(), f"{page.name}: {path}"
