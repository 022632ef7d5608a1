"""A wheel for 64-bit Arm, run on this machine: an emulated Raspberry Pi in a folder.

python -m tools.arm make ROOM WHEEL...               Debian's Python and what the wheel needs, for arm64
python -m tools.arm run [--cpu CPU] ROOM ARGS...     its Python, for example: run ROOM -m edgelm info
python -m tools.arm compare [--short] ROOM           the same log there and here (tools/arm/compare.py)
python -m tools.arm cost [--cpu CPU] ROOM            instructions a token, memory (tools/arm/cost.py)

Needs qemu-user, apt and dpkg (Debian: apt install qemu-user), no root. What is emulated computes what the device would;
it says nothing of speed, but what can be counted.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from edgelm.engine.choice import ENGINES
from tools.arm import compare, cost
from tools.arm.room import FEATURES, emulated, make


def main() -> None:
    """Makes the folder, or runs in it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    making, running = commands.add_parser("make"), commands.add_parser("run")
    making.add_argument("room", type=Path)
    making.add_argument("wheels", type=Path, nargs="+")
    comparing = commands.add_parser("compare")
    costing = commands.add_parser("cost")
    for each in (running, comparing, costing):
        each.add_argument("room", type=Path)
        each.add_argument("--cpu", choices=FEATURES, default="cortex-a72")
    costing.add_argument("--engine", choices=ENGINES, action="append", help="this engine alone")
    costing.add_argument("--model", type=Path, help="the memory of this model alone, two turns")
    comparing.add_argument("--short", action="store_true")
    running.add_argument("args", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    if given.command == "make":
        make(given.room.resolve(), [wheel.resolve() for wheel in given.wheels])
    elif given.command == "compare":
        there = [sys.executable, "-m", "tools.arm", "run", "--cpu", given.cpu, str(given.room.resolve())]
        compare.main(there, short=given.short)
    elif given.command == "cost" and given.model:
        cost.memory_of(given.room.resolve(), given.cpu, given.model.resolve())
    elif given.command == "cost":
        cost.main(given.room.resolve(), given.cpu, given.engine or ENGINES)
    else:
        command, environment = emulated(given.room.resolve(), given.cpu)
        sys.exit(subprocess.call([*command, *given.args], env=environment, cwd=given.room))


if __name__ == "__main__":
    main()
