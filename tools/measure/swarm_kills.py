"""Kills the server of a swarm and its devices at random moments, and looks for what was lost.

python -m tools.measure.swarm_kills [--kills 60] [--devices 7] [--pause 10] [--model NAME|PATH] [--seed 0] [--json]

Processes are those that people start: ``swarm serve`` and, for each device, ``swarm join``; each is killed as a loss of
power would end it and started anew at once. Meanwhile owners talk. A round is acknowledged when the server prints it, a
turn when ``chat --json`` does. At the end two more rounds must come of themselves, every acknowledged round be in the
layer that the server keeps, every acknowledged turn in its log, and the weights of every profile those of a replay from
nothing. Ends with exit code 1 otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from edgelm.config import LearnConfig
from edgelm.learn.adaptation import Adaptation
from edgelm.log.packs import load_layers, read_card
from edgelm.log.profile import Profile
from edgelm.model import hub
from edgelm.swarm.server import LAYER_FILE
from tools.measure.forks import room, tiny_model
from tools.measure.kills import sentence

PATIENCE_SECONDS = 300.0
EVERY = ("--every", "0.2")
TALK_EVERY = 6
"""Kills between two turns that an owner says."""


class Member:
    """A process of the swarm that is started again whenever it was killed; what it says is kept.

    Parameters
    ----------
    home : Path
        Its ``EDGELM_HOME``.
    args : sequence of str
        After ``edgelm swarm``.
    """

    def __init__(self, home: Path, *args: str) -> None:
        self.home, self._args = home, args
        self.said: list[dict[str, Any]] = []
        self.start()

    def start(self) -> None:
        """Starts it; what it says is read by a thread."""
        command = [sys.executable, "-m", "edgelm", "swarm", *self._args, "--json"]
        environment = {**os.environ, "EDGELM_HOME": str(self.home)}
        with (self.home / "errors").open("ab") as errors:
            self.process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=errors)
        threading.Thread(target=self._listen, args=(self.process,), daemon=True).start()

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if line.endswith(b"\n"):
                self.said.append(json.loads(line))

    def kill(self, number: int = signal.SIGKILL) -> int:
        """Ends it with a signal; returns its exit code."""
        self.process.send_signal(number)
        return self.process.wait(60)


class Swarm:
    """A server and its devices, and what has to be there at the end."""

    def __init__(self, folder: Path, model: str, n_devices: int, rng: random.Random) -> None:
        self._model, self._rng = model, rng
        self.problems: list[str] = []
        self.killed: Counter[str] = Counter()
        self.turns: dict[Path, list[str]] = {}
        for i in range(n_devices):
            (folder / f"device-{i}").mkdir()
            self.say(folder / f"device-{i}")
        (folder / "server").mkdir()
        serve = ("serve", *EVERY, "--wait", "40", "--devices-per-round", str(n_devices), "--model", model)
        self.server = Member(folder / "server", *serve, "--port", "0")
        address = self._await(lambda: self.server.said and self.server.said[0]["url"]).partition("//")[2]
        self.server._args = (*serve, "--port", address.rpartition(":")[2])
        self.devices = [Member(home, "join", address, *EVERY, "--always", "--model", model) for home in self.turns]

    def _await(self, found: Any) -> Any:
        until = time.monotonic() + PATIENCE_SECONDS
        while not (value := found()):
            if time.monotonic() > until:
                raise SystemExit("it waited in vain")
            time.sleep(0.1)
        return value

    def say(self, home: Path) -> None:
        """The owner of a device says something, while it may be taking part in a round."""
        text = sentence(self._rng, 12)
        command = [sys.executable, "-m", "edgelm", "chat", "--json", "--max-tokens", "1", "--model", self._model]
        for _ in range(20):
            environment = {**os.environ, "EDGELM_HOME": str(home)}
            done = subprocess.run(command, input=text.encode() + b"\n", capture_output=True, env=environment)
            if done.returncode == 0:
                self.turns.setdefault(home, []).append(text)
                return
            # Its profile is written to for a moment at the end of a round.
            if b"in use" not in done.stderr:
                self.problems.append(f"{home.name}: {done.stderr.decode()[-200:]}")
                return
            time.sleep(0.2)
        self.problems.append(f"{home.name}: its owner cannot talk")

    def kill_one(self) -> None:
        """Ends one of them, looks at what it left, and starts it again."""
        member = self._rng.choice([self.server, *self.devices])
        name = "server" if member is self.server else "device"
        member.kill()
        self.killed[name] += 1
        if member is self.server:
            self._compare_rounds()
        member.start()

    def kept(self) -> list[int]:
        """The rounds that the server has acknowledged."""
        return [said["round"] for said in self.server.said if said.get("kept")]

    def _compare_rounds(self) -> None:
        path, kept = self.server.home / "swarm" / "server" / LAYER_FILE, self.kept()
        there = int(read_card(path).sources[0].title.split()[1]) if path.exists() else 0
        if kept and there < kept[-1]:
            self.problems.append(f"round {kept[-1]} was acknowledged, and the layer is that of round {there}")
        if sorted(set(kept)) != kept:
            self.problems.append(f"rounds were counted twice: {kept[-5:]}")

    def finish(self) -> dict[str, Any]:
        """Waits for two more rounds, ends all with SIGTERM, and compares."""
        begun = len(self.kept())
        self._await(lambda: len(self.kept()) >= begun + 2)
        for member in [self.server, *self.devices]:
            if code := member.kill(signal.SIGTERM):
                self.problems.append(f"{member.home.name} ended with {code}")
        self._compare_rounds()
        for device in self.devices:
            self._compare(device.home)
        outcomes = [said for said in self.server.said if "answered" in said]
        return {
            "killed": dict(self.killed), "rounds": len(self.kept()),
            "rounds_not_kept": sum(not said["kept"] for said in outcomes),
            "refused": sum(said["refused"] for said in outcomes), "gone": sum(said["gone"] for said in outcomes),
            "answered": sum(said["answered"] for said in outcomes),
            "turns": sum(map(len, self.turns.values())), "problems": self.problems,
        }  # fmt: skip

    def _compare(self, home: Path) -> None:
        model = hub.load(self._model)
        store = Profile(home / "profiles", "default", model, writable=False)
        if [entry.text for entry in store.entries if entry.text] != self.turns[home]:
            self.problems.append(f"{home.name}: its log is not what was said")
        layers = load_layers(home / "packs", store.layers, model)
        found = []
        for cached in (True, False):
            model = hub.load(self._model)
            model.set_layers(layers)
            store = Profile(home / "profiles", "default", model, writable=False)
            if not cached:
                store.checkpoint = lambda: None  # type: ignore[method-assign]
            adaptation = Adaptation(model, store, LearnConfig(), time.time)
            adaptation.catch_up()
            found.append(adaptation.sha256)
            store.close()
        if found[0] != found[1]:
            self.problems.append(f"{home.name}: its weights are not those of a replay")


def main() -> None:
    """Reads the command line, kills, and prints what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--devices", type=int, default=7)
    parser.add_argument("--pause", type=float, default=10.0, help="seconds between two kills at most")
    parser.add_argument("--model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    begun = time.monotonic()
    with room() as folder, tiny_model(args.model) as model:
        swarm = Swarm(folder, model, args.devices, rng)
        for i in range(args.kills):
            time.sleep(rng.uniform(0, args.pause))
            swarm.kill_one()
            if i % TALK_EVERY == 0:
                swarm.say(rng.choice(list(swarm.turns)))
        found = swarm.finish() | {"seconds": round(time.monotonic() - begun)}
    if args.json:
        print(json.dumps(found))
    else:
        print("\n".join(f"{name:16s} {value}" for name, value in found.items()))
    sys.exit(bool(found["problems"]))


if __name__ == "__main__":
    main()
