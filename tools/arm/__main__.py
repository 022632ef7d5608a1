"""A wheel for 64-bit Arm, run on this machine: an emulated Raspberry Pi in a folder.

python -m tools.arm make ROOM WHEEL...               Debian's Python and what the wheel needs, for arm64
python -m tools.arm run [--cpu CPU] ROOM ARGS...     its Python, for example: run ROOM -m edgelm info
python -m tools.arm compare [--cpu CPU] ROOM         the same life there and here (tools/arm/compare.py)

Needs qemu-user, apt and dpkg (Debian: apt install qemu-user), no root. What is emulated computes what the device would;
it says nothing of speed.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from pathlib import Path

from tools.arm import compare

DISTRIBUTION, PYTHON = "bookworm", "3.11"
FEATURES = {
    "cortex-a53": "fp asimd evtstrm crc32 cpuid",
    "cortex-a72": "fp asimd evtstrm crc32 cpuid",
    "cortex-a76": "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp",
}
"""Lines of /proc/cpuinfo of the Raspberry Pi Zero 2 W, 4 and 5."""
PARTS = {"cortex-a53": "0xd03", "cortex-a72": "0xd08", "cortex-a76": "0xd0b"}


def make(room: Path, wheels: list[Path]) -> None:
    """Fills ``room`` with ``root``, Debian's files, and ``site``, Python's packages."""
    room.mkdir(parents=True, exist_ok=True)
    _unpack_debian(room)
    # pip runs here and chooses for there.
    target = ["--target", str(room / "site"), "--upgrade", "--only-binary=:all:", "--python-version", PYTHON]
    for tag in ("manylinux_2_28_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64"):
        target += ["--platform", tag]
    _run(sys.executable, "-m", "pip", "install", "-q", *target, *map(str, wheels))


def _unpack_debian(room: Path) -> None:
    """Debian's Python and all it depends on, by an apt that knows of no other system."""
    for name in ("state/lists/partial", "cache/archives/partial", "etc", "root"):
        (room / name).mkdir(parents=True, exist_ok=True)
    sources, status = room / "etc" / "sources.list", room / "state" / "status"
    sources.write_text(f"deb [trusted=yes] http://deb.debian.org/debian {DISTRIBUTION} main\n", encoding="ascii")
    status.touch()
    places = {
        "APT::Architecture": "arm64", "APT::Architectures": "arm64", "APT::Sandbox::User": "",
        "Dir::State": room / "state", "Dir::State::status": status, "Dir::Cache": room / "cache",
        "Dir::Etc::SourceList": sources, "Dir::Etc::SourceParts": "/dev/null", "Debug::NoLocking": "true",
    }  # fmt: skip
    apt = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in places.items())]
    _run(*apt, "update")
    _run(*apt, "install", "--download-only", "--no-install-recommends", "-y", f"python{PYTHON}", "libstdc++6")
    for package in sorted((room / "cache" / "archives").glob("*.deb")):
        _run("dpkg", "-x", str(package), str(room / "root"))


def run(room: Path, cpu: str, args: list[str]) -> int:
    """Runs the emulated Python; its exit code."""
    root = (room / "root").resolve()
    # Packages look for the processor in /proc/cpuinfo, which qemu reads from the root first.
    (root / "proc").mkdir(exist_ok=True)
    lines = f"Features\t: {FEATURES[cpu]}\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: {PARTS[cpu]}\n"
    cores = "".join(f"processor\t: {core}\n{lines}\n" for core in range(os.cpu_count() or 1))
    (root / "proc" / "cpuinfo").write_text(cores, encoding="ascii")
    environment = os.environ | {"PYTHONPATH": str((room / "site").resolve()), "PYTHONHOME": str(root / "usr")}
    emulator = ["qemu-aarch64", "-cpu", cpu, "-L", str(root)] if platform.machine() != "aarch64" else []
    # In the room: a checkout in the present folder would be imported before the wheel.
    python = str(root / "usr" / "bin" / f"python{PYTHON}")
    return subprocess.call([*emulator, python, *args], env=environment, cwd=room)


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


def main() -> None:
    """Makes the folder, or runs in it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    making, running = commands.add_parser("make"), commands.add_parser("run")
    making.add_argument("room", type=Path)
    making.add_argument("wheels", type=Path, nargs="+")
    comparing = commands.add_parser("compare")
    for each in (running, comparing):
        each.add_argument("room", type=Path)
        each.add_argument("--cpu", choices=FEATURES, default="cortex-a72")
    running.add_argument("args", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    if given.command == "make":
        make(given.room.resolve(), [wheel.resolve() for wheel in given.wheels])
    elif given.command == "compare":
        compare.main([sys.executable, "-m", "tools.arm", "run", "--cpu", given.cpu, str(given.room.resolve())])
    else:
        sys.exit(run(given.room.resolve(), given.cpu, given.args))


if __name__ == "__main__":
    main()
