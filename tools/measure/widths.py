"""What an answered token costs by the width of the neuron blocks, as many neurons awake.

    python -m tools.measure.widths [--preset small] [--widths 32 64 128] [--seconds 20]

Random weights, int8, constants, one thread; routers that wake every block, of which the strongest stay awake: a quarter
of the neurons at every token. All widths take turns.
"""

from __future__ import annotations

import argparse

import numpy as np

from edgelm.bench.timing import medians
from edgelm.engine.session import OrtSession
from edgelm.export.step import build_graph
from edgelm.matrices.quantize import PRECISIONS
from edgelm.model.config import PRESETS, ModelConfig
from edgelm.model.weights import random_weights
from tools.measure.selective import decoding, waking_all

AWAKE = 4
"""One block of so many is awake."""


def session(config: ModelConfig) -> OrtSession:
    """Of random weights."""
    weights = waking_all(random_weights(config, np.random.default_rng(0)))
    return OrtSession(build_graph(config, {name: np.asarray(w) for name, w in weights.items()}, PRECISIONS["int8"]), {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=sorted(PRESETS), default="small")
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--seconds", type=float, default=20.0)
    args = parser.parse_args()
    own, steps = PRESETS[args.preset], {}
    neurons = own.n_blocks * own.ffn.block_size
    ids = np.random.default_rng(0).integers(1, own.vocab_size, 256)
    for width in args.widths:
        n_blocks = neurons // width
        config = own.resized(n_blocks=n_blocks, block_size=width, max_awake=max(1, n_blocks // AWAKE))
        steps[f"{width}"] = decoding(session(config), ids)
    speeds = medians(steps, args.seconds)
    print("| neurons of a block | awake | ms a token |\n|--:|--:|--:|")
    for width in args.widths:
        n_blocks = neurons // width
        ms = 1e3 / speeds[f"{width}_tokens_per_s"]
        print(f"| {width} | {max(1, n_blocks // AWAKE)} of {n_blocks} | {ms:.3f} |")


if __name__ == "__main__":
    main()
