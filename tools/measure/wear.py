"""What an hour of chat writes to the disk, how large a profile becomes, and how soon it is back after a kill.

python -m tools.measure.wear [--turns 120] [--idle 0.2] [--pause 2.0] [--model NAME|PATH] [--folder PATH] [--json]

Talks with ``edgelm chat --json`` as a person does who writes every 30 seconds, time cut short: after ``--idle``
seconds without a word, instead of 20, what was told is consolidated, and ``--pause`` seconds leave time for it.
The bytes are those that the system has charged to the process, whole pages, from its start to its end. The
folder must be on a disk: what is written to memory is charged to nobody.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

TURN_SECONDS = 30
PEOPLE = (
    "My sister Clara",
    "Our new neighbour",
    "The doctor",
    "My old friend Tomas",
    "The woman next door",
    "My daughter's teacher",
    "Uncle Ben",
    "The baker",
    "My colleague Ines",
    "The boy downstairs",
    "Grandmother",
    "The captain of the ferry",
)
DEEDS = (
    "is moving to Ghent in March because of work.",
    "told me that the river froze in 1987.",
    "wants to learn how to play the cello soon.",
    "has lost the blue umbrella that I bought in Lisbon.",
    "says that coffee after four o'clock keeps everybody awake.",
    "will meet me on Thursday at seven under the clock.",
    "cannot eat walnuts, so I bake with almonds instead.",
    "asked whether I still keep the photographs of the lighthouse.",
    "grows tomatoes on the balcony and gives most away.",
    "found a hedgehog under the stairs and called it Admiral.",
)
CHAT = """
import sys
import edgelm.cli.chat
from edgelm.cli.main import main
edgelm.cli.chat.IDLE_SECONDS = float(sys.argv.pop(1))
main()
"""
START = """
import json, sys, time
begun = time.perf_counter()
from edgelm.runtime import Runtime, RuntimeOptions
with Runtime(RuntimeOptions(sys.argv[1] or None), writable=True) as runtime:
    built = time.perf_counter()
    runtime.adaptation.memory
    known = time.perf_counter()
    pending = len(runtime.adaptation.pending)
    runtime.adaptation.catch_up()
    replayed = time.perf_counter()
    runtime.adaptation.prepare()
    ready = time.perf_counter()
print(json.dumps({
    "entries": len(runtime.adaptation.entries), "pending": pending, "construct_s": built - begun,
    "memory_s": known - built, "replay_s": replayed - known, "prepare_s": ready - replayed,
}))
"""


def sentences(count: int) -> list[str]:
    """What is said: no sentence twice before all were said once."""
    every = [f"{who} {does}" for who in PEOPLE for does in DEEDS]
    random.Random(0).shuffle(every)
    return [every[i % len(every)] for i in range(count)]


class Hour:
    """One chat of many turns.

    Parameters
    ----------
    home : Path
        ``EDGELM_HOME``.
    model : str
        Name or folder; "" is the bundled one.
    idle, pause : float
        Seconds.
    """

    def __init__(self, home: Path, model: str, idle: float, pause: float) -> None:
        self.home, self.model, self.pause = home, model, pause
        self.environment = os.environ | {"EDGELM_HOME": str(home)}
        chosen = ["--model", model] if model else []
        self._command = [sys.executable, "-c", CHAT, str(idle), "chat", "--json", "--max-tokens", "8", *chosen]

    def talk(self, turns: list[str], killed: Path) -> dict[str, float]:
        """Says all turns; ``killed`` becomes the data folder as a kill after the last one leaves it."""
        begun = time.monotonic()
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        process = subprocess.Popen(self._command, env=self.environment, **pipes)  # type: ignore[call-overload]
        for turn in turns:
            process.stdin.write(f"{turn}\n".encode())
            process.stdin.flush()
            if not process.stdout.readline():
                raise RuntimeError(f"the chat ended: exit code {process.wait()}")
            time.sleep(self.pause)
        open_bytes = _write_bytes(process.pid)
        shutil.copytree(self.home, killed)
        process.stdin.close()
        process.stdout.read()
        # Unlike /proc, this holds what was written on the way out too.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            raise RuntimeError(f"the chat ended: exit code {process.returncode}")
        return {
            "turns": len(turns), "words": sum(len(turn.split()) for turn in turns),
            "written_bytes": usage.ru_oublock * 512, "written_at_end_bytes": usage.ru_oublock * 512 - open_bytes,
            "written_bytes_a_turn": round(open_bytes / len(turns)),
            "profile_bytes": _size(self.home), "killed_profile_bytes": _size(killed),
            "processor_s": round(usage.ru_utime + usage.ru_stime, 1), "wall_s": round(time.monotonic() - begun, 1),
        }  # fmt: skip


def _write_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["write_bytes"])


def _size(home: Path) -> int:
    return sum(path.stat().st_size for path in (home / "profiles").iterdir())


def start_again(home: Path, model: str) -> dict[str, float]:
    """Seconds until the parts of a profile are there, in a process of its own."""
    environment = os.environ | {"EDGELM_HOME": str(home), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", START, model], env=environment, capture_output=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return {name: round(value, 3) for name, value in found.items()}


def measure(folder: Path, args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """All figures; a short chat comes first, so that compiled kernels are there."""
    model = args.model or ""
    Hour(folder / "warm", model, args.idle, 1.0).talk(sentences(2), folder / "warm-killed")
    home, killed = folder / "home", folder / "killed"
    chat = Hour(home, model, args.idle, args.pause).talk(sentences(args.turns), killed)
    empty = folder / "empty"
    empty.mkdir()
    starts = {"empty": empty, "closed": home, "killed": killed}
    return {"chat": chat} | {f"start_{name}": start_again(where, model) for name, where in starts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=120)
    parser.add_argument("--idle", type=float, default=0.2)
    parser.add_argument("--pause", type=float, default=2.0)
    parser.add_argument("--model")
    parser.add_argument(
        "--folder", type=Path, help="on the disk to write to (default: the system's for temporary files)"
    )
    parser.add_argument("--json", action="store_true", help="JSON alone")
    args = parser.parse_args()
    with TemporaryDirectory(dir=args.folder) as folder:
        fields = measure(Path(folder), args)
    print(json.dumps(fields, indent=None if args.json else 2))
    if not args.json:
        print("| start | entries | pending | construct s | memory s | replay s | prepare s |")
        print("|---|--:|--:|--:|--:|--:|--:|")
        for name in ("empty", "closed", "killed"):
            row = fields[f"start_{name}"]
            seconds = (f"{row[part]:.2f}" for part in ("construct_s", "memory_s", "replay_s", "prepare_s"))
            print(f"| {name} | {row['entries']} | {row['pending']} | {' | '.join(seconds)} |")


if __name__ == "__main__":
    main()
