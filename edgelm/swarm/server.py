"""Rounds on the server: devices are drawn, get the shared layer, and what they answer moves it.

One file is kept, the shared layer as a pack whose card says the number of its round; it is replaced whole at the end of
a round. A server that was killed goes on after the last round that ended. What happened in each round is appended to a
second file, for people.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgelm.errors import ConfigError, DivergenceError, InputError, ModelFileError
from edgelm.learn.layering import general_cost
from edgelm.log.packs import Pack, Source, clipped, read_pack, write_pack
from edgelm.model.hub import Model
from edgelm.model.layers import Layer
from edgelm.model.weights import Weights
from edgelm.runtime import Engine, EngineOptions
from edgelm.swarm.aggregate import AggregateConfig, aggregate_round, stepped
from edgelm.swarm.flower import ConfigRecord, Grid, Message, RecordDict
from edgelm.swarm.link import Link, LinkGrid
from edgelm.swarm.update import Received, UpdateConfig, dense, shared_layer
from edgelm.swarm.wire import DECLINED, LAYER, MODEL, MOST_UPDATE, PACK, RECORD, ROUND, UPDATE, from_blob

LAYER_FILE, HISTORY_FILE = "layer.safetensors", "rounds.jsonl"
_WAIT_SECONDS, _RETRY_SECONDS = 0.5, 60.0


@dataclass(frozen=True)
class ServeConfig:
    """How a server leads its rounds.

    Attributes
    ----------
    folder : Path
        Where the shared layer is kept.
    rounds : int
        How many to lead; 0: until it is told to stop.
    devices : int
        How many are asked in a round, drawn from those that are there.
    least : int
        A round begins when so many are there, and counts if so many answer with an update.
    wait_seconds : float
        How long answers are waited for.
    every_seconds : float
        How long after a round began the next one may.
    aggregate : AggregateConfig
        How updates become one.
    update : UpdateConfig
        What devices send at most.
    """

    folder: Path
    rounds: int = 0
    devices: int = 10
    least: int = 2
    wait_seconds: float = 1800.0
    every_seconds: float = 3600.0
    aggregate: AggregateConfig = field(default_factory=AggregateConfig)
    update: UpdateConfig = field(default_factory=UpdateConfig)


@dataclass(frozen=True)
class Outcome:
    """What a round came to.

    Attributes
    ----------
    round : int
        Its number, from 1.
    asked, answered : int
        Devices, and those among them whose update counts.
    refused, nothing, gone : int
        Devices whose answer was not allowed, that had learned nothing or could not take the layer, that did not answer.
    sha256 : str
        Of the layer after it.
    step : float
        How much of the step was taken: all, a half, a quarter, as general text allows; 0: none.
    general_cost : float
        Share by which general text costs more with the layer that was tried last.
    kept : bool
        Whether the layer moved: enough devices answered and general text allows it.
    why : str
        Why it did not.
    seconds : float
    """

    round: int
    asked: int
    answered: int
    refused: int
    nothing: int
    gone: int
    sha256: str = ""
    step: float = 0.0
    general_cost: float = 0.0
    kept: bool = False
    why: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Gathered:
    """What came back when devices were asked.

    Attributes
    ----------
    round : int
        Number of the round that they were asked in.
    asked : int
        Devices.
    updates : dict of Received
        What is allowed, by the number of the device's node.
    refused : dict of str
        Why an answer is not allowed, in one line, by the same number.
    nothing : int
        Devices that had learned nothing or could not take the layer.
    """

    round: int
    asked: int
    updates: dict[int, Received]
    refused: dict[int, str]
    nothing: int


class Shared:
    """The shared layer that a server keeps.

    Parameters
    ----------
    folder : Path
        Made if it is not there.
    model : Model

    Attributes
    ----------
    round : int
        Rounds that it has seen; 0: there is no layer yet.
    sha256 : str
        Of its file, or empty.

    Raises
    ------
    ModelFileError
        The file is damaged, or of another model.
    """

    def __init__(self, folder: Path, model: Model) -> None:
        self.folder, self.model, self.path = folder, model, folder / LAYER_FILE
        self.round, self.sha256, self._changes = 0, "", Weights()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self.path.exists():
            pack = read_pack(self.path, model)
            number = re.fullmatch(r"round ([0-9]{1,9})", pack.sources[0].title)
            if pack.name != LAYER or pack.text or number is None:
                raise ModelFileError(f"{self.path}: no layer of a swarm; move it away to begin anew")
            self.round, self.sha256, self._changes = int(number[1]), pack.sha256, pack.changes

    @property
    def blob(self) -> bytes:
        """The file's bytes; empty before the first round has ended."""
        return self.path.read_bytes() if self.sha256 else b""

    def dense(self) -> Weights:
        """The layer as every adaptable tensor in float32, new arrays."""
        return dense(self._changes, self.model.config)

    def packed(self, total: Weights) -> Layer:
        """A layer of such tensors, not kept yet; no block is moved further than a pack may move it.

        Raises
        ------
        DivergenceError
            A number does not fit float16.
        """
        return Layer(LAYER, "", clipped(shared_layer(total, self.model), self.model))

    def keep(self, layer: Layer) -> None:
        """Makes ``layer`` the shared one, of the next round; after a crash it is the old one or the new one.

        Raises
        ------
        ModelFileError
            The file cannot be written.
        """
        before = self.sha256 or self.model.sha256
        card = f"What devices of a swarm learned in {self.round + 1} rounds."
        pack = Pack(
            LAYER, "as agreed on by those who take part", card,
            time.strftime("%Y-%m-%d", time.gmtime()), self.model.sha256, self.model.name,
            (Source(f"round {self.round + 1}", before),), dict(layer.changes),
        )  # fmt: skip
        written = write_pack(self.path, pack)
        self.round, self.sha256, self._changes = self.round + 1, written.sha256, pack.changes


