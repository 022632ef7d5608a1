"""What sleeping neurons save a model with channel mixes: the time of a decoded token, in turns.

    python -m tools.measure.asleep --model FOLDER [--keep 1 0.5 0.2 0.05] [--turns 9]

Of the rows of each ``ffn.key`` only the first part keeps its scales; the neurons of the others are always 0, and what
they would write is not read. The model is one of RWKV-7, its answers mean nothing. Prints a line for each part.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

from edgelm.engine.opening import open_session
from edgelm.engine.session import Session
from edgelm.model import hub

TOKENS = 20
"""Of a turn."""


def opened(folder: str, keep: float) -> Session:
    """A session of the model whose neurons sleep but for the first ``keep`` of each layer."""
    model = hub.load(folder)
    packed = dict(model.packed)
    keys = [key for key in packed if key.endswith(".ffn.key.scale")]
    if not keys:
        raise SystemExit(f"{model.name} has no channel mix in int8")
    for key in keys:
        packed[key] = np.array(packed[key])
        packed[key][int(len(packed[key]) * keep) :] = 0
    model._packed = packed
    return open_session(model, engine="kernels")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--keep", type=float, nargs="+", default=[1, 0.5, 0.2, 0.05])
    parser.add_argument("--turns", type=int, default=9)
    args = parser.parse_args()
    sessions = [opened(args.model, keep) for keep in args.keep]
    ids = np.random.default_rng(0).integers(3, hub.load(args.model).config.vocab_size, (args.turns + 1, TOKENS))
    times: list[list[float]] = [[] for _ in sessions]
    for turn, tokens in enumerate(ids):
        for session, taken in zip(sessions, times, strict=True):
            begun = time.perf_counter()
            for token in tokens:
                session.run(np.array([token]))
            if turn:  # the first one warms up
                taken.append((time.perf_counter() - begun) / TOKENS * 1e3)
    for keep, taken in zip(args.keep, times, strict=True):
        print(f"{keep:4.0%} kept: {statistics.median(taken):6.2f} ms a token ({min(taken):.2f} to {max(taken):.2f})")


if __name__ == "__main__":
    main()
