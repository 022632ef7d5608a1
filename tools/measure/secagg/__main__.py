"""What a server gets of one device's update in a round of Flower's SecAgg+ with three devices, in four ways.

    python -m tools.measure.secagg [--numbers 292000]

The devices answer by Flower's mod, the round is that of Flower's own workflow, all in one process; updates are drawn at
random. ``by_seeds`` tries every seed that a mask can have, from nothing but what an honest server has when the round is
over; it takes 2 GB. In the others the server does what the mod does not refuse. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from tools.measure.secagg.attacks import by_keys, by_ranges, by_seeds, by_shares
from tools.measure.secagg.members import Member, Room, identify
from tools.measure.secagg.seeds import PAIR_BITS, pair_seeds

SIZE = 0.002
"""Standard deviation of the numbers of an update, as of the noise that devices add."""


def main() -> None:
    """Reads the command line, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--numbers", type=int, default=292_000, help="Of an update.")
    args = parser.parse_args()
    identify()
    rng = np.random.default_rng(0)

    def members() -> list[Member]:
        return [Member(i, rng.normal(0.0, SIZE, args.numbers).astype(np.float32)) for i in (11, 12, 13)]

    def told(attack: Callable[[list[Member]], Any]) -> dict[str, float]:
        devices, begun = members(), time.monotonic()
        found = attack(devices)
        return _compared(found, devices[0].update) | {"seconds": round(time.monotonic() - begun, 1)}

    devices = members()
    room, begun = Room(devices), time.monotonic()
    mean = room.run_round()
    seconds = time.monotonic() - begun
    wire = {"up": devices[0].up, "down": devices[0].down, "seconds": round(seconds, 1)}
    of_the_mean = float(np.abs(mean - np.mean([device.update for device in devices], 0)).max())
    begun = time.monotonic()
    found, tried = by_seeds(room, pair_seeds(0, 1 << PAIR_BITS))
    seeds = _compared(found, devices[0].update) | {"seconds": round(time.monotonic() - begun, 1), "pairs": tried}
    print(json.dumps({
        "numbers": args.numbers, "round": wire | {"error_of_mean": of_the_mean}, "by_seeds": seeds,
        "by_keys": told(lambda devices: by_keys(devices[0])), "by_shares": told(by_shares),
        "by_ranges": told(lambda devices: by_ranges(devices, 2 * SIZE)),
    }, indent=1))  # fmt: skip


def _compared(found: np.ndarray, update: np.ndarray) -> dict[str, float]:
    """How what the server has differs from the update: the largest error, and how far they correlate."""
    error, correlation = np.abs(found - update).max(), np.corrcoef(found, update)[0, 1]
    return {"largest_error": float(error), "correlation": round(float(correlation), 6)}


if __name__ == "__main__":
    main()
