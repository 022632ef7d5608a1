"""Time, memory and bytes of a round of many simulated devices: encoding, refusing, decoding, aggregation."""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgelm.errors import InputError
from edgelm.model.config import PRESETS
from edgelm.model.hub import Model
from edgelm.model.weights import Weights, block_names
from edgelm.swarm.aggregate import aggregate_round
from edgelm.swarm.update import SCALES, VALUES, Received, norm_of, nothing, outgoing, shared_layer
from tools.measure.swarm.devices import Swarm

RANK, OWN, SPREAD = 4, 2.0, 1.0
"""Of a simulated change: its rank in a block, the size of what is its own against what all have in common, and how much
the logarithms of the sizes of blocks differ."""
MEASURED = ("mean", "multi-krum", "trimmed-mean")
LIARS, BROKEN = 0.2, 0.01
"""Shares of devices that send ten times noise, and what is no update."""


def scale(swarm: Swarm, preset: str, n_devices: int) -> dict[str, Any]:
    """A round of so many devices of a model of these sizes; their changes are random."""
    model = Model(preset, Path(), "", PRESETS[preset], swarm.model.tokenizer, {}, {})
    rng, started = np.random.default_rng(0), time.perf_counter()
    common, sizes = _random(model, rng), _sizes(model, rng)
    updates, seconds = [], 0.0
    for i in range(n_devices):
        own = _random(model, rng)
        change = {name: sizes[name] * (common[name] + np.float32(OWN) * own[name]) for name in own}
        layer, began = shared_layer(change, model), time.perf_counter()
        update = outgoing(layer, model, swarm.update, rng)
        seconds += time.perf_counter() - began
        if i < LIARS * n_devices:
            update[VALUES] = rng.integers(-127, 128, update[VALUES].shape).astype(np.int8)
            update[SCALES] *= np.float32(10)
        updates.append(update)
    print(f"{n_devices} updates made in {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    received, refused = _received(updates, model, swarm)
    held, rows = _peak(), []
    truth = {name: sizes[name] * common[name] for name in common}
    for name in MEASURED:
        began = time.perf_counter()
        total = aggregate_round(received, model, replace(swarm.aggregation, strategy=name))
        rows.append({"strategy": name, "seconds": round(time.perf_counter() - began, 1), "peak_mb": _peak()})
        rows[-1] |= {"cosine_to_common": round(_cosine(total, truth), 3)}
        print(rows[-1], file=sys.stderr, flush=True)
    return {
        "preset": preset, "devices": n_devices, "refused": refused,
        "bytes_of_update": max(sum(array.nbytes for array in update.values()) for update in updates),
        "bytes_of_all": sum(array.nbytes for update in updates for array in update.values()),
        "milliseconds_to_encode_one": round(1000 * seconds / n_devices, 1), "mb_with_all_updates": held,
        "bytes_of_a_dense_one": sum(array.nbytes for array in nothing(model.config).values()), "aggregated": rows,
        "bytes_of_layer": sum(array.nbytes for array in shared_layer(total, model).values()),
    }  # fmt: skip


def _received(updates: list[dict[str, np.ndarray]], model: Model, swarm: Swarm) -> tuple[list[Received], int]:
    """The updates that are taken, a few broken ones among them, and how many are not."""
    received, refused = [], 0
    n_broken = int(BROKEN * len(updates))
    for i, update in enumerate(updates):
        broken = update | {SCALES: update[SCALES][:-1]} if i >= len(updates) - n_broken else update
        try:
            received.append(Received(broken, model, swarm.update))
        except InputError:
            refused += 1
    return received, refused


def _random(model: Model, rng: np.random.Generator) -> Weights:
    """A change of low rank in each block, float32."""
    change = nothing(model.config)
    for name in change:
        shape = change[name].shape
        if name not in block_names(model.config):
            change[name] = rng.standard_normal(shape, np.float32)
            continue
        left = rng.standard_normal((*shape[:-1], RANK), np.float32)
        right = rng.standard_normal((shape[0], RANK, shape[-1]), np.float32)
        change[name] = np.float32(RANK**-0.5) * (left @ right)
    return change


def _sizes(model: Model, rng: np.random.Generator) -> Weights:
    """How large each tensor or block of every change is, to be multiplied by."""
    sizes = {}
    for name, array in nothing(model.config).items():
        each = (len(array), *[1] * (array.ndim - 1)) if name in block_names(model.config) else (1,)
        sizes[name] = (0.005 * np.exp(SPREAD * rng.standard_normal(each))).astype(np.float32)
    return sizes


def _cosine(one: Weights, other: Weights) -> float:
    product = sum(float((one[name].astype(np.float64) * other[name]).sum()) for name in one)
    return product / max(norm_of(one) * norm_of(other), 1e-300)


def _peak() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
