"""What a round costs on the wire: bytes between a server and one device, and what asking in vain costs.

python -m tools.measure.swarm_wire CHAT CHAT... [--rounds 3] [--characters 20000] [--model NAME|PATH] [--json]

Each CHAT is a file that one device has learned. Every byte over TCP of the first device is counted by a proxy on
loopback, heads of HTTP included, those of TCP and IP not. The last figures are of a minute in which there is no round.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from tools.measure.forks import room, tiny_model
from tools.measure.swarm_kills import EVERY, Member

IDLE_SECONDS, ASK_SECONDS, CALLS = 60, 10, 500


class Counter:
    """A proxy that passes on what it gets and counts it.

    Attributes
    ----------
    port : int
    up, down : int
        Bytes to the server and back.
    """

    def __init__(self, port: int) -> None:
        self._target, self.up, self.down = port, 0, 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            taken, _ = self._listening.accept()
            onward = socket.create_connection(("127.0.0.1", self._target))
            threading.Thread(target=self._pass, args=(taken, onward, "up"), daemon=True).start()
            threading.Thread(target=self._pass, args=(onward, taken, "down"), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, name: str) -> None:
        try:
            while part := source.recv(1 << 16):
                setattr(self, name, getattr(self, name) + len(part))
                target.sendall(part)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            return


def _learn(home: Path, text: str, model: str) -> None:
    home.mkdir()
    (home / "chat.txt").write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "edgelm", "adapt", str(home / "chat.txt"), "--holdout", "0", "--model", model]
    environment = {**os.environ, "EDGELM_HOME": str(home)}
    subprocess.run(command, env=environment, check=True, capture_output=True)


def _wait(member: Member, n_kept: int) -> dict[str, Any]:
    while True:
        kept = [said for said in member.said if said.get("kept")]
        if len(kept) >= n_kept:
            return kept[-1]
        if member.process.poll() is not None:
            raise SystemExit("the server has ended")
        time.sleep(0.05)


def measure(folder: Path, model: str, texts: list[str], n_rounds: int) -> dict[str, Any]:
    """Leads rounds; the bytes of each round, and of a minute without one."""
    for i, text in enumerate(texts):
        _learn(folder / f"device-{i}", text, model)
    (folder / "server").mkdir()
    serve = ("serve", "--rounds", str(n_rounds + 1), "--least-devices", str(len(texts)), "--model", model)
    server = Member(folder / "server", *serve, "--every", "3", "--port", "0")
    while not server.said:
        time.sleep(0.05)
    port = int(server.said[0]["url"].rpartition(":")[2])
    counter = Counter(port)
    begun = time.monotonic()
    devices = [
        Member(folder / f"device-{i}", "join", f"127.0.0.1:{to}", *EVERY, "--always", "--model", model)
        for i, to in enumerate([counter.port, *[port] * (len(texts) - 1)])
    ]
    rounds, before = [], (0, 0)
    for number in range(1, n_rounds + 1):
        outcome = _wait(server, number)
        now = (counter.up, counter.down)
        rounds.append(
            {"up": now[0] - before[0], "down": now[1] - before[1], "seconds": round(time.monotonic() - begun, 1)}
            | {name: outcome[name] for name in ("round", "general_cost", "step")}
        )
        before, begun = now, time.monotonic()
    layer = (folder / "server" / "swarm" / "server" / "layer.safetensors").stat().st_size
    for member in [server, *devices]:
        member.kill()
    return {
        "rounds": rounds, "layer_bytes": layer,
        "update_bytes": [said["bytes_sent"] for said in devices[0].said if said.get("bytes_sent")],
        "idle_bytes": _idle(folder, model),
    }  # fmt: skip


def _idle(folder: Path, model: str) -> dict[str, Any]:
    """Bytes of a device that asks every ten seconds where too few are there for a round, for a minute."""
    server = Member(folder / "server", "serve", "--least-devices", "9", "--model", model, "--port", "0")
    while len(server.said) < 1:
        time.sleep(0.05)
    counter = Counter(int(server.said[-1]["url"].rpartition(":")[2]))
    options = ("--every", str(ASK_SECONDS), "--always", "--model", model)
    device = Member(folder / "device-0", "join", f"127.0.0.1:{counter.port}", *options)
    while not device.said:
        time.sleep(0.05)
    time.sleep(1)
    before = counter.up, counter.down
    time.sleep(IDLE_SECONDS)
    found: dict[str, float] = {
        "up": counter.up - before[0],
        "down": counter.down - before[1],
        "asked": IDLE_SECONDS // ASK_SECONDS,
    }
    found["server_ms"] = _cpu_ms(server, int(server.said[-1]["url"].rpartition(":")[2]))
    for member in (device, server):
        member.kill()
    return found


def _cpu_ms(server: Member, port: int) -> float:
    """Milliseconds of processor that the server takes for a question to which there is no message."""
    from edgelm.swarm.connection import Connection

    def seconds() -> float:
        fields = Path(f"/proc/{server.process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")

    with Connection(f"127.0.0.1:{port}", 1000, None, 600.0) as connection:
        connection.receive()
        before = seconds()
        for _ in range(CALLS):
            connection.receive()
        return round(1000 * (seconds() - before) / CALLS, 3)


def main() -> None:
    """Reads the command line and prints what was counted."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("chats", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--characters", type=int, default=20_000)
    parser.add_argument("--model", default="small")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    texts = [path.read_text(encoding="utf-8")[: args.characters] for path in args.chats]
    with room() as folder, tiny_model(args.model) as model:
        found = measure(folder, model, texts, args.rounds)
    print(json.dumps(found) if args.json else json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
