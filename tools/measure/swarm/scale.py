"""Time, memory and bytes of a round of many simulated devices: encoding, decoding, aggregation."""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edgelm.model.weights import Weights
from edgelm.swarm.aggregate import BY_NUMBER, aggregate_round
from edgelm.swarm.update import Received, dense, norm_of, outgoing, shared_layer
from tools.measure.swarm.devices import Swarm


def scale(swarm: Swarm, texts: dict[str, str], n_devices: int) -> dict[str, Any]:
    """A round of so many devices; each has the change of one of the texts and noise of the same size."""
    changes = [dense(swarm.learned(text, {}), swarm.model.config) for text in texts.values()]
    rng = np.random.default_rng(0)
    before, started = _peak(), time.perf_counter()
    updates = [outgoing(_perturbed(changes, i, swarm, rng), swarm.model, swarm.update, rng) for i in range(n_devices)]
    encoded = time.perf_counter() - started
    n_bytes = [sum(array.nbytes for array in update.values()) for update in updates]
    rows, held = [], _peak()
    for name in BY_NUMBER:
        started = time.perf_counter()
        received = [Received(update, swarm.model, swarm.update) for update in updates]
        total = aggregate_round(received, swarm.model, replace(swarm.aggregation, strategy=name))
        seconds = time.perf_counter() - started
        rows.append({"strategy": name, "seconds": round(seconds, 1), "norm": norm_of(total), "peak_mb": _peak()})
    return {
        "devices": n_devices, "bytes_of_update": max(n_bytes), "seconds_to_encode_one": encoded / n_devices,
        "mb_before": before, "mb_with_all_updates": held, "aggregated": rows,
        "bytes_of_layer": sum(array.nbytes for array in shared_layer(total, swarm.model).values()),
    }  # fmt: skip


def _perturbed(changes: Sequence[Weights], i: int, swarm: Swarm, rng: np.random.Generator) -> Weights:
    """The change of one of the texts, with noise of its size; as a device would give it to ``outgoing``."""
    change = changes[i % len(changes)]
    size = np.float32(norm_of(change) / sum(array.size for array in change.values()) ** 0.5)
    noised = {name: array + size * rng.standard_normal(array.shape, np.float32) for name, array in change.items()}
    return shared_layer(noised, swarm.model)


def _peak() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
