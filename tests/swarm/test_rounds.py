"""Whole rounds: in one process with answers of all kinds, and in processes as they are used."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("flwr", reason="the swarm needs Flower: pip install 'edgelm[swarm]'")

from edgelm.errors import ModelFileError
from edgelm.model import hub
from edgelm.model.hub import Model
from edgelm.runtime import EngineOptions
from edgelm.swarm.flower import ConfigRecord, Message, RecordDict
from edgelm.swarm.link import Link, LinkGrid
from edgelm.swarm.server import HISTORY_FILE, LAYER_FILE, Outcome, ServeConfig, Server, Shared
from edgelm.swarm.update import UpdateConfig, outgoing
from edgelm.swarm.wire import DECLINED, RECORD, UPDATE, to_blob
from tests.command import ROOT, run_cli
from tests.learn.packed import random_changes
from tests.swarm.linked import Answerer, declining, linked, updating

pytestmark = pytest.mark.jit_only
SAID = "My boat number {} is called Heron, and the ferry leaves the island at seven."


@pytest.fixture
def model(tiny_model: Path) -> Model:
    return hub.load(str(tiny_model))


def _update(model: Model, seed: int = 1) -> bytes:
    return to_blob(outgoing(random_changes(model, seed), model, UpdateConfig(), np.random.default_rng(seed)))


def _server(tiny_model: Path, folder: Path, told: list[Outcome], **options: Any) -> Server:
    config = ServeConfig(folder, **{"wait_seconds": 20.0, "every_seconds": 0.0, **options})
    return Server(EngineOptions(model=str(tiny_model)), config, np.random.default_rng(0), told.append)


class _Swarm:
    """A server that leads a round with devices that answer as they are told."""

    def __init__(self, tiny_model: Path, folder: Path) -> None:
        self.told: list[Outcome] = []
        self.server = _server(tiny_model, folder, self.told)

    def lead(self, answerers: list[Answerer]) -> Outcome:
        with linked() as link:
            # The messages of the round are those of the server, the devices those of ``ask``.
            from tests.swarm.linked import _answer, connect

            threads = [
                threading.Thread(target=_answer, args=(connect(link), answerer), daemon=True) for answerer in answerers
            ]
            for thread in threads:
                thread.start()
            outcome = self.server.lead(link)
            for thread in threads:
                thread.join()
            return outcome


@pytest.fixture
def swarm(tiny_model: Path, tmp_path: Path) -> Iterator[_Swarm]:
    made = _Swarm(tiny_model, tmp_path / "server")
    yield made
    made.server.close()


def test_updates_move_the_layer(swarm: _Swarm, model: Model) -> None:
    for number in (1, 2, 3):
        outcome = swarm.lead([lambda message, i=i: updating(message, _update(model, i)) for i in range(3)])
        assert (outcome.round, outcome.asked, outcome.answered, outcome.kept) == (number, 3, 3, True), outcome
        assert swarm.server.status()["round"] == number
        again = Shared(swarm.server.shared.folder, model)
        assert (again.round, again.sha256) == (number, outcome.sha256)
    assert any(array.any() for array in again.dense().values())


def test_answers_that_are_not_allowed_do_not_count(swarm: _Swarm, model: Model) -> None:
    good = _update(model)

    def elsewhere(message: Any) -> Any:
        return Message(RecordDict({"other": ConfigRecord({UPDATE: good})}), reply_to=message)

    def two(message: Any) -> Any:
        return Message(RecordDict({RECORD: ConfigRecord({UPDATE: good, "more": 1})}), reply_to=message)

    hostile: list[Answerer] = [
        elsewhere,
        two,
        lambda message: updating(message, "text"),
        lambda message: updating(message, good[:-3]),
        lambda message: updating(message, b"\xff" * 100),
        lambda message: updating(message, to_blob({"blocks": np.zeros(3, np.float32)})),
    ]
    honest: list[Answerer] = [lambda message: updating(message, good), lambda message: updating(message, good)]
    others: list[Answerer] = [
        lambda message: updating(message, b""),
        lambda message: declining(message, DECLINED),
        lambda message: declining(message, 5),
        lambda message: None,
    ]
    swarm.server.config = ServeConfig(swarm.server.config.folder, devices=20, wait_seconds=20.0)
    outcome = swarm.lead([*hostile, *honest, *others])
    counts = (outcome.asked, outcome.answered, outcome.refused, outcome.nothing, outcome.gone)
    assert counts == (12, 2, 6, 2, 2)
    assert outcome.kept


class _Claiming(LinkGrid):
    """A grid with two devices, both of which write the first one's number into their answers."""

    def __init__(self, link: Link, update: bytes) -> None:
        super().__init__(link)
        self._update = update

    def get_node_ids(self) -> list[int]:
        return [11, 12]

    def send_and_receive(self, messages: Iterable[Any], *, timeout: float | None = None) -> list[Any]:
        answers = []
        for i, message in enumerate(messages):
            message.metadata.__dict__["_message_id"] = str(i)
            answers.append(updating(message, self._update if i else b"\xff" * 100))
            answers[-1].metadata.__dict__["_src_node_id"] = 11
        return answers


