"""An emulated Raspberry Pi in a folder: Debian's Python for arm64, and the packages that a wheel needs."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

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
    # The wheel alone would leave out ONNX Runtime, which is compared with.
    _run(sys.executable, "-m", "pip", "install", "-q", *target, *(f"{wheel}[onnx]" for wheel in wheels))


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


def emulated(room: Path, cpu: str, *options: str) -> tuple[list[str], dict[str, str]]:
    """The command of the emulated Python, with more options for qemu, and its environment.

    To be run in the room: a checkout in the present folder would be imported before the wheel.
    """
    root = (room / "root").resolve()
    # Packages look for the processor in /proc/cpuinfo, which qemu reads from the root first.
    (root / "proc").mkdir(exist_ok=True)
    lines = f"Features\t: {FEATURES[cpu]}\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: {PARTS[cpu]}\n"
    cores = "".join(f"processor\t: {core}\n{lines}\n" for core in range(os.cpu_count() or 1))
    (root / "proc" / "cpuinfo").write_text(cores, encoding="ascii")
    environment = os.environ | {"PYTHONPATH": str((room / "site").resolve()), "PYTHONHOME": str(root / "usr")}
    emulator = ["qemu-aarch64", "-cpu", cpu, "-L", str(root), *options] if platform.machine() != "aarch64" else []
    return [*emulator, str(root / "usr" / "bin" / f"python{PYTHON}")], environment


def _run(*command: str) -> None:
    subprocess.run(command, check=True)
