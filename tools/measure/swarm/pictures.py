"""The pictures of docs, from what the measures printed.

python -m tools.measure.swarm.pictures GAIN.json [EPSILON.json] --out docs
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Line:
    """Points of a curve, x and y, and its name; a thick one is what the picture is about."""

    name: str
    points: Sequence[tuple[float, float]]
    thick: bool = False


def picture(title: str, x_name: str, y_name: str, lines: Sequence[Line], *, log: bool = False) -> str:
    """An SVG with these curves, by matplotlib; y in percent, x as it is, or by its logarithm."""
    import matplotlib

    matplotlib.use("Agg")
    # The same bytes for the same figures, and text that stays text.
    matplotlib.rcParams.update({"svg.hashsalt": "edgelm", "svg.fonttype": "none"})
    from matplotlib import pyplot as plt
    from matplotlib.ticker import PercentFormatter

    figure, axes = plt.subplots(figsize=(6.4, 3.6))
    for line in lines:
        axes.plot(*zip(*line.points, strict=True), label=line.name, linewidth=2.5 if line.thick else 1, marker=".")
    axes.set(title=title, xlabel=x_name, ylabel=y_name, xscale="log" if log else "linear")
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.axhline(0, color="#888", linewidth=0.6)
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    out = StringIO()
    figure.savefig(out, format="svg", bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    return out.getvalue()


def of_gain(found: dict[str, Any]) -> str:
    """Gain of each left-out device, and general text, by rounds."""
    names = list(dict.fromkeys(row["left_out"] for row in found["rows"]))
    lines = [
        Line(name, [(0, 0), *((row["round"], row["gain"]["chat"]) for row in found["rows"] if row["left_out"] == name)])
        for name in names
    ]
    rounds = found["rounds"]
    lines.append(Line("mean", [(0, 0), *((row["round"], row["gain"]["chat"]) for row in rounds)], thick=True))
    lines.append(Line("general text", [(0, 0), *((row["round"], -row["general_cost"]) for row in rounds)], thick=True))
    return picture("Fewer bits for a device that has learned nothing", "round", "fewer bits per byte", lines)


def of_epsilon(found: dict[str, Any]) -> str:
    """Gain, and general text, by the devices of a round, for each noise multiplier."""
    rows, lines = [row for row in found["gains"] if row["noise"]], []
    for multiplier in found["multipliers"]:
        told = next(
            row["epsilon"] for row in found["epsilons"]
            if row["multiplier"] == multiplier and row["rounds"] == 1 and row["rate"] == 1
        )  # fmt: skip
        points = [(row["devices"][str(multiplier)], row["gain"]) for row in reversed(rows) if row["gain"] > -0.02]
        lines.append(Line(f"epsilon {told:.1f} a round", points))
    return picture("Gain under noise", "devices of a round", "fewer bits per byte", lines, log=True)


def main() -> None:
    """Reads figures, writes pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gain", type=Path)
    parser.add_argument("epsilon", type=Path, nargs="?")
    parser.add_argument("--out", type=Path, default=Path("docs"))
    args = parser.parse_args()
    (args.out / "swarm-gain.svg").write_text(of_gain(json.loads(args.gain.read_text())), encoding="utf-8")
    if args.epsilon:
        (args.out / "swarm-epsilon.svg").write_text(of_epsilon(json.loads(args.epsilon.read_text())), encoding="utf-8")


if __name__ == "__main__":
    main()
