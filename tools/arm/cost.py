"""What a token costs on emulated Arm: instructions executed and memory taken, and the speed that a board may then have.

python -m tools.arm cost ROOM [--cpu CPU] [--model FOLDER]

Instructions are counted by a plugin of qemu (``count.c``, compiled here), of two runs that differ in their number of
tokens, so that the start falls out. Memory is what the pages of the emulated process take, those of the
emulator left out: its addresses are moved to a range of their own. The speeds are an estimate, not a measurement.
Needs a C compiler. With ``--model``, the memory alone that another model takes in a conversation of two turns.
"""

from __future__ import annotations

import json
import math
import re
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgelm.bench.limit import bytes_per_token
from edgelm.engine.choice import ENGINES
from edgelm.graph.weighted import FLOAT
from edgelm.matrices.quantize import PRECISIONS
from edgelm.model import hub
from edgelm.model.weights import tensors
from edgelm.text.general import general_text
from tools.arm.compare import TURNS
from tools.arm.room import emulated

BASE = 0x100000000000
"""Where the addresses of the emulated process begin among those of the emulator's."""
END = BASE + (1 << 44)
FEW, MANY = 16, 80
"""Tokens of the two completions."""
SHORT, LONG = 1_000, 3_000
"""Bytes of the two texts."""
SAMPLE_SECONDS = 0.2


@dataclass(frozen=True)
class Board:
    """A board as its maker describes it: clock in GHz, memory in GB/s (transfers a second of 4 bytes)."""

    name: str
    clock: float
    bandwidth: float
    width: float
    """Instructions a cycle, at the very best, of code like this: 1 in order, 2 out of order (assumed)."""


BOARDS = {
    "cortex-a53": Board("Zero 2 W", 1.0, 3.6, 1),  # LPDDR2, 900 MT/s
    "cortex-a72": Board("Pi 4", 1.8, 12.8, 2),  # LPDDR4-3200
    "cortex-a76": Board("Pi 5", 2.4, 17.1, 2),  # LPDDR4X-4267
}


def speed_range(board: Board, instructions: float, n_bytes: float) -> tuple[float, float]:
    """Tokens a second, at least and at most, when a token takes so many instructions and bytes of memory.

    At least: one instruction a cycle, half of the published bandwidth, one after the other. At most: ``board.width``
    instructions a cycle, all of the bandwidth, at the same time.
    """
    work, traffic = instructions / (board.clock * 1e9), n_bytes / (board.bandwidth * 1e9)
    return 1 / (work + 2 * traffic), 1 / max(work / board.width, traffic)


class Emulator:
    """Runs edgelm's commands in the room, each with a data folder of its own.

    ``engine`` and ``precision`` of its methods are those of ``EDGELM_ENGINE`` and ``EDGELM_GRAPH``.
    """

    def __init__(self, room: Path, cpu: str, folder: Path) -> None:
        self._room, self._cpu, self._folder = room, cpu, folder
        self._plugin = folder / "count.so"
        source = Path(__file__).with_name("count.c")
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", str(self._plugin), str(source)], check=True)

    def instructions_per_token(self, engine: str, precision: str) -> float:
        """Of decoding."""
        command = ("complete", "The ferry", "--temperature", "0", "--threads", "1")
        return _slope([self._count(*command, "-n", str(n), of=(engine, precision)) for n in (FEW, MANY)])

    def instructions_per_learned_token(self, engine: str, precision: str) -> float:
        """Of scoring, then learning."""
        counts = []
        for n_bytes in (SHORT, LONG):
            path = self._folder / f"{n_bytes}.txt"
            path.write_text(general_text()[:n_bytes], encoding="utf-8")
            counts.append(self._count("evaluate", str(path), "--learn", "--threads", "1", of=(engine, precision)))
        return _slope(counts)

    def memory(self, engine: str, precision: str, *options: str, turns: int = 6) -> float:
        """The most megabytes that a conversation of some turns takes, sampled."""
        command, environment = self._edgelm("chat", "--json", "--temperature", "0", *options, qemu=["-B", hex(BASE)])
        environment |= self._environment(engine, precision, f"memory{options}")
        pipe = subprocess.PIPE
        largest, ended = 0.0, threading.Event()
        with subprocess.Popen(
            command, env=environment, cwd=self._room, stdin=pipe, stdout=subprocess.DEVNULL, text=True
        ) as process:

            def watch() -> None:
                nonlocal largest
                while not ended.wait(SAMPLE_SECONDS):
                    largest = max(largest, resident(process.pid))

            watcher = threading.Thread(target=watch)
            watcher.start()
            process.communicate("\n".join(TURNS[:turns]) + "\n")
            ended.set()
            watcher.join()
        return largest

    def _count(self, *args: str, of: tuple[str, str]) -> tuple[int, int]:
        """Tokens that a command handles, and instructions that it executes."""
        command, environment = self._edgelm(*args, "--json", qemu=["-plugin", str(self._plugin)])
        environment |= self._environment(*of, "counted")
        done = subprocess.run(command, env=environment, cwd=self._room, capture_output=True, text=True, check=True)
        executed = re.search(r"instructions (\d+)", done.stderr)
        assert executed, done.stderr
        return json.loads(done.stdout)["tokens"], int(executed[1])

    def _environment(self, engine: str, precision: str, home: str) -> dict[str, str]:
        folder = self._folder / f"{home}-{engine}-{precision}"
        return {"EDGELM_ENGINE": engine, "EDGELM_GRAPH": precision, "EDGELM_HOME": str(folder)}

    def _edgelm(self, *args: str, qemu: Sequence[str]) -> tuple[list[str], dict[str, str]]:
        command, environment = emulated(self._room, self._cpu, *qemu)
        return [*command, "-m", "edgelm", *args], environment


