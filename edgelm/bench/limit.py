"""What a decoded token must cost: the bytes that it touches at the rate of this machine, and the graph itself."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np

from edgelm.export.step import weight_bytes
from edgelm.graph.weighted import FLOAT
from edgelm.kernels.stream import read_words
from edgelm.matrices.quantize import BLOCK, Precision
from edgelm.model.config import ModelConfig
from edgelm.model.state import state_bytes
from edgelm.model.weights import tensors

PASS_BYTES = 4_000_000
"""A smaller set of weights is read as often as that takes, within the kernel: a call must not be felt."""


def weights_per_token(config: ModelConfig, pairs_per_token: float, precision: Precision = FLOAT) -> int:
    """Bytes of weights that one token must read.

    A row of the embedding and all of it again as the head, every mixer, router, gain and shared block, and of
    the neuron blocks those that are awake.

    Parameters
    ----------
    config : ModelConfig
    pairs_per_token : float
        Blocks awake for a token, over all layers together.
    precision : Precision
        As a graph of it holds them.
    """
    total, specs = 0.0, tensors(config)
    for name, n_bytes in weight_bytes(config, precision).items():
        if name == "embed":
            total += n_bytes + n_bytes / config.vocab_size
        elif specs[name].blocks:
            total += n_bytes / config.n_blocks * pairs_per_token / config.n_layers
        else:
            total += n_bytes
    return round(total)


def bytes_per_token(config: ModelConfig, pairs_per_token: float, precision: Precision = FLOAT) -> int:
    """``weights_per_token``, and the state (float32) read and written once."""
    return weights_per_token(config, pairs_per_token, precision) + 2 * state_bytes(config)


def narrow(config: ModelConfig, precision: Precision = FLOAT) -> ModelConfig:
    """The same layers, heads, channels and blocks, each as narrow as the graph may be: its nodes, without the work.

    A graph of integers needs widths of 32, or its matrices would not be packed.
    """
    width = math.lcm(4 if precision == FLOAT else BLOCK, config.mixer.grain, config.ffn.grain)
    parts = {name: getattr(config, name).narrowed(width) for name in ("mixer", "ffn")}
    return replace(config, vocab_size=width, d_model=width, **parts)


def read_rate(n_bytes: int, seconds: float) -> float:
    """Bytes per second at which one thread reads a set of ``n_bytes`` over and over; the best pass within ``seconds``.

    A set that fits a cache is read from there, as the weights of a model of that size are.
    """
    words = np.arange(max(1, n_bytes // 8), dtype=np.int64)
    repeats = max(1, PASS_BYTES // words.nbytes)
    read_words(words, 1)
    best, begun = math.inf, time.perf_counter()
    while True:
        before = time.perf_counter()
        read_words(words, repeats)
        after = time.perf_counter()
        best = min(best, after - before)
        if after - begun >= seconds:
            return repeats * words.nbytes / best
