"""What kind of device this is, and what it has."""

from __future__ import annotations

import functools
import platform
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgelm.errors import DeviceError

FOLDER = Path(__file__).parent / "data" / "ports"
"""In a checkout a link to the folder ``ports`` at its top, whose files setuptools follows into the wheel."""
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
_GENERIC = {"x86_64": "x86-64", "aarch64": "generic-aarch64"}
_DEVICE_TREE, _CPUINFO, _MEMINFO = Path("/proc/device-tree/model"), Path("/proc/cpuinfo"), Path("/proc/meminfo")


@dataclass(frozen=True)
class Port:
    """A kind of device.

    Attributes
    ----------
    name, title, board, cpu : str
        ``board`` is how the device tree's model begins; empty for any board.
    level : str
        Level of ``ports/levels.toml`` whose kernels fit best.
    cores, threads : int
        ``threads`` read a long text, or compute an operator of ONNX Runtime; learning takes one more.
    memory_mb : int
        Budget of the process; 0 where none is known.
    soft_celsius, hard_celsius : int
        The clock is lowered from the first on, and as far as it goes at the second.
    preset : str
        The largest bundled model for it.
    """

    name: str
    title: str
    cpu: str
    level: str
    cores: int
    threads: int
    memory_mb: int
    soft_celsius: int
    hard_celsius: int
    preset: str
    board: str = ""


def load(name: str, folder: Path = FOLDER) -> Port:
    """The port of a file ``name.toml``."""
    return Port(name=name, **_read(folder / f"{name}.toml"))


def names(folder: Path = FOLDER) -> list[str]:
    """All ports that have a file."""
    return sorted(path.stem for path in folder.glob("*.toml") if path.stem != "levels")


def levels(folder: Path = FOLDER) -> dict[str, dict[str, Any]]:
    """What kernels are compiled for, the best first: triple, cpu, features, needs of each."""
    return dict(_read(folder / "levels.toml"))


def detect(device_tree: Path = _DEVICE_TREE, machine: str | None = None) -> Port:
    """The port that fits this device: that of its board, else that of its architecture."""
    board = _text(device_tree)
    for name in names():
        port = load(name)
        if port.board and board.startswith(port.board):
            return port
    machine = _machine(machine)
    if machine in _GENERIC:
        return load(_GENERIC[machine])
    unknown = machine or "unknown"
    return Port(f"generic-{unknown}", unknown, unknown, "", 1, 1, 0, 0, 0, "small")


def level_of_this_processor(
    among: Iterable[str], cpuinfo: Path = _CPUINFO, machine: str | None = None, system: str | None = None
) -> str | None:
    """The best of some levels whose instructions this processor has, if any."""
    there, machine = set(among), _machine(machine)
    if not there or (system or platform.system()) != "Linux":
        return None
    flags = _flags(_text(cpuinfo))
    for name, level in levels().items():
        if name in there and level["triple"].startswith(machine + "-") and flags.issuperset(level["needs"]):
            return name
    return None


def multiplies_integers(cpuinfo: Path = _CPUINFO, machine: str | None = None, system: str | None = None) -> bool:
    """Whether products of 8-bit integers are faster here than those of float32.

    They need the dot products of ARMv8.2, which the Raspberry Pi 5 has and its forerunners have not, or AVX2.
    """
    if (system or platform.system()) != "Linux":
        return True
    needed = {"x86_64": "avx2", "aarch64": "asimddp"}.get(_machine(machine))
    return needed in _flags(_text(cpuinfo))


def cpu_name(cpuinfo: Path = _CPUINFO) -> str:
    """What the processor, or the board that it is on, calls itself."""
    fields = {name.strip(): value.strip() for name, _, value in (x.partition(":") for x in _text(cpuinfo).splitlines())}
    return fields.get("model name") or fields.get("Model") or platform.processor() or platform.machine()


def check_memory(needed: int, what: str, port: Port, meminfo: Path = _MEMINFO) -> None:
    """Refuses what this device has no room for.

    Parameters
    ----------
    needed : int
        Bytes.
    what : str
        What needs them, for the message.
    port : Port
        Its budget is not exceeded.
    meminfo : Path
        Where the system says how much is free; where it does not, the budget alone counts.

    Raises
    ------
    DeviceError
    """
    available = next((line for line in _text(meminfo).splitlines() if line.startswith("MemAvailable:")), "")
    kibibytes = available.partition(":")[2].strip().removesuffix(" kB")
    if kibibytes.isdigit() and needed > int(kibibytes) * 1024:
        free = int(kibibytes) * 1024 // 1_000_000
        raise DeviceError(
            f"{what} needs {_megabytes(needed)} MB of memory, {free} MB are free; "
            "end other programs, or use a smaller model"
        )
    if port.memory_mb and needed > port.memory_mb * 1_000_000:
        raise DeviceError(
            f"{what} needs {_megabytes(needed)} MB of memory, edgelm may take {port.memory_mb} MB on {port.title} "
            f"(port {port.name}); use a smaller model"
        )


def _megabytes(n: int) -> int:
    return -(-n // 1_000_000)


@functools.cache
def _read(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def _machine(machine: str | None) -> str:
    found = (platform.machine() if machine is None else machine).lower()
    return _MACHINES.get(found, found)


def _flags(cpuinfo: str) -> set[str]:
    """Those of the first processor; a core of another kind in the same device can do the same."""
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return set(value.split())
    return set()
