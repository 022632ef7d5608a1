"""A round of many devices in Flower's simulation: what the server makes of their updates, bytes, seconds and memory.

The server, its strategies and what devices do with messages are edgelm's own; what a device learned is drawn at random
(``tools.measure.swarm.simulated``). Needs Ray: pip install 'flwr[simulation]'.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from edgelm.model.weights import Weights
from edgelm.runtime import EngineOptions
from edgelm.swarm.aggregate import aggregate_round
from edgelm.swarm.flower import (
    Message,
    RecordDict,
    get_all_nested_objects,
    message_to_proto,
    remove_content_from_message,
)
from edgelm.swarm.server import Gathered, ServeConfig, Server
from edgelm.swarm.update import Received, norm_of, nothing
from tools.measure.swarm.devices import Swarm
from tools.measure.swarm.simulated import HONEST, Crowd, Plan, drawn, write_random

WORKERS, STORE_BYTES = 2, 100 << 20
"""Processes of Ray that devices run in, each with one core, and memory that they share with the server's."""
START_SECONDS = 120
"""How long Ray may take until the first device answers."""


@dataclass(frozen=True)
class Sizes:
    """How large a measure is.

    Attributes
    ----------
    preset : str
        Sizes of the model.
    devices : int
    lying : float
        Share of the devices that send noise.
    strategies : tuple of str
        Are compared on the updates of the one round; there may be none.
    wait_seconds : float
        How long the server waits for answers; since some devices never answer, the round lasts as long.
    hands_out : bool
        Whether all get the layer then that the last strategy makes, or without any the mean of what is honest.
    """

    preset: str = "nano"
    devices: int = 1000
    lying: float = 0.2
    strategies: tuple[str, ...] = ("mean", "trimmed-mean", "multi-krum")
    wait_seconds: float = 200.0
    hands_out: bool = False


class Traffic:
    """Counts what goes through one of Flower's grids from now on, in the form in which it goes over a network.

    That is the message without its content and the objects that it is made of; heads of HTTP, questions and signs of
    life are no part of it (``tools.measure.swarm_wire`` counts those).

    Attributes
    ----------
    down, up : list of int
        Bytes of each message to a device, and of each answer.
    last : float
        When the last answer came, by the monotonic clock.
    """

    def __init__(self, grid: Any) -> None:
        self.down: list[int] = []
        self.up: list[int] = []
        self.last = time.monotonic()
        self._push, self._pull = grid.push_messages, grid.pull_messages
        grid.push_messages, grid.pull_messages = self._pushed, self._pulled

    def _pushed(self, messages: Any) -> Any:
        self.down += map(_bytes_of, messages)
        return self._push(messages)

    def _pulled(self, message_ids: Any) -> Any:
        answers = self._pull(message_ids)
        if answers:
            self.last = time.monotonic()
            self.up += [_bytes_of(answer) for answer in answers if answer.has_content()]
        return answers


def _bytes_of(message: Any) -> int:
    objects = get_all_nested_objects(message).values()
    bare = message_to_proto(remove_content_from_message(message)).ByteSize()
    return bare + sum(len(part.deflate()) for part in objects)


class Measured:
    """The server of a simulation, and what was found.

    Attributes
    ----------
    found : dict
        Ready for JSON, once the simulation has ended.
    """

    def __init__(self, swarm: Swarm, sizes: Sizes, plan: Plan) -> None:
        self._swarm, self._sizes, self._plan = swarm, sizes, plan
        self.found: dict[str, Any] = {}

    def lead(self, grid: Any) -> None:
        """One round."""
        sizes, swarm = self._sizes, self._swarm
        config = ServeConfig(
            self._plan.folder / "server", devices=sizes.devices, wait_seconds=sizes.wait_seconds, update=swarm.update
        )
        options = EngineOptions(model=str(self._plan.model))
        server = Server(options, config, np.random.default_rng(0), lambda _: None)
        _wait_for(grid, sizes.devices)
        # In the order in which Flower has made them: it is by that number that a device knows which it is.
        roles = dict(zip(grid.state.nodes, self._plan.roles(), strict=True))
        traffic, begun = Traffic(grid), time.monotonic()
        gathered = server.gather(grid)
        self.found = {
            "preset": sizes.preset, "devices": sizes.devices, "lying": sizes.lying,
            **_answers(gathered, traffic, begun), "mb_with_all_updates": _peak_mb(),
        }  # fmt: skip
        _say(self.found)
        self.found["aggregated"] = self._aggregated(server, gathered, roles)
        if sizes.hands_out:
            self._hand_out(server, grid)
        server.close()

    def _aggregated(self, server: Server, gathered: Gathered, roles: Mapping[int, str]) -> list[dict[str, Any]]:
        """What each strategy makes of the updates, with the seconds of one core; the layer is that of the last one."""
        _, common, sizes = drawn(self._plan.model)
        truth = {name: sizes[name] * common[name] for name in common}
        honest = _mean([update for node_id, update in gathered.updates.items() if roles[node_id] == HONEST], server)
        rows, total = [], honest
        for name in self._sizes.strategies:
            begun = time.thread_time()
            config = replace(self._swarm.aggregation, strategy=name)
            total = aggregate_round(list(gathered.updates.values()), server.model, config)
            rows.append({
                "strategy": name, "core_seconds": round(time.thread_time() - begun, 1), "peak_mb": _peak_mb(),
                "error": round(_distance(total, honest) / norm_of(honest), 4),
                "cosine_to_honest": round(_cosine(total, honest), 4),
                "cosine_to_common": round(_cosine(total, truth), 4),
            })  # fmt: skip
            _say(rows[-1])
        rate = np.float32(self._swarm.aggregation.rate)
        server.shared.keep(server.shared.packed({name: rate * array for name, array in total.items()}))
        return rows

    def _hand_out(self, server: Server, grid: Any) -> None:
        """Gives the layer to all: the devices that answer have read it and compared it with what edgelm writes."""
        traffic, begun = Traffic(grid), time.monotonic()
        seen = server.give(grid)
        self.found["handed_out"] = {
            "bytes_of_layer": len(server.shared.blob), "seen": seen, "down_one": max(traffic.down),
            "down_all": sum(traffic.down), "seconds": round(traffic.last - begun, 1), "peak_mb": _peak_mb(),
        }  # fmt: skip
        _say(self.found["handed_out"])


