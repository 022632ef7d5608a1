"""Curves as SVG: lines over an axis, with names at their ends; no library, and the same bytes for the same figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 360, 64, 150, 40, 52
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#17becf")


@dataclass(frozen=True)
class Line:
    """Points of a curve, x and y, and its name; a thick one is what the picture is about."""

    name: str
    points: Sequence[tuple[float, float]]
    thick: bool = False


def picture(title: str, x_name: str, y_name: str, lines: Sequence[Line], *, log: bool = False) -> str:
    """An SVG with these curves; y in percent, x as it is, or by its logarithm."""
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points] + [0.0]
    step = _step(max(ys) - min(ys))
    low, high = math.floor(min(ys) / step) * step, math.ceil(max(ys) / step) * step
    place = _Place((min(xs), max(xs)), (low, high), log)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="12" role="img"><title>{escape(title)}</title>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        _text(LEFT, 20, title, size=14),
        _text(LEFT + (WIDTH - LEFT - RIGHT) / 2, HEIGHT - 10, x_name, anchor="middle"),
        f'<g transform="translate(16 {HEIGHT / 2}) rotate(-90)">{_text(0, 0, y_name, anchor="middle")}</g>',
    ]
    for i in range(round((high - low) / step) + 1):
        y = low + i * step
        dark = "#333" if abs(y) < step / 2 else "#ddd"
        parts.append(f'<path d="M{LEFT} {place.y(y):.1f}H{WIDTH - RIGHT}" stroke="{dark}"/>')
        parts.append(_text(LEFT - 8, place.y(y) + 4, f"{100 * y:g} %", anchor="end"))
    for x in _marks(xs, log):
        parts.append(_text(place.x(x), HEIGHT - BOTTOM + 18, f"{x:,.10g}", anchor="middle"))
    ends = _apart([place.y(line.points[-1][1]) + 4 for line in lines])
    for i, (line, end) in enumerate(zip(lines, ends, strict=True)):
        colour = COLOURS[i % len(COLOURS)]
        path = " ".join(f"{place.x(x):.1f},{place.y(y):.1f}" for x, y in line.points)
        width = 3 if line.thick else 1.2
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"/>')
        parts += [
            f'<circle cx="{place.x(x):.1f}" cy="{place.y(y):.1f}" r="3" fill="{colour}"/>' for x, y in line.points
        ]
        parts.append(_text(WIDTH - RIGHT + 10, end, line.name, colour=colour))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _text(x: float, y: float, words: str, *, anchor: str = "start", colour: str = "#222", size: int = 12) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} fill="{colour}" font-size="{size}">{escape(words)}</text>'


def _step(span: float) -> float:
    """A round distance of lines, so that there are four to ten."""
    power = 10.0 ** math.floor(math.log10(max(span, 1e-6) / 4))
    return next(power * k for k in (1, 2, 5, 10) if span / (power * k) <= 8)


def _marks(xs: Sequence[float], log: bool) -> list[float]:
    """Where the axis is written on: at whole powers of ten, or at every value."""
    if not log:
        return sorted(set(xs))
    powers = range(math.ceil(math.log10(min(xs)) - 1e-9), math.floor(math.log10(max(xs)) + 1e-9) + 1)
    return [10.0**power for power in powers]


def _apart(ends: Sequence[float]) -> list[float]:
    """Heights of names that do not lie on each other."""
    moved, last = list(ends), -math.inf
    for i in sorted(range(len(ends)), key=lambda i: ends[i]):
        moved[i] = last = max(ends[i], last + 14)
    return moved


class _Place:
    """Where values lie in the picture."""

    def __init__(self, xs: tuple[float, float], ys: tuple[float, float], log: bool) -> None:
        self._log, self._ys = log, ys
        self._xs = (math.log(xs[0]), math.log(xs[1])) if log else xs

    def x(self, value: float) -> float:
        value = math.log(value) if self._log else value
        return LEFT + 12 + (WIDTH - LEFT - RIGHT - 24) * (value - self._xs[0]) / max(self._xs[1] - self._xs[0], 1e-9)

    def y(self, value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (self._ys[1] - value) / max(self._ys[1] - self._ys[0], 1e-9)
