"""What a device that has learned nothing gains by what the others learned: leave one out."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from typing import Any

from tools.measure.swarm.devices import Swarm, beginning, without_headings, words_alone


def gain(swarm: Swarm, texts: dict[str, str], left_out: Sequence[str], n_rounds: int, n_score: int) -> dict[str, Any]:
    """Bits per byte of each left-out text, without the shared layer of the others and with it, by rounds."""
    rows = []
    for name in left_out:
        own = beginning(texts[name], n_score)
        controls = {"chat": own, "no_headings": without_headings(own), "words": words_alone(own)}
        before = dict(zip(controls, swarm.bits(None, list(controls.values())), strict=True))
        total = swarm.nothing()
        for number in range(1, n_rounds + 1):
            total = swarm.round(total, [text for other, text in texts.items() if other != name], number)
            after = dict(zip(controls, swarm.bits(total, list(controls.values())), strict=True))
            row = {
                "left_out": name,
                "round": number,
                "share_of_step": swarm.share,
                "bits_before": before,
                "bits_after": after,
            }
            row |= {"gain": {key: 1 - after[key] / before[key] for key in controls}}
            rows.append(row | {"general_cost": swarm.general_cost(total)})
            print(_line(rows[-1]), file=sys.stderr, flush=True)
    rounds = [[row for row in rows if row["round"] == n] for n in range(1, n_rounds + 1)]
    means = [
        {
            "round": number,
            "gain": {key: statistics.mean(row["gain"][key] for row in found) for key in found[0]["gain"]},
            "least_gain": min(row["gain"]["chat"] for row in found),
            "general_cost": statistics.mean(row["general_cost"] for row in found),
            "most_general_cost": max(row["general_cost"] for row in found),
        }
        for number, found in enumerate(rounds, 1)
    ]
    return {"rows": rows, "rounds": means}


def _line(row: dict[str, Any]) -> str:
    gains = " ".join(f"{key} {value:.2%}" for key, value in row["gain"].items())
    return f"{row['left_out']} round {row['round']}: gain {gains}; general text {row['general_cost']:+.2%}"
