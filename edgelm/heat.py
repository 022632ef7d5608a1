"""Whether the device is so warm that learning should wait; read from where Linux and the Raspberry Pi say it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from edgelm.ports import Port

ZONES = Path("/sys/class/thermal")
THROTTLED = Path("/sys/devices/platform/soc/soc:firmware/get_throttled")
"""What ``vcgencmd get_throttled`` prints."""
MARGIN_CELSIUS = 5
"""So far below the temperature at which the clock is lowered learning stops, and again so far below that it goes on."""
INTERVAL_SECONDS = 1.0
_CAPPED, _LOWERED, _SOFT_LIMIT = 1 << 1, 1 << 2, 1 << 3


class Heat:
    """Says whether to wait, and keeps to it until the device has cooled a little.

    Parameters
    ----------
    port : Port
        One that knows no temperature never waits.
    zones, throttled : Path
        Where the sensors are.
    clock : callable
        Seconds; the sensors are read once in ``INTERVAL_SECONDS``.
    """

    def __init__(
        self, port: Port, zones: Path = ZONES, throttled: Path = THROTTLED,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._stop = port.soft_celsius - MARGIN_CELSIUS if port.soft_celsius else None
        self._throttled, self._clock = throttled, clock
        self._sensors = [path / "temp" for path in sorted(zones.glob("thermal_zone*")) if _is_processor(path)]
        self._last, self._hot = float("-inf"), False

    def is_too_high(self) -> bool:
        """Whether learning should wait now."""
        now = self._clock()
        if self._stop is not None and now - self._last >= INTERVAL_SECONDS:
            self._last = now
            limit = self._stop - MARGIN_CELSIUS if self._hot else self._stop
            self._hot = self.celsius() >= limit or self._is_throttled()
        return self._hot

    def celsius(self) -> float:
        """The warmest sensor of the processor; far below zero if there is none."""
        return max((_number(path, 10, -273_000) / 1000 for path in self._sensors), default=-273.0)

    def _is_throttled(self) -> bool:
        # Too little voltage is no heat, and what happened since the start is over.
        return bool(_number(self._throttled, 16, 0) & (_CAPPED | _LOWERED | _SOFT_LIMIT))


def _is_processor(zone: Path) -> bool:
    try:
        return (zone / "type").read_text(encoding="ascii", errors="replace").startswith(("cpu", "soc"))
    except OSError:
        return False


def _number(path: Path, base: int, default: int) -> int:
    """A sensor may be gone, or say that it cannot be read now."""
    try:
        return int(path.read_text(encoding="ascii", errors="replace"), base)
    except (OSError, ValueError):
        return default
