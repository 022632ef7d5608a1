"""What is left of the gain under noise that hides a device from whoever sees the shared layer."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edgelm.swarm.privacy import epsilon, hidden_mean
from tools.measure.swarm.devices import Swarm, beginning

MULTIPLIERS = (0.3, 0.5, 1.0, 2.0, 4.0)
NOISES = (0.0, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)
"""On a number of the mean, divided by the clip: a multiplier leaves so much of as many devices as go into it. The mean
of the texts' few devices stands for theirs."""
ROUNDS = (1, 10, 100)
RATES = (1.0, 0.01)


def epsilons(swarm: Swarm, texts: dict[str, str], left_out: Sequence[str], n_score: int) -> dict[str, Any]:
    """The gain by how large the noise on a number of the mean is, and how large that is for so many devices."""
    # What devices add themselves is no part of what an accountant may count: here the server adds all of it.
    aggregation = replace(swarm.aggregation, strategy="mean", rate=1.0)
    plain = replace(swarm, aggregation=aggregation, update=replace(swarm.update, noise=0))
    clip, rate = swarm.update.clip, np.float32(swarm.aggregation.rate)
    means = {
        name: plain.round(plain.nothing(), [text for other, text in texts.items() if other != name], 1)
        for name in left_out
    }
    rows = []
    for noise in NOISES:
        gains, costs = [], []
        for name, mean in means.items():
            hidden = hidden_mean(mean, clip, noise, 1, np.random.default_rng(1)) if noise else mean
            total = {key: rate * array for key, array in hidden.items()}
            own = beginning(texts[name], n_score)
            gains.append(1 - swarm.bits(total, [own])[0] / swarm.bits(None, [own])[0])
            costs.append(swarm.general_cost(total))
        rows.append({"noise": noise, "gain": float(np.mean(gains)), "general_cost": float(np.mean(costs))})
        rows[-1]["devices"] = {str(m): round(m / noise) if noise else None for m in MULTIPLIERS}
        print(rows[-1], file=sys.stderr, flush=True)
    told = [
        {"multiplier": m, "rounds": n, "rate": rate_, "epsilon": epsilon(m, n, rate_)}
        for m in MULTIPLIERS
        for n in ROUNDS
        for rate_ in RATES
    ]
    return {"gains": rows, "epsilons": told, "multipliers": MULTIPLIERS}
