"""Devices whose change is drawn at random instead of learned: all else that a device does with a message is real.

They run where Flower's simulation puts them, in processes of Ray, so what they are made of is small and is pickled with
every message; what is large is made once in each process.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from edgelm.model import hub, tensorfile
from edgelm.model.config import PRESETS
from edgelm.model.hub import Model
from edgelm.model.layers import Layer
from edgelm.model.manifest import SCALES as GRADIENTS
from edgelm.model.manifest import TOKENIZER, WEIGHTS, write_model
from edgelm.model.packing import pack
from edgelm.model.weights import Weights, block_names, random_weights, shapes
from edgelm.runtime import EngineOptions
from edgelm.swarm.device import Device
from edgelm.swarm.flower import ClientApp, ConfigRecord, Message, RecordDict
from edgelm.swarm.joining import JoinConfig, Joining
from edgelm.swarm.update import SCALES, VALUES, UpdateConfig, nothing, shared_layer
from edgelm.swarm.wire import MOST_UPDATE, RECORD, UPDATE, from_blob, to_blob

RANK, OWN, SPREAD = 4, 2.0, 1.0
"""Of a change: its rank in a block, the size of what is its own against what all have in common, and how much the
logarithms of the sizes of blocks differ."""
EMBEDDING = 0.2
"""What a random embedding, which is tied with the output, is multiplied by: the model begins near the uniform guess."""
HONEST, LIAR, BROKEN, RAISING, SILENT = "honest", "liar", "broken", "raising", "silent"
"""What a device is in a round: a liar sends noise, ten times as long as an update may be; what a broken one sends is no
update; another one fails with an exception, another one does not answer."""
FAULTS = {BROKEN: 0.01, RAISING: 0.01, SILENT: 0.01}
"""Shares of devices that are so."""


@dataclass(frozen=True)
class Plan:
    """Who takes part.

    Attributes
    ----------
    folder : Path
        The model lies in ``folder / "model"``, what a device writes down in ``folder / "devices"``.
    devices : int
        How many there are.
    lying : float
        Share of them that are liars.
    update : UpdateConfig
        What they send.
    """

    folder: Path
    devices: int
    lying: float
    update: UpdateConfig

    @property
    def model(self) -> Path:
        """Folder of the model."""
        return self.folder / "model"

    def roles(self) -> list[str]:
        """What each device is, by its number; which of them is what is drawn, the same every time."""
        roles: list[str] = []
        for role, share in {LIAR: self.lying, **FAULTS}.items():
            roles += [role] * int(share * self.devices + 1e-9)
        roles += [HONEST] * (self.devices - len(roles))
        order = np.random.default_rng(0).permutation(self.devices)
        return [roles[i] for i in order]


def write_random(folder: Path, preset: str, tokens_of: Model) -> None:
    """Writes a model of the sizes of a preset, with random weights and the tokenizer of another model."""
    config = PRESETS[preset].resized(vocab_size=tokens_of.config.vocab_size)
    weights = random_weights(config, np.random.default_rng(0))
    weights["embed"] *= np.float32(EMBEDDING)
    files = {
        TOKENIZER: (tokens_of.folder / TOKENIZER).read_bytes(),
        WEIGHTS: tensorfile.to_bytes(pack(weights)),
        GRADIENTS: tensorfile.to_bytes({name: np.ones(1, np.float32) for name in shapes(config)}),
    }
    write_model(folder, preset, config, files, {})


@lru_cache(maxsize=1)
def drawn(folder: Path) -> tuple[Model, Weights, Weights]:
    """The model in a folder, what the changes of all devices have in common, and by what each part is multiplied."""
    model, rng = hub.load(str(folder)), np.random.default_rng(0)
    return model, _random(model, rng), _sizes(model, rng)


def _random(model: Model, rng: np.random.Generator) -> Weights:
    """A change of low rank in each block, float32."""
    change = nothing(model.config)
    for name in change:
        shape = change[name].shape
        if name not in block_names(model.config):
            change[name] = rng.standard_normal(shape, np.float32)
            continue
        left = rng.standard_normal((*shape[:-1], RANK), np.float32)
        right = rng.standard_normal((shape[0], RANK, shape[-1]), np.float32)
        change[name] = np.float32(RANK**-0.5) * (left @ right)
    return change


def _sizes(model: Model, rng: np.random.Generator) -> Weights:
    """How large each tensor or block of every change is, to be multiplied by."""
    sizes = {}
    for name, array in nothing(model.config).items():
        each = (len(array), *[1] * (array.ndim - 1)) if name in block_names(model.config) else (1,)
        sizes[name] = (0.005 * np.exp(SPREAD * rng.standard_normal(each))).astype(np.float32)
    return sizes


class SimulatedDevice(Device):
    """A device that has no profile and learns nothing."""

    def model(self) -> Model:
        """The model, kept from message to message."""
        return drawn(Path(str(self.options.model)))[0]

    def learn(self, model: Model, shared: list[Layer], pack: bytes) -> Weights:
        """What all have in common and twice as much of its own, drawn from the device's randomness."""
        _, common, sizes = drawn(Path(str(self.options.model)))
        own = _random(model, self.rng)
        change = {name: sizes[name] * (common[name] + np.float32(OWN) * own[name]) for name in own}
        return shared_layer(change, model)


