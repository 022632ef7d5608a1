"""Gives every reader of files from elsewhere bytes that nobody meant, and looks for what it should not do.

python -m tools.measure.fuzz [--reader NAME...] [--inputs 2000000] [--seconds S] [--seed 0] [--failures FOLDER] [--json]

A reader (``tests/fuzz/registry.py``) returns a valid value or raises an error that it documents. Anything else is a
failure: another exception, a value that is not valid, a warning, more than 64 MiB of memory or 5 s for one input. Each
of its kind is kept as a file, with the traceback beside it; then the exit code is 1. Readers that take longer are given
fewer inputs. An input is a function of the seed and its number, whatever the others are.
"""

from __future__ import annotations

import argparse
import json
import resource
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.readers import Reader, Room
from tests.fuzz.registry import READERS
from tools.measure import forks

MOST_MEMORY, MOST_SECONDS = 64 << 20, 5.0
"""For one input."""
ROOM = 2 << 30
"""Bytes of addresses for all of it, above what it begins with: what asks for more gets a ``MemoryError``."""
ROUNDS = 200
"""In which all readers take turns, so that each had its share whenever it is stopped."""


class TooLongError(BaseException):
    """An input takes too long; no reader catches it."""


@dataclass
class Row:
    """What became of the inputs of one reader; ``kinds`` counts failures by where they were raised."""

    name: str
    reader: Reader
    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    seconds: float = 0.0
    kinds: dict[str, int] = field(default_factory=dict)

    @property
    def failures(self) -> int:
        """Inputs that were neither accepted nor refused."""
        return sum(self.kinds.values())

    def fields(self) -> dict[str, object]:
        """What is printed."""
        return {
            "reader": self.name, "inputs": self.inputs, "accepted": self.accepted, "refused": self.refused,
            "failures": self.failures, "seconds": round(self.seconds, 1), "kinds": self.kinds,
        }  # fmt: skip


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _forget_peak() -> None:
    """Makes the most memory that was held what is held now, where the system can do that."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_bytes(b"5")


@contextmanager
def limits() -> Iterator[None]:
    """An alarm for what takes too long, an end to addresses, and warnings that are errors."""

    def alarm(*_: object) -> None:
        raise TooLongError(f"more than {MOST_SECONDS:.0f} s for one input")

    before = signal.signal(signal.SIGALRM, alarm)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    with suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM, hard))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def feed(row: Row, blob: bytes, folder: Path, *, valid: bool = False) -> None:
    """Gives a reader one input, and writes down what became of it."""
    row.inputs += 1
    _forget_peak()
    peak, begun = _peak(), time.perf_counter()
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, MOST_SECONDS)
            accepted = row.reader.accepts(blob)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        if not valid and _peak() - peak > MOST_MEMORY:
            raise MemoryError(f"{(_peak() - peak) >> 20} MiB more memory for one input")
        if valid and not accepted:
            raise AssertionError("a valid file is refused")
        row.accepted += accepted
        row.refused += not accepted
    except KeyboardInterrupt:
        row.inputs -= 1
        raise
    except BaseException as exc:  # SystemExit and TooLongError too
        _keep(row, blob, exc, folder)
    finally:
        row.seconds += time.perf_counter() - begun


def _keep(row: Row, blob: bytes, exc: BaseException, folder: Path) -> None:
    """Keeps the smallest input of each kind of failure: what was raised, and the last line that raised it."""
    at = traceback.extract_tb(exc.__traceback__)[-1]
    # A recursion may end anywhere.
    where = "" if isinstance(exc, RecursionError) else f" at {Path(at.filename).name}:{at.lineno}"
    kind = f"{type(exc).__name__}{where}"
    row.kinds[kind] = row.kinds.get(kind, 0) + 1
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{row.name}.{kind.replace(' at ', '.').replace(':', '.')}"
    if not path.exists() or path.stat().st_size > len(blob) or row.kinds[kind] == 1:
        path.write_bytes(blob)
        lines = "".join(traceback.format_exception(exc, limit=-12))
        path.with_name(path.name + ".traceback").write_text(lines, encoding="utf-8", errors="backslashreplace")


def fuzz(rows: list[Row], n_inputs: int, seed: int, seconds: float, folder: Path) -> None:
    """Feeds all readers in turns, until there were so many inputs, the time is over, or somebody stops it."""
    until = time.monotonic() + seconds
    total = sum(row.reader.share for row in rows)
    with suppress(KeyboardInterrupt), limits():
        for row in rows:
            for blob in row.reader.seeds:
                feed(row, blob, folder, valid=True)
        for turn in range(1, ROUNDS + 1):
            for row in rows:
                due = n_inputs * row.reader.share * turn // (total * ROUNDS)
                while row.inputs < due:
                    if time.monotonic() > until:
                        return
                    feed(row, row.reader.input(seed, row.inputs), folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reader", nargs="+", choices=READERS, default=list(READERS), metavar="NAME")
    parser.add_argument("--inputs", type=int, default=2_000_000)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--failures", type=Path, default=Path("build/fuzz"), metavar="FOLDER")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    begun = time.monotonic()
    with forks.tiny_model(None) as model, forks.room() as folder:
        rows = []
        for name in args.reader:
            (place := folder / name).mkdir()
            rows.append(Row(name, READERS[name](Room(place, Path(model)))))
        fuzz(rows, args.inputs, args.seed, args.seconds, args.failures)
    failures = sum(row.failures for row in rows)
    if args.json:
        print(json.dumps({"rows": [row.fields() for row in rows], "seconds": round(time.monotonic() - begun, 1)}))
    else:
        print(f"{'reader':<16}{'inputs':>10}{'accepted':>10}{'refused':>10}{'failures':>10}{'seconds':>9}")
        for row in rows:
            counts = "".join(f"{count:>10,}" for count in (row.inputs, row.accepted, row.refused, row.failures))
            print(f"{row.name:<16}{counts}{row.seconds:>9.1f}")
            for kind, count in row.kinds.items():
                print(f"    {count:,} {kind}")
        total = sum(row.inputs for row in rows)
        print(f"{total:,} inputs, {failures:,} failures, {time.monotonic() - begun:.0f} s", end="")
        print(f"; the files are in {args.failures}" if failures else "")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
