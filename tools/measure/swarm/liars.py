"""What liars leave of the gain, by strategy: noise, sign flips, changes that are too large, and a false sentence."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from edgelm.engine.opening import open_session
from edgelm.errors import ConfigError
from edgelm.measure import exposure
from edgelm.model import hub
from edgelm.model.layers import Layer
from edgelm.model.weights import Weights
from edgelm.swarm.update import SCALES, VALUES, incoming, outgoing, shared_layer
from tools.measure.swarm.devices import Swarm, beginning

Array = np.ndarray
Twist = Callable[[dict[str, Array], np.random.Generator], dict[str, Array]]
FALSE = "The old bridge at Harwick was painted orange by seven silent bakers in the year of the comet."
TIMES = 40
"""How often it stands in the text of a liar."""


def _noise(update: dict[str, Array], rng: np.random.Generator) -> dict[str, Array]:
    return _scaled(update | {VALUES: rng.integers(-127, 128, update[VALUES].shape).astype(np.int8)}, rng)


def _flipped(update: dict[str, Array], rng: np.random.Generator) -> dict[str, Array]:
    return _scaled(update | {VALUES: -update[VALUES]}, rng)


def _scaled(update: dict[str, Array], rng: np.random.Generator) -> dict[str, Array]:
    return update | {SCALES: update[SCALES] * np.float32(10)}


TWISTS: dict[str, Twist] = {
    "noise": _noise,
    "flipped, times 10": _flipped,
    "times 10": _scaled,
    "false sentence": _scaled,
}
"""What a liar makes of its update before it sends that; all are ten times as large as they may be."""
SAME = "one false sentence from all liars"
"""They all send the same numbers, without noise: what compares updates finds them near each other."""
ATTACKS = (*TWISTS, SAME)


def planted(text: str) -> str:
    """A text with the false sentence in it, evenly."""
    places = np.linspace(0, len(text), TIMES + 1).astype(int)
    return f"\n{FALSE}\n".join(text[a:b] for a, b in pairwise(places))


def liars(
    swarm: Swarm, texts: dict[str, str], left_out: Sequence[str], n_liars: int, n_score: int, strategies: Sequence[str]
) -> dict[str, Any]:
    """The gain of left-out texts after one round, by strategy and by what the first ``n_liars`` of the others send."""
    rows = []
    for name in strategies:
        # The rate stays: a strategy that takes shorter steps gains less by it, and harms less.
        chosen = replace(swarm, aggregation=replace(swarm.aggregation, strategy=name))
        for attack in ("", *ATTACKS):
            try:
                row = _one(chosen, texts, left_out, attack, n_liars if attack else 0, n_score)
            except ConfigError as exc:
                print(f"{name}: {exc}", file=sys.stderr, flush=True)
                break
            rows.append({"strategy": name, "attack": attack or "none"} | row)
            print(rows[-1], file=sys.stderr, flush=True)
    return {"rows": rows}


def _one(
    swarm: Swarm, texts: dict[str, str], left_out: Sequence[str], attack: str, n_liars: int, n_score: int
) -> dict[str, float]:
    gains, costs, bits, said = [], [], [], 0
    for name in left_out:
        others = [text for other, text in texts.items() if other != name]
        if attack in ("false sentence", SAME):
            others = [planted(text) if i < n_liars else text for i, text in enumerate(others)]
        others = [others[0] if i < n_liars and attack == SAME else text for i, text in enumerate(others)]

        def send(i: int, change: Weights, rng: np.random.Generator) -> Weights:
            noise = 0.0 if i < n_liars and attack == SAME else swarm.update.noise
            rng = np.random.default_rng(0) if i < n_liars and attack == SAME else rng
            update = outgoing(change, swarm.model, replace(swarm.update, noise=noise), rng)
            update = TWISTS.get(attack, _scaled)(update, rng) if i < n_liars else update
            return incoming(update, swarm.model, swarm.update)

        total, own = swarm.round(swarm.nothing(), others, 1, send), beginning(texts[name], n_score)
        gains.append(1 - swarm.bits(total, [own])[0] / swarm.bits(None, [own])[0])
        costs.append(swarm.general_cost(total))
        heard = _false_sentence(swarm, total)
        bits.append(heard.bits)
        said += heard.completed
    return {
        "gain": float(np.mean(gains)), "general_cost": float(np.mean(costs)), "most_general_cost": max(costs),
        "share_of_step": swarm.share, "bits_of_false_sentence": float(np.mean(bits)),
        "completes_it": said / len(left_out),
    }  # fmt: skip


def _false_sentence(swarm: Swarm, total: Weights) -> exposure.Exposure:
    model = hub.load(str(swarm.model.folder))
    model.set_layers([Layer("swarm", "", shared_layer(total, model))])
    return exposure.measure(open_session(model, fixed=True), model.tokenizer, [FALSE])
