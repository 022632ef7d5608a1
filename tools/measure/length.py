"""What adapting costs, by the length of the text.

    python -m tools.measure.length FILE [--megabytes 0.25 0.5 1 2]

The beginning of a file is learned by `edgelm adapt`, each length in a process and with a profile of its own. Seconds
are those of the processor, which other programs disturb least.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple


class Cost(NamedTuple):
    """Of one text: its bytes and tokens, seconds of the processor, bytes of the profile, most memory in MB."""

    n_bytes: int
    tokens: int
    seconds: float
    profile_bytes: int
    memory: float


def adapt(text: bytes) -> Cost:
    """Learns a text, from nothing."""
    with tempfile.TemporaryDirectory(prefix="edgelm-") as name:
        path = Path(name) / "text.txt"
        path.write_bytes(text)
        command = [sys.executable, "-m", "edgelm", "adapt", str(path), "--holdout", "0", "--json"]
        process = subprocess.Popen(
            command, env=os.environ | {"EDGELM_HOME": name}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert process.stdout is not None
        fields = json.loads(process.stdout.read())
        _, status, used = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"adapt failed ({status})")
    seconds = used.ru_utime + used.ru_stime
    # Kilobytes on Linux.
    return Cost(len(text), fields["tokens"], seconds, fields["profile_bytes"], used.ru_maxrss / 1000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--megabytes", type=float, nargs="+", default=[0.25, 0.5, 1, 2])
    args = parser.parse_args()
    blob = args.file.read_bytes()
    print("| text | tokens | processor | a megabyte | profile | memory |\n|--:|--:|--:|--:|--:|--:|", flush=True)
    for size in args.megabytes:
        text = blob[: round(size * 1e6)].decode(errors="ignore").encode()
        cost = adapt(text)
        print(
            f"| {cost.n_bytes / 1e6:.2f} MB | {cost.tokens:,} | {cost.seconds:.0f} s "
            f"| {cost.seconds / cost.n_bytes * 1e6:.0f} s | {cost.profile_bytes / 1e6:.2f} MB | {cost.memory:.0f} MB |",
            flush=True,
        )


if __name__ == "__main__":
    main()