def test_an_answer_is_that_of_the_device_that_was_asked(swarm: _Swarm, model: Model) -> None:
    with linked() as link:
        grid = _Claiming(link, _update(model))
        found = swarm.server.gather(grid)
        grid.close()
    assert {*found.updates, *found.refused} == {11, 12}
    (line,) = found.refused.values()
    assert line
    assert "\n" not in line


def test_a_line_that_was_cut_short_does_not_swallow_the_next(swarm: _Swarm) -> None:
    history = swarm.server.config.folder / HISTORY_FILE
    for number in (1, 2):
        swarm.server._note(Outcome(number, 3, 3, 0, 0, 0))
    whole = history.read_bytes()
    history.write_bytes(whole[:-9])
    swarm.server._note(Outcome(3, 3, 3, 0, 0, 0))
    first, cut, last = history.read_bytes().splitlines(keepends=True)
    assert first + cut == whole[:-9] + b"\n"
    assert json.loads(last)["round"] == 3


def test_too_few_answers_move_nothing(swarm: _Swarm, model: Model) -> None:
    outcome = swarm.lead([lambda message: updating(message, _update(model)), lambda message: None])
    assert (outcome.kept, outcome.answered, outcome.gone) == (False, 1, 1)
    assert "2 are needed" in outcome.why
    assert not (swarm.server.shared.folder / LAYER_FILE).exists()


def test_a_layer_that_harms_is_not_kept(swarm: _Swarm, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgelm.swarm.aggregate.MOST_COST", -1.0)
    outcome = swarm.lead([lambda message, i=i: updating(message, _update(model, i)) for i in range(2)])
    assert not outcome.kept
    assert "general text would cost" in outcome.why
    assert swarm.server.shared.round == 0


def test_updates_that_say_nothing_move_nothing(swarm: _Swarm, model: Model) -> None:
    none = to_blob(outgoing({}, model, UpdateConfig(noise=0), np.random.default_rng(0)))
    outcome = swarm.lead([lambda message: updating(message, none)] * 2)
    assert not outcome.kept
    assert outcome.why


def test_the_last_layer_is_handed_out(swarm: _Swarm, tiny_model: Path, home: Path, tmp_path: Path) -> None:
    from edgelm.swarm.device import Device
    from edgelm.swarm.joining import JoinConfig, Joining

    model = hub.load(str(tiny_model))
    swarm.lead([lambda message, i=i: updating(message, _update(model, i)) for i in range(2)])
    device = Device(EngineOptions(model=str(tiny_model)), UpdateConfig(), np.random.default_rng(0))
    over, said = threading.Event(), []
    with linked() as link:
        config = JoinConfig(link.url.partition("//")[2], every_seconds=0.1, while_idle=False)
        joining = Joining(device, config, tmp_path / "ledger.json", lambda: False, lambda *words: said.append(words))
        thread = threading.Thread(target=joining.run, args=(over.wait,))
        thread.start()
        while not link.node_ids:
            time.sleep(0.05)
        assert swarm.server.hand_out(link) == 1
        over.set()
        thread.join()
    assert device.layer() == swarm.server.shared.sha256 == joining.ledger.layer
    assert (joining.ledger.rounds, joining.ledger.bytes_sent) == (0, 0)


def test_a_damaged_layer_is_said(tiny_model: Path, model: Model, tmp_path: Path) -> None:
    (tmp_path / LAYER_FILE).write_bytes(b"\xff" * 100)
    with pytest.raises(ModelFileError, match=LAYER_FILE):
        Shared(tmp_path, model)
    assert (tmp_path / LAYER_FILE).read_bytes() == b"\xff" * 100


def _start(home: Path, *args: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "EDGELM_HOME": str(home)}
    command = [sys.executable, "-m", "edgelm", "swarm", *args, "--json"]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)


