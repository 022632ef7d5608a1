"""What a token costs by the number of neuron blocks that are awake for it: answering and learning.

    python -m tools.measure.selective [--model NAME] [--awake 1 12 24 48] [--seconds 3]

The model's weights with a router that wakes every block, of which the strongest few stay awake: the same number at
every token. What the feed-forward part takes is the time beyond that of no block at all, found by a line through the
times. One thread; all counts take turns.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np

from edgelm.bench.timing import medians
from edgelm.config import LearnConfig
from edgelm.engine.ort_session import OrtSession
from edgelm.export.step import build_graph
from edgelm.learn.learner import Learner
from edgelm.matrices.matrix import Operands
from edgelm.matrices.quantize import PRECISIONS
from edgelm.model import hub
from edgelm.text.general import rehearsal_text
from edgelm.text.tokenizer import DOC_ID

TEXT_TOKENS = 257
ALL = 1000.0
"""Added to the bias of the router."""


def waking_all(operands: Operands) -> Operands:
    """The same tensors, with a router that wakes every block."""
    biased = {name: np.asarray(array) + ALL for name, array in operands.items() if name.endswith("router_bias")}
    return {**operands, **{name: array.astype(np.float32) for name, array in biased.items()}}


def decoding(session: OrtSession, ids: np.ndarray) -> Callable[[int], int]:
    """A step of ``edgelm.bench.timing``."""

    def step(done: int) -> int:
        session.run(ids[done % len(ids)][None])
        return 1

    return step


def learning(learner: Learner, ids: np.ndarray) -> Callable[[int], int]:
    """A step of ``edgelm.bench.timing``; rates are 0, so that the weights stay."""

    def step(_: int) -> int:
        learner.learn(ids)
        return len(ids) - 1

    return step


def intercept(counts: list[int], times: list[float]) -> float:
    """Where the straight line of least squares through the times begins."""
    return float(np.polyfit(counts, times, 1)[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--awake", type=int, nargs="+", default=[1, 12, 24, 48])
    parser.add_argument("--seconds", type=float, default=3.0)
    args = parser.parse_args()
    model = hub.load(args.model)
    ids = np.array([DOC_ID, *model.tokenizer.encode(rehearsal_text())][:TEXT_TOKENS], np.int64)
    floats = {name: np.asarray(array) for name, array in waking_all(model.weights).items()}
    operands, base = waking_all(model.operands), waking_all(model.base())
    steps = {}
    for count in args.awake:
        config = model.config.resized(max_awake=count)
        for name, precision in (("float32", None), ("int8", PRECISIONS["int8"])):
            graph = build_graph(config) if precision is None else build_graph(config, floats, precision)
            steps[f"{name} {count}"] = decoding(OrtSession(graph, floats if precision is None else {}), ids)
        learner = Learner(config, operands, base, model.grad_rms, LearnConfig(rate=0, pull=0))
        steps[f"learning {count}"] = learning(learner, ids)
    speeds = medians(steps, args.seconds)
    print("| ms a token | " + " | ".join(f"{n} of {model.config.n_blocks} awake" for n in args.awake), end="")
    print(f" | blocks alone, {args.awake[-1]} against {args.awake[1]} |\n|" + "--|" * (len(args.awake) + 2))
    for name in ("float32", "int8", "learning"):
        times = [1e3 / speeds[f"{name} {count}_tokens_per_s"] for count in args.awake]
        rest = intercept(args.awake, times)
        ratio = (times[-1] - rest) / (times[1] - rest)
        print(f"| {name} | " + " | ".join(f"{t:.3f}" for t in times) + f" | {ratio:.2f} |")


if __name__ == "__main__":
    main()