def resident(pid: int) -> float:
    """Megabytes of the pages of an emulated process, 0 where it has ended."""
    try:
        return pages(Path(f"/proc/{pid}/smaps").read_text(encoding="utf-8")) / 1000
    except OSError:
        return 0.0


def pages(smaps: str) -> int:
    """Kilobytes resident in the range of the emulated process; ``smaps`` as in proc_pid_smaps(5)."""
    kilobytes, inside = 0, False
    for line in smaps.splitlines():
        if start := re.match(r"([0-9a-f]+)-", line):
            inside = BASE <= int(start[1], 16) < END
        elif inside and line.startswith("Rss:"):
            kilobytes += int(line.split()[1])
    return kilobytes


def _slope(counts: Sequence[tuple[int, int]]) -> float:
    (few, less), (many, more) = counts
    return (more - less) / (many - few)


WAYS = (("onnx", "float32", FLOAT), ("onnx", "int8", PRECISIONS["int8"]), ("kernels", "int8", PRECISIONS["int8"]))
"""Engines and what they compute with."""


def main(room: Path, cpu: str, engines: Sequence[str] = ENGINES) -> None:
    """Prints a table, of some engines."""
    board, config = BOARDS[cpu], hub.load().config
    ways = [way for way in WAYS if way[0] in engines]
    print(f"emulated {cpu}: {board.name}, {board.clock} GHz, {board.bandwidth} GB/s\n")
    print(f"{'':24s} {'instructions':>14s} {'MB read':>9s} {'tokens/s, estimated':>22s}")
    # What adapts is float32 either way: 4 bytes a number, not 1 and a 32nd of its scale.
    adapting = [spec.shape for spec in tensors(config).values() if spec.learns and spec.blocks]
    wider = 2.875 * sum(map(math.prod, adapting))
    with tempfile.TemporaryDirectory(prefix="edgelm-") as folder:
        emulator = Emulator(room, cpu, Path(folder))
        for engine, precision, kind in ways:
            n_bytes = bytes_per_token(config, config.n_layers * config.max_awake, kind)
            _row(f"decoded, {engine} {precision}", board, emulator.instructions_per_token(engine, precision), n_bytes)
        for engine, precision, kind in ways:
            # A segment of 32 tokens reads the weights forward and backward, and writes those that it changes.
            n_bytes = bytes_per_token(config, config.n_layers * config.n_blocks, kind)
            n_bytes = 3 * (n_bytes + (0.0 if kind is FLOAT else wider)) / 32
            executed = emulator.instructions_per_learned_token(engine, precision)
            _row(f"learned, {engine} {precision}", board, executed, n_bytes)
        for engine, precision, _ in ways:
            for what, options in (("answering", ["--no-learn"]), ("learning", [])):
                taken = emulator.memory(engine, precision, *options)
                print(f"{what}, {engine} {precision}: {taken:.1f} MB", flush=True)


def memory_of(room: Path, cpu: str, model: Path) -> None:
    """Prints what a model takes that kernels answer for, in int8."""
    with tempfile.TemporaryDirectory(prefix="edgelm-") as folder:
        emulator = Emulator(room, cpu, Path(folder))
        for what, options in (("answering", ["--no-learn"]), ("learning", [])):
            taken = emulator.memory("kernels", "int8", "--model", str(model), *options, turns=2)
            print(f"{what}, {model.name}: {taken:.1f} MB", flush=True)


def _row(name: str, board: Board, instructions: float, n_bytes: float) -> None:
    least, most = speed_range(board, instructions, n_bytes)
    estimate = f"{least:,.0f} to {most:,.0f}"
    print(f"{name:24s} {instructions:14,.0f} {n_bytes / 1e6:9.2f} {estimate:>22s}", flush=True)