def _line(process: subprocess.Popen[str], fits: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    assert process.stdout is not None
    for line in process.stdout:
        if fits(found := json.loads(line)):
            return found
    raise AssertionError("it ended before it said so")


def _end(*processes: subprocess.Popen[str]) -> list[int]:
    for process in processes:
        process.send_signal(signal.SIGTERM)
    codes = [process.wait(60) for process in processes]
    for process in processes:
        if process.stdout is not None:
            process.stdout.close()
    return codes


def test_rounds_in_processes_outlast_a_killed_server(tiny_model: Path, tmp_path: Path) -> None:
    model, homes = ("--model", str(tiny_model)), [tmp_path / f"device-{i}" for i in range(2)]
    for i, home in enumerate(homes):
        told = run_cli(["chat", "--max-tokens", "1", *model], SAID.format(i) + "\n", {"EDGELM_HOME": str(home)})
        assert told.code == 0, told.stderr
    server = _start(tmp_path / "server", "serve", *model, "--port", "0", "--every", "0", "--wait", "60")
    url = _line(server, lambda found: "url" in found)["url"]
    address = url.partition("//")[2]
    devices = [_start(home, "join", address, "--every", "0.2", "--always", *model) for home in homes]
    first = _line(server, lambda found: found.get("kept", False))
    assert (first["round"], first["answered"]) == (1, 2)
    said = run_cli(["swarm", "status", address, "--json"]).json
    assert said["round"] >= 1
    assert said["devices"] == 2
    server.kill()
    server.wait(60)
    assert server.stdout is not None
    server.stdout.close()
    again = _start(
        tmp_path / "server", "serve", *model, "--port", address.rpartition(":")[2], "--every", "0", "--wait", "60"
    )
    begun = _line(again, lambda found: "url" in found)["round"]
    assert begun >= 1
    later = _line(again, lambda found: found.get("kept", False))
    assert later["round"] == begun + 1
    assert later["answered"] == 2
    assert _end(again, *devices) == [0, 0, 0]
    for home in homes:
        ledger = run_cli(["swarm", "status", "--json"], env={"EDGELM_HOME": str(home)}).json
        assert ledger["rounds"] >= 2
        assert ledger["refused"] == ""
        log = run_cli(["profile", "log", "--json", *model], env={"EDGELM_HOME": str(home)}).stdout
        assert "is called Heron" in log
        shown = run_cli(["profile", "show", "--json", *model], env={"EDGELM_HOME": str(home)}).json
        assert [layer["name"] for layer in shown["layers"]] == ["swarm"]


def test_nothing_but_the_address_is_connected_to(tiny_model: Path, tmp_path: Path) -> None:
    script = """
import json, sys
asked = []
def seen(event, args):
    if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"):
        asked.append([event, repr(args[1] if event in ("socket.connect", "socket.sendto") else args[0])])
sys.addaudithook(seen)
sys.argv = ["edgelm", *sys.argv[1:]]
from edgelm.cli.main import main
try:
    main()
finally:
    print(json.dumps(asked), file=sys.stderr)
"""
    home, model = tmp_path / "home", ("--model", str(tiny_model))
    environment = {
        **os.environ,
        "EDGELM_HOME": str(home),
        "HTTP_PROXY": "http://192.0.2.1:9",
        "ALL_PROXY": "http://192.0.2.1:9",
    }
    assert run_cli(["chat", "--max-tokens", "1", *model], SAID + "\n", {"EDGELM_HOME": str(home)}).code == 0
    server = _start(tmp_path / "server", "serve", *model, "--port", "0", "--least-devices", "1", "--every", "0")
    address = _line(server, lambda found: "url" in found)["url"].partition("//")[2]
    arguments = ["swarm", "join", address, "--rounds", "1", "--always", "--every", "0.2", *model]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    _end(server)
    host, _, port = address.rpartition(":")
    asked = json.loads(done.stderr.splitlines()[-1])
    assert ["socket.connect", repr((host, int(port)))] in asked
    assert [call for call in asked if repr(host) not in call[1]] == []


def test_a_device_waits_for_its_server(tiny_model: Path, tmp_path: Path) -> None:
    with linked() as gone:
        address = gone.url.partition("//")[2]
    device = _start(tmp_path, "join", address, "--every", "0.2", "--model", str(tiny_model))
    assert "no answer from the server" in _line(device, lambda found: "error" in found)["error"]
    time.sleep(0.5)
    assert device.poll() is None
    assert _end(device) == [0]
