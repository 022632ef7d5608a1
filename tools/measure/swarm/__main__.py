"""A swarm in one process: Flower's strategies, called directly, over devices that each learn one text.

    python -m tools.measure.swarm gain TEXT... [--left-out NAME ...] [--rounds 3] [--no-headings]
    python -m tools.measure.swarm liars TEXT... [--left-out NAME ...] [--n-liars 2]
    python -m tools.measure.swarm epsilon TEXT... [--left-out NAME ...]
    python -m tools.measure.swarm exposure TEXT
    python -m tools.measure.swarm own-facts TEXT... --facts FILE [--rounds 1]
    python -m tools.measure.swarm scale [--preset nano] [--devices 1000] [--lying 0.2] [--strategies NAME ...]

TEXT are chats, one device each; prints one JSON object. What was learned is kept in ``--cache``. ``scale`` runs in
Flower's simulation, with devices in processes of Ray.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgelm.measure.recall import read_told
from edgelm.model import hub
from edgelm.model.config import PRESETS
from edgelm.swarm.aggregate import STRATEGIES, AggregateConfig
from edgelm.swarm.update import UpdateConfig
from tools.measure.swarm.devices import Swarm, without_headings
from tools.measure.swarm.epsilon import epsilons
from tools.measure.swarm.exposure import exposed
from tools.measure.swarm.gain import gain
from tools.measure.swarm.liars import liars
from tools.measure.swarm.own_facts import own_facts
from tools.measure.swarm.scale import Sizes, scale


def main() -> None:
    """Reads the command line, measures, prints."""
    args = _parser().parse_args()
    update = UpdateConfig(args.clip, args.noise, args.budget_bytes)
    aggregation = AggregateConfig(args.strategy, args.liars, args.rate)
    swarm = Swarm(hub.load(args.model), update, aggregation, args.cache)
    texts = {path.stem: path.read_text(encoding="utf-8") for path in args.texts}
    if args.no_headings:
        texts = {name: without_headings(text) for name, text in texts.items()}
    found = _measure(args, swarm, texts)
    print(json.dumps({"update": asdict(update), "aggregation": asdict(aggregation), **found}, indent=1))


def _measure(args: argparse.Namespace, swarm: Swarm, texts: dict[str, str]) -> dict[str, Any]:
    left_out = args.left_out or list(texts)
    if args.command == "gain":
        return gain(swarm, texts, left_out, args.rounds, args.score_characters)
    if args.command == "liars":
        return liars(swarm, texts, left_out, args.n_liars, args.score_characters, args.strategies)
    if args.command == "epsilon":
        return epsilons(swarm, texts, left_out, args.score_characters)
    if args.command == "exposure":
        return exposed(swarm, next(iter(texts.values())))
    if args.command == "own-facts":
        facts = read_told(args.facts.read_text(encoding="utf-8"), args.facts.name)
        return own_facts(swarm, texts, args.rounds, facts)
    strategies = tuple(args.strategies)
    return scale(swarm, Sizes(args.preset, args.devices, args.lying, strategies, args.wait, args.hand_out))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    made = {name: commands.add_parser(name) for name in ("gain", "liars", "epsilon", "exposure", "own-facts", "scale")}
    for command in made.values():
        _add_settings(command)
    made["gain"].add_argument("--rounds", type=int, default=3)
    made["own-facts"].add_argument("--rounds", type=int, default=1)
    made["own-facts"].add_argument("--facts", type=Path, required=True)
    made["liars"].add_argument("--n-liars", type=int, default=2)
    made["liars"].add_argument("--strategies", nargs="+", choices=STRATEGIES, default=STRATEGIES)
    sizes = Sizes()
    made["scale"].add_argument("--preset", choices=sorted(PRESETS), default=sizes.preset)
    made["scale"].add_argument("--devices", type=int, default=sizes.devices)
    made["scale"].add_argument("--lying", type=float, default=sizes.lying)
    made["scale"].add_argument("--strategies", nargs="*", choices=STRATEGIES, default=sizes.strategies)
    made["scale"].add_argument("--wait", type=float, default=sizes.wait_seconds)
    made["scale"].add_argument("--hand-out", action="store_true")
    return parser


def _add_settings(parser: argparse.ArgumentParser) -> None:
    update, aggregation = UpdateConfig(), AggregateConfig()
    parser.add_argument("texts", type=Path, nargs="*", metavar="TEXT")
    parser.add_argument("--model")
    parser.add_argument("--left-out", nargs="+")
    parser.add_argument("--cache", type=Path, default=Path("build/swarm"))
    parser.add_argument("--no-headings", action="store_true")
    parser.add_argument("--score-characters", type=int, default=0)
    parser.add_argument("--clip", type=float, default=update.clip)
    parser.add_argument("--noise", type=float, default=update.noise)
    parser.add_argument("--budget-bytes", type=int, default=update.budget_bytes)
    parser.add_argument("--strategy", choices=STRATEGIES, default=aggregation.strategy)
    parser.add_argument("--liars", type=float, default=aggregation.liars)
    parser.add_argument("--rate", type=float, default=aggregation.rate)


if __name__ == "__main__":
    main()