def scale(swarm: Swarm, sizes: Sizes) -> dict[str, Any]:
    """Simulates a round; what was found, ready for JSON.

    Raises
    ------
    RuntimeError
        Flower's simulation does not run.
    """
    with TemporaryDirectory(prefix="edgelm-", ignore_cleanup_errors=True) as folder:
        plan = Plan(Path(folder), sizes.devices, sizes.lying, swarm.update)
        write_random(plan.model, sizes.preset, swarm.model)
        measured = Measured(swarm, sizes, plan)
        _simulate(measured, plan)
        return measured.found


def _simulate(measured: Measured, plan: Plan) -> None:
    """Flower's simulation of a plan, in this process and in those of Ray."""
    # Flower does not keep Ray from telling how it is used, nor from a tip at every start.
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0")
    from flwr.serverapp import ServerApp
    from flwr.simulation import run_simulation

    server = ServerApp()
    server.main()(lambda grid, context: measured.lead(grid))
    config = {
        "init_args": {
            "address": "local", "num_cpus": WORKERS, "object_store_memory": STORE_BYTES,
            "_temp_dir": str(plan.folder / "ray"),
        },
        "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
    }  # fmt: skip
    run_simulation(server, Crowd(plan).app(), plan.devices, backend_config=config)


def _wait_for(grid: Any, n_devices: int) -> None:
    """Until all devices are there and one answers, so that what Ray takes to start is no part of a round.

    Raises
    ------
    RuntimeError
        None does.
    """
    while len(node_ids := list(grid.get_node_ids())) < n_devices:
        time.sleep(0.1)
    asking = Message(RecordDict(), node_ids[0], "query", ttl=START_SECONDS, group_id="")
    if not [answer for answer in grid.send_and_receive([asking], timeout=START_SECONDS) if answer.has_content()]:
        raise RuntimeError("Flower's simulation does not start")


def _answers(gathered: Gathered, traffic: Traffic, begun: float) -> dict[str, Any]:
    """What came back of a round that began then."""
    lines: dict[str, int] = {}
    for line in gathered.refused.values():
        lines[line] = lines.get(line, 0) + 1
    counts = {"updates": len(gathered.updates), "refused": len(gathered.refused), "nothing": gathered.nothing}
    return {
        **counts, "no_answer": gathered.asked - sum(counts.values()), "refused_lines": lines,
        "up_one": max(traffic.up, default=0), "up_all": sum(traffic.up),
        "down_one": max(traffic.down), "down_all": sum(traffic.down),
        "seconds_to_last_answer": round(traffic.last - begun, 1),
    }  # fmt: skip


def _mean(updates: list[Received], server: Server) -> Weights:
    """The plain mean, added up here: what strategies are compared with."""
    total = nothing(server.model.config)
    for update in updates:
        for name, block in update.parts:
            total[name][... if block is None else block] += update.part(name, block) / np.float32(len(updates))
    return total


def _distance(one: Weights, other: Weights) -> float:
    return norm_of({name: one[name] - other[name] for name in one})


def _cosine(one: Weights, other: Weights) -> float:
    product = sum(float((one[name].astype(np.float64) * other[name]).sum()) for name in one)
    return product / max(norm_of(one) * norm_of(other), 1e-300)


def _peak_mb() -> float:
    """The most memory that this process has had by now."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def _say(found: Mapping[str, Any]) -> None:
    print(dict(found), file=sys.stderr, flush=True)
