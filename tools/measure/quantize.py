"""What the precisions of an exported graph cost: its size, bits per byte of texts, and how far logits move.

    python -m tools.measure.quantize FILE... [--bytes 60000] [--model NAME|PATH] [--json]

The logits are those of the first tokens of each text, against the float32 graph. Prints a table, or JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgelm.engine.session import OrtSession
from edgelm.export.step import build_graph
from edgelm.matrices.quantize import Precision
from edgelm.measure.score import score_text
from edgelm.model import hub
from edgelm.runtime import models_dir
from edgelm.text.tokenizer import DOC_ID

ROWS = (
    Precision(),
    Precision("int8", "int8"),
    Precision("int4", "int4"),
    Precision("int4", "int8"),
    Precision("ternary", "int8"),
)
LOGITS_OF = 1024
"""Tokens of each text whose logits are compared."""


def measure(model: hub.Model, texts: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each of ``ROWS``; its ``bits_per_byte`` and ``change`` (by a share of float32's) go by text."""
    starts = [np.array([DOC_ID, *model.tokenizer.encode(text)[: LOGITS_OF - 1]]) for text in texts]
    rows: list[dict[str, Any]] = []
    expected: list[np.ndarray] = []
    for precision in ROWS:
        graph = build_graph(model.config, model.weights, precision)
        session = OrtSession(graph, {})
        logits = []
        for ids in starts:
            session.reset()
            logits.append(session.run(ids, 0))
        expected = expected or logits
        bits = [score_text(session, model.tokenizer, model.config, text).bits_per_byte for text in texts]
        base = rows[0]["bits_per_byte"] if rows else bits
        rows.append({
            "precision": str(precision),
            "graph_bytes": len(graph),
            "bits_per_byte": [round(float(value), 5) for value in bits],
            "change": [round(float(value / before - 1), 5) for value, before in zip(bits, base, strict=True)],
            "max_abs_error": max(float(np.abs(a - b).max()) for a, b in zip(logits, expected, strict=True)),
        })  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--bytes", type=int, default=60_000, dest="n_bytes")
    parser.add_argument("--model")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    texts = [path.read_bytes()[: args.n_bytes].decode("utf-8", errors="ignore") for path in args.files]
    rows = measure(hub.load(args.model, models_dir()), texts)
    if args.json:
        print(json.dumps({"files": [path.stem for path in args.files], "rows": rows}))
        return
    print(f"| precision | bytes | {' | '.join(path.stem for path in args.files)} | largest logit error |")
    print("|---|--:|" + "--:|" * (len(args.files) + 1))
    for row in rows:
        bits = (f"{b:.4f} ({c:+.2%})" for b, c in zip(row["bits_per_byte"], row["change"], strict=True))
        print(f"| {row['precision']} | {row['graph_bytes']:,} | {' | '.join(bits)} | {row['max_abs_error']:.3g} |")


if __name__ == "__main__":
    main()
