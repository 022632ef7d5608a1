"""Speeds, measured in short slices that take turns.

What disturbs the machine for a while then falls on all figures alike, and their ratios stand.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median

ROUNDS = 7
Step = Callable[[int], int]
"""Is told how many tokens are done in this slice; returns how many it did."""


def rate(step: Step, seconds: float) -> float:
    """Tokens per second of ``step``, called until the time is over.

    A first call is not counted: it finds the caches full of what was measured before.
    """
    step(0)
    begun, done = time.perf_counter(), 0
    while True:
        done += step(done)
        elapsed = time.perf_counter() - begun
        if elapsed >= seconds:
            return done / elapsed


def medians(steps: Mapping[str, Step], seconds: float) -> dict[str, float]:
    """Tokens per second of each step, the median of ``ROUNDS`` slices that together take ``seconds``."""
    samples: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(ROUNDS):
        for name, step in steps.items():
            samples[name].append(rate(step, seconds / ROUNDS))
    return {f"{name}_tokens_per_s": round(median(values), 2) for name, values in samples.items()}