class Server:
    """Leads rounds over a link.

    Parameters
    ----------
    options : EngineOptions
        Whose model; no profile is used.
    config : ServeConfig
    rng : numpy Generator
        Draws the devices.
    told : callable
        Called with the outcome of every round.

    Raises
    ------
    ModelFileError, DeviceError
        The model or the layer that is kept cannot be used.
    """

    def __init__(
        self, options: EngineOptions, config: ServeConfig, rng: np.random.Generator, told: Callable[[Outcome], None]
    ) -> None:
        self.config, self._rng, self._told = config, rng, told
        self._engine = Engine(options, use_profile=False)
        self.model = self._engine.model
        self.shared = Shared(config.folder, self.model)
        self.link: Link | None = None
        self._asking = False

    def status(self) -> dict[str, Any]:
        """What a server says of itself to whoever asks."""
        return {
            "model": self.model.name, "model_sha256": self.model.sha256, "round": self.shared.round,
            "sha256": self.shared.sha256, "devices": len(self.link.node_ids) if self.link else 0,
            "asking": self._asking,
        }  # fmt: skip

    def run(self, link: Link, is_over: Callable[[float], bool]) -> None:
        """Leads rounds until there were as many as wanted, or ``is_over``, which waits so many seconds, says so."""
        self.link, led = link, 0
        while True:
            begun = time.monotonic()
            while len(link.node_ids) < self.config.least:
                if is_over(_WAIT_SECONDS):
                    return
            outcome = self.lead(link)
            led += outcome.kept
            self._note(outcome)
            if self.config.rounds and led >= self.config.rounds:
                self.hand_out(link)
                return
            left = begun + self.config.every_seconds - time.monotonic()
            if is_over(max(left if outcome.kept else min(left, _RETRY_SECONDS), _WAIT_SECONDS)):
                return

    def lead(self, link: Link) -> Outcome:
        """One round."""
        begun, grid = time.monotonic(), LinkGrid(link)
        self._asking = True
        try:
            found = self.gather(grid)
        finally:
            self._asking = False
            grid.close()
        return self._settle(found, begun)

    def _settle(self, found: Gathered, begun: float) -> Outcome:
        """Moves the layer by what was gathered, if that is enough; ``begun``: when the round did, by the monotonic
        clock."""
        counts = len(found.updates), len(found.refused), found.nothing
        outcome = Outcome(found.round, found.asked, *counts, found.asked - sum(counts))
        if len(found.updates) < self.config.least:
            why = f"{len(found.updates)} updates, {self.config.least} are needed"
            return replace(outcome, why=why, sha256=self.shared.sha256, seconds=time.monotonic() - begun)
        try:
            step, cost = self._moved(list(found.updates.values()))
            why = "" if step else "general text would cost too much with it"
        except (ConfigError, DivergenceError, InputError) as exc:
            step, cost, why = 0.0, 0.0, str(exc)
        return replace(
            outcome, kept=not why, why=why, step=step, general_cost=cost, sha256=self.shared.sha256,
            seconds=time.monotonic() - begun,
        )  # fmt: skip

    def _moved(self, updates: list[Received]) -> tuple[float, float]:
        """Moves the layer by what the updates come to; the share of the step, and what general text costs then."""
        costs: list[float] = []

        def cost(total: Weights) -> float:
            costs.append(general_cost(self._engine.adaptation, [self.shared.packed(total)]))
            return costs[-1]

        found = aggregate_round(updates, self.model, self.config.aggregate)
        total, step = stepped(self.shared.dense(), found, self.config.aggregate.rate, cost)
        if step:
            layer = self.shared.packed(total)
            if not layer.changes:
                raise InputError("the updates cancel each other out")
            self.shared.keep(layer)
        return step, costs[-1]

    def gather(self, grid: Grid) -> Gathered:
        """Asks devices that are there, ``ServeConfig.devices`` at most, and takes what of their answers is allowed."""
        number = self.shared.round + 1
        chosen = self._rng.permutation(np.array(list(grid.get_node_ids()), object))[: self.config.devices]
        messages = self._messages("train", number, [int(node_id) for node_id in chosen])
        found, nothing = Gathered(number, len(messages), {}, {}, 0), 0
        answers = grid.send_and_receive(messages, timeout=self.config.wait_seconds)
        # By what was asked: the node that an answer names is what its device wrote there.
        asked = {message.metadata.message_id: message.metadata.dst_node_id for message in messages}
        for answer in answers:
            node_id = asked[answer.metadata.reply_to_message_id]
            try:
                blob = _update_in(answer)
                if blob:
                    arrays = from_blob(blob, MOST_UPDATE)
                    found.updates[node_id] = Received(arrays, self.model, self.config.update)
                else:
                    nothing += 1
            except _GoneError:
                pass
            except InputError as exc:
                found.refused[node_id] = str(exc)
        return replace(found, nothing=nothing)

    def _messages(self, kind: str, number: int, node_ids: Iterable[int]) -> list[Any]:
        """One message for each device; they share the bytes of the layer."""
        pack, seconds = self.shared.blob, self.config.wait_seconds + 60
        return [
            Message(
                RecordDict({RECORD: ConfigRecord({ROUND: number, MODEL: self.model.sha256, PACK: pack})}),
                node_id, kind, ttl=seconds, group_id=str(number),
            )
            for node_id in node_ids
        ]  # fmt: skip

    def hand_out(self, link: Link) -> int:
        """Gives the layer to all that are there, and asks for nothing; how many say that they have seen it."""
        grid = LinkGrid(link)
        try:
            return self.give(grid)
        finally:
            grid.close()

    def give(self, grid: Grid) -> int:
        """What ``hand_out`` does, through a grid."""
        messages = self._messages("evaluate", self.shared.round, grid.get_node_ids())
        answers = grid.send_and_receive(messages, timeout=self.config.wait_seconds)
        return sum(answer.has_content() for answer in answers)

    def _note(self, outcome: Outcome) -> None:
        line = json.dumps({"time": round(time.time(), 3), **vars(outcome)})
        with (self.config.folder / HISTORY_FILE).open("a+b") as file:
            # A line that the end of a process cut short is not to swallow this one.
            if file.tell():
                file.seek(-1, os.SEEK_END)
                line = line if file.read() == b"\n" else "\n" + line
            file.write(line.encode() + b"\n")
        self._told(outcome)

    def close(self) -> None:
        """Lets the model go."""
        self._engine.close()


class _GoneError(Exception):
    """A device that did not answer."""


def _update_in(answer: Any) -> bytes:
    """The bytes of an update in an answer from outside; empty if the device said that it has none.

    Raises
    ------
    InputError
        It is no answer that a device of edgelm gives.
    """
    if answer.has_error():
        if answer.error.code == DECLINED:
            return b""
        raise _GoneError
    if not answer.has_content():
        raise _GoneError
    try:
        record = answer.content[RECORD]
        if set(answer.content) != {RECORD} or set(record) != {UPDATE} or type(record[UPDATE]) is not bytes:
            raise InputError("an answer that holds something else than an update")
        blob: bytes = record[UPDATE]
        return blob
    except (KeyError, TypeError, AttributeError):
        raise InputError("an answer without an update") from None