class Crowd:
    """All devices of a plan, as one ClientApp: Flower says for each message which of them it is for."""

    def __init__(self, plan: Plan) -> None:
        self._plan, self._roles = plan, plan.roles()

    def app(self) -> Any:
        """The ClientApp."""
        app = ClientApp()
        app.train()(self.answer)
        app.evaluate()(self.answer)
        app.query()(self.greet)
        return app

    def greet(self, message: Any, context: Any) -> Any:
        """An answer that says nothing but that the simulation runs."""
        drawn(self._plan.model)
        return Message(RecordDict(), reply_to=message)

    def answer(self, message: Any, context: Any) -> Any:
        """The answer of the device that a message is for; None: it does not answer.

        Raises
        ------
        RuntimeError
            The device is one that fails.
        """
        number, plan = int(context.node_config["partition-id"]), self._plan
        role = self._roles[number] if message.metadata.message_type == "train" else HONEST
        if role == RAISING:
            raise RuntimeError("this device fails")
        if role == SILENT:
            return None
        rng = np.random.default_rng([1, number])
        device = SimulatedDevice(EngineOptions(model=str(plan.model)), plan.update, rng)
        ledger = plan.folder / "devices" / f"{number}.json"
        joining = Joining(device, JoinConfig("simulated:1"), ledger, lambda: False, lambda *_: None)
        answer = joining.app(message, context)
        if role == LIAR:
            answer.content[RECORD][UPDATE] = _noise(answer.content[RECORD][UPDATE], rng)
        if role == BROKEN:
            before = self._roles[:number].count(BROKEN)
            return Message(_broken(answer.content[RECORD][UPDATE], before), reply_to=message)
        return answer


def _noise(blob: bytes, rng: np.random.Generator) -> bytes:
    """An update of the same form that is ten times noise."""
    update = from_blob(blob, MOST_UPDATE)
    update[VALUES] = rng.integers(-127, 128, update[VALUES].shape).astype(np.int8)
    update[SCALES] = update[SCALES] * np.float32(10)
    return to_blob(update)


def _broken(blob: bytes, kind: int) -> Any:
    """The content of an answer that is none, of the next of seven kinds."""
    update = from_blob(blob, MOST_UPDATE)
    kinds = [
        {RECORD: {UPDATE: blob[:-3]}},
        {RECORD: {UPDATE: b"\xff" * 1000}},
        {RECORD: {UPDATE: to_blob(update | {SCALES: update[SCALES][:-1]})}},
        {RECORD: {UPDATE: to_blob({VALUES: update[VALUES]})}},
        {RECORD: {UPDATE: "text"}},
        {RECORD: {UPDATE: blob, "more": 1}},
        {"other": {UPDATE: blob}},
    ]
    return RecordDict({name: ConfigRecord(record) for name, record in kinds[kind % len(kinds)].items()})
