"""Decoding speed through ONNX Runtime: against the blocks awake, and against the position in the text.

    python -m tools.measure.speed [--model NAME|PATH] [--positions 100 100000] [--shares 1 0.5 0.25]

Medians over interleaved rounds in one process; prints a table, or JSON with ``--json``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import replace

import numpy as np

from edgelm.engine.session import OrtSession
from edgelm.export.step import build_graph
from edgelm.model import hub


def decode_seconds(session: OrtSession, ids: np.ndarray) -> float:
    """Seconds per token of feeding ``ids`` one by one."""
    begun = time.perf_counter()
    for token_id in ids:
        session.run(token_id[None])
    return (time.perf_counter() - begun) / len(ids)


def against_blocks(model: hub.Model, shares: list[float], rounds: int, n_tokens: int) -> list[dict[str, float]]:
    """Tokens per second with at most a share of the blocks computed."""
    rng = np.random.default_rng(0)
    sessions = []
    for share in shares:
        config = replace(model.config, max_awake=max(1, round(share * model.config.n_blocks)))
        sessions.append((config.max_awake, OrtSession(build_graph(config), model.weights)))
    ids = rng.integers(1, model.config.vocab_size, n_tokens)
    times: list[list[float]] = [[] for _ in shares]
    for _ in range(rounds):
        for index, (_, session) in enumerate(sessions):
            times[index].append(decode_seconds(session, ids))
    medians = [statistics.median(row) for row in times]
    return [
        {
            "blocks": blocks,
            "share": blocks / model.config.n_blocks,
            "tokens_per_s": 1 / median,
            "ratio_to_first": medians[0] / median,
        }
        for (blocks, _), median in zip(sessions, medians, strict=True)
    ]


def against_position(model: hub.Model, positions: list[int], rounds: int, n_tokens: int) -> list[dict[str, float]]:
    """Tokens per second and bytes of state after so many tokens."""
    rng = np.random.default_rng(0)
    session = OrtSession(model.graph, model.weights)
    snapshots, fed = [], 0
    for position in sorted(positions):
        session.run(rng.integers(1, model.config.vocab_size, position - fed))
        fed = position
        snapshots.append(session.snapshot())
    ids = rng.integers(1, model.config.vocab_size, n_tokens)
    times: list[list[float]] = [[] for _ in positions]
    for _ in range(rounds):
        for index, snapshot in enumerate(snapshots):
            session.restore(snapshot)
            times[index].append(decode_seconds(session, ids))
    medians = [statistics.median(row) for row in times]
    return [
        {
            "position": position,
            "state_bytes": session.state_bytes,
            "tokens_per_s": 1 / median,
            "ratio_to_first": medians[0] / median,
        }
        for position, median in zip(sorted(positions), medians, strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--positions", type=int, nargs="+", default=[100, 100_000])
    parser.add_argument("--shares", type=float, nargs="+", default=[1.0, 0.5, 0.25])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    model = hub.load(args.model)
    tables = {
        "blocks": against_blocks(model, args.shares, args.rounds, args.tokens),
        "positions": against_position(model, args.positions, args.rounds, args.tokens),
    }
    if args.json:
        print(json.dumps(tables))
        return
    for rows in tables.values():
        print("  ".join(f"{name:>14s}" for name in rows[0]))
        for row in rows:
            print("  ".join(f"{v:14,.2f}" if isinstance(v, float) else f"{v:14,d}" for v in row.values()))
        print()


if __name__ == "__main__":
    main()
