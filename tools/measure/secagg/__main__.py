"""What a server gets of one device's update in a round of Flower's SecAgg+, in four ways.

    python -m tools.measure.secagg [--numbers 292000]

The devices answer by Flower's mod, the round is that of Flower's own workflow, all in one process; updates are drawn at
random. ``by_seeds`` tries every seed that a mask can have, from nothing but what an honest server has when the round is
over: one of three devices, and one of five of which two went; it takes 2 GB. In the others the server does what the mod
does not refuse. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

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

    def members(n_devices: int = 3) -> list[Member]:
        return [Member(11 + i, rng.normal(0.0, SIZE, args.numbers).astype(np.float32)) for i in range(n_devices)]

    def told(attack: Callable[[list[Member]], np.ndarray]) -> dict[str, float]:
        devices, begun = members(), time.monotonic()
        return _compared(attack(devices), devices[0].update, begun)

    print(json.dumps({
        "numbers": args.numbers, "by_seeds": _tried(members()), "by_seeds_of_five": _tried(members(5), (12, 14)),
        "by_keys": told(lambda devices: by_keys(devices[0])), "by_shares": told(by_shares),
        "by_ranges": told(lambda devices: by_ranges(devices, 2 * SIZE)),
    }, indent=1))  # fmt: skip


def _tried(devices: list[Member], gone: tuple[int, ...] = ()) -> dict[str, float]:
    """One round, and what trying all seeds then finds; of those that go, their numbers."""
    room = Room(devices, gone)
    mean = room.run_round()
    wanted = np.mean([device.update for device in devices if device.node_id not in gone], 0)
    begun = time.monotonic()
    found, tried = by_seeds(room, pair_seeds(0, 1 << PAIR_BITS))
    return {
        "error_of_mean": float(np.abs(mean - wanted).max()), "up": devices[0].up, "down": devices[0].down,
        "pairs": tried, **_compared(found, devices[0].update, begun),
    }  # fmt: skip


def _compared(found: np.ndarray, update: np.ndarray, begun: float) -> dict[str, float]:
    """How what the server has differs from the update, how far they correlate, and the seconds that it took."""
    error, correlation = np.abs(found - update).max(), np.corrcoef(found, update)[0, 1]
    seconds = time.monotonic() - begun
    return {
        "largest_error": float(error), "correlation": round(float(correlation), 6), "seconds": round(seconds, 1)
    }  # fmt: skip


if __name__ == "__main__":
    main()
