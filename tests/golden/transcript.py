"""A fixed chat with the bundled model, whose text is committed (``tests/golden/chat.txt``).

    python -m tests.golden.transcript

writes that file anew; to be run, and its difference read, when answers are meant to change. Answers are computed in
float32 at temperature 0, without the bank, and learned from. It fails, and writes nothing, if an answer hangs on a
near tie, which another processor might decide otherwise.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from unittest.mock import patch

from tests.command import run_cli

PATH = Path(__file__).with_name("chat.txt")
TURNS = """\
What is the capital of France?
How many legs does a spider have?
My cat is called Pepper.
What colour is snow?
What is my cat called?
Thank you.
"""
COMMAND = ["chat", "--json", "--temperature", "0", "--no-bank", "--seed", "1", "--max-tokens", "24"]
LEAST_GAP = 0.3
"""Nats by which the likeliest token must be ahead of the next; processors differ by less than a hundredth."""


def transcript(home: Path) -> str:
    """What is said in the chat, ``home`` being an empty data folder."""
    result = run_cli(COMMAND, TURNS, {"EDGELM_HOME": str(home), "EDGELM_GRAPH": "float32"})
    assert result.code == 0, result.stderr
    said = zip(TURNS.splitlines(), result.json_lines, strict=True)
    return "".join(f"> {text}\n{turn['reply']}\n" for text, turn in said)


def smallest_gap(home: Path) -> float:
    """Nats between the likeliest token and the next one, where they are nearest in the chat."""
    import numpy as np

    from edgelm.cli.main import cli
    from edgelm.engine import generate

    draw, gaps = generate.sample, []

    def sample(scores: np.ndarray, *rest: object) -> int:
        token_id = draw(scores, *rest)  # type: ignore[arg-type]
        gaps.append(float(scores[token_id] - np.delete(scores, token_id).max()))
        return token_id

    os.environ.update(EDGELM_HOME=str(home), EDGELM_GRAPH="float32")
    with tempfile.TemporaryFile("w+") as turns, patch.object(generate, "sample", sample):
        turns.write(TURNS)
        turns.seek(0)
        with patch.object(sys, "stdin", turns):
            cli.main(COMMAND, standalone_mode=False)
    return min(gaps)


def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        text = transcript(Path(home) / "a")
        gap = smallest_gap(Path(home) / "b")
    if gap < LEAST_GAP:
        raise SystemExit(f"an answer hangs on {gap:.2f} nats, fewer than {LEAST_GAP}: ask something else")
    PATH.write_text(text, encoding="utf-8")
    print(json.dumps({"path": str(PATH), "smallest_gap_nats": round(gap, 3)}))


if __name__ == "__main__":
    main()
