"""What kind of device this is."""

from __future__ import annotations

import platform
from pathlib import Path

_BOARDS = {"Raspberry Pi Zero 2": "rpi-zero-2w", "Raspberry Pi 4": "rpi-4", "Raspberry Pi 5": "rpi-5"}


def detect(device_tree: Path = Path("/proc/device-tree/model")) -> str:
    """Name of the port that fits this device: a board, else ``generic-`` and its architecture."""
    try:
        board = device_tree.read_text(encoding="ascii", errors="replace")
    except OSError:
        board = ""
    for prefix, port in _BOARDS.items():
        if board.startswith(prefix):
            return port
    machine = platform.machine().lower()
    return {"x86_64": "x86-64", "amd64": "x86-64", "arm64": "generic-aarch64", "aarch64": "generic-aarch64"}.get(
        machine, f"generic-{machine or 'unknown'}"
    )


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """What the processor, or the board that it is on, calls itself."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return fields.get("model name") or fields.get("Model") or platform.processor() or platform.machine()
