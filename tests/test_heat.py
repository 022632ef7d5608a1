"""When learning waits for a warm device; the sensors are files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgelm import ports
from edgelm.heat import INTERVAL_SECONDS, Heat

PORT = ports.load("rpi-4")


class Board:
    """A device whose sensors say what a test wants."""

    def __init__(self, folder: Path) -> None:
        self.zones, self.throttled, self.now = folder / "thermal", folder / "get_throttled", 0.0
        self.sensor("thermal_zone0", "cpu-thermal", 50_000)

    def sensor(self, name: str, kind: str, value: object) -> None:
        folder = self.zones / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "type").write_text(f"{kind}\n", encoding="ascii")
        (folder / "temp").write_text(f"{value}\n", encoding="ascii")

    def heat(self, port: ports.Port = PORT) -> Heat:
        return Heat(port, self.zones, self.throttled, lambda: self.now)

    def later(self, heat: Heat) -> bool:
        self.now += INTERVAL_SECONDS
        return heat.is_too_high()


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board(tmp_path)


def test_it_waits_from_75_degrees_on_until_it_is_cooler(board: Board) -> None:
    heat = board.heat()
    for milli, waits in [
        (50_000, False),
        (74_900, False),
        (75_000, True),
        (71_000, True),
        (69_900, False),
        (74_000, False),
    ]:
        board.sensor("thermal_zone0", "cpu-thermal", milli)
        assert board.later(heat) == waits, milli


def test_the_sensors_are_not_asked_all_the_time(board: Board) -> None:
    heat = board.heat()
    assert not heat.is_too_high()
    board.sensor("thermal_zone0", "cpu-thermal", 90_000)
    assert not heat.is_too_high()
    assert board.later(heat)


@pytest.mark.parametrize(
    ("bits", "waits"),
    [("0x0", False), ("0x1", False), ("0x50000", False), ("2", True), ("0x4", True), ("8", True), ("?", False)],
)
def test_what_the_firmware_says_counts_too(board: Board, bits: str, waits: bool) -> None:
    board.throttled.write_text(bits + "\n", encoding="ascii")
    assert board.heat().is_too_high() == waits


def test_the_warmest_part_of_the_processor_counts(board: Board) -> None:
    board.sensor("thermal_zone1", "cpu1-thermal", 80_000)
    board.sensor("thermal_zone2", "battery", 99_000)
    board.sensor("thermal_zone3", "cpu-broken", "no number")
    heat = board.heat()
    assert heat.celsius() == 80
    assert heat.is_too_high()


def test_without_sensors_or_limits_nothing_waits(board: Board, tmp_path: Path) -> None:
    board.sensor("thermal_zone0", "cpu-thermal", 99_000)
    assert not board.heat(replace(PORT, soft_celsius=0)).is_too_high()
    assert not Heat(PORT, tmp_path / "nowhere", tmp_path / "nothing").is_too_high()
    heat = board.heat()
    (board.zones / "thermal_zone0" / "temp").unlink()
    assert not heat.is_too_high()
