"""Whether a token costs the same at the end of a very long text as near its beginning.

    python -m tools.measure.late FILE [--early 1000] [--late 1000000] [--pairs 200]

The text is read again and again up to both positions. From there the same tokens are decoded by one thread, a slice
after the early state and one after the late in turns; seconds are those of the processor.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from pathlib import Path

import numpy as np

from edgelm.engine.opening import open_session
from edgelm.engine.session import OrtSession, Snapshot
from edgelm.model import hub
from edgelm.text.tokenizer import DOC_ID

SLICE = 100
"""Tokens of a slice."""


def read_on(session: OrtSession, ids: np.ndarray, position: int, end: int) -> Snapshot:
    """Reads from a position of the endless text to another; the state there."""
    step = 1 << 12
    for start in range(position, end, step):
        session.run(np.take(ids, range(start, min(start + step, end)), mode="wrap"))
    return session.snapshot()


def seconds(session: OrtSession, state: Snapshot, ids: np.ndarray) -> float:
    """Of the processor, for decoding ids [n] after a state."""
    session.restore(state)
    begun = time.process_time()
    for i in range(len(ids)):
        session.run(ids[i : i + 1])
    return time.process_time() - begun


def resident_mb() -> float:
    """What this process holds in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--early", type=int, default=1_000)
    parser.add_argument("--late", type=int, default=1_000_000)
    parser.add_argument("--pairs", type=int, default=200)
    args = parser.parse_args()
    model = hub.load()
    session = open_session(model, fixed=True)
    ids = np.array([DOC_ID, *model.tokenizer.encode(args.file.read_text(encoding="utf-8"))])
    early = read_on(session, ids, 0, args.early)
    memory = resident_mb()
    late = read_on(session, ids, args.early, args.late)
    growth = resident_mb() - memory
    rng, times = np.random.default_rng(0), []
    for _ in range(args.pairs):
        start = int(rng.integers(len(ids) - SLICE))
        times.append([seconds(session, state, ids[start : start + SLICE]) for state in (early, late)])
    ratios = [before / after for before, after in times]
    ms = [statistics.median(column) / SLICE * 1e3 for column in zip(*times, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(f"position {args.early:,}: {ms[0]:.3f} ms a token; {args.late:,}: {ms[1]:.3f}")
    print(f"tokens/s late over early: {middle:.3f} (quartiles {low:.3f} to {high:.3f}); memory grew by {growth:.1f} MB")


if __name__ == "__main__":
    main()
