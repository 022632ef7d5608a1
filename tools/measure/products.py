"""Products of a segment with the frozen matrices of a model: integers by edgelm's kernels, float32 by numpy's BLAS.

    python -m tools.measure.products [--model NAME] [--steps 32] [--rounds 40]

All matrices in turn, so that none stays in a near cache, as in learning. One thread: set OPENBLAS_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

from edgelm.matrices.matrix import Int8, as_matrix, workspace_size
from edgelm.model import hub
from edgelm.model.weights import tensors

Array = np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=40)
    args = parser.parse_args()
    model, rng = hub.load(args.model), np.random.default_rng(0)
    operands = model.operands
    frozen = {
        name: (matrix, np.asarray(model.weights[name]))
        for name, matrix in operands.items()
        if isinstance(matrix, Int8) and matrix.q.ndim == 2
    }
    shapes, specs = [matrix.q.shape for matrix, _ in frozen.values()], tensors(model.config)
    workspace = np.zeros(
        max(workspace_size(args.steps, *sides) for n, k in shapes for sides in ((n, k), (k, n))), np.float32
    )
    runs: dict[str, Callable[[], None]] = {}
    for kind in (0, 1):
        made = [(as_matrix(pair[kind], specs[name].sums), pair[0].q.shape) for name, pair in frozen.items()]
        given = [tuple(rng.standard_normal((args.steps, n), np.float32) for n in shape) for _, shape in made]
        out = [tuple(np.empty_like(array) for array in pair) for pair in given]

        def forward(made: list = made, given: list = given, out: list = out) -> None:
            for (matrix, _), (_, x), (y, _) in zip(made, given, out, strict=True):
                matrix.product(x, workspace, y)

        def backward(made: list = made, given: list = given, out: list = out) -> None:
            for (matrix, _), (dy, _), (_, dx) in zip(made, given, out, strict=True):
                matrix.product_back(dy, workspace, dx)

        label = ("int8, edgelm", "float32, BLAS")[kind]
        runs |= {f"forward, {label}": forward, f"backward, {label}": backward}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(args.rounds):
        for name, run in runs.items():
            begun = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - begun)
    operations = 2 * args.steps * sum(n * k for n, k in shapes)
    for name, seconds in times.items():
        middle = statistics.median(seconds)
        print(f"{name:24s} {middle * 1e3:6.2f} ms {operations / middle / 1e9:6.0f} GFLOP/s")


if __name__ == "__main__":
    main()
