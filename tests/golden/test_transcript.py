"""The golden transcript: what the bundled model says in a fixed chat is what it said when it was committed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.golden.transcript import PATH, transcript


@pytest.mark.jit_only
def test_the_chat_is_the_one_that_was_committed(tmp_path: Path) -> None:
    assert transcript(tmp_path / "home") == PATH.read_text(encoding="utf-8"), (
        "if answers are meant to change, `python -m tests.golden.transcript` writes the new ones"
    )
