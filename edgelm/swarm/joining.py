"""A device's side of a swarm that lasts: it asks for rounds while nobody needs the device, and comes back after errors.

What answers a message is a ClientApp of Flower's that is part of edgelm; none is ever fetched.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgelm.errors import DeviceError, EdgelmError, InputError, ProfileError
from edgelm.log.folder import hold
from edgelm.runtime import profiles_dir
from edgelm.swarm.connection import Connection
from edgelm.swarm.device import Device, Ledger, noted, read_ledger, write_ledger
from edgelm.swarm.flower import ClientApp, ConfigRecord, Context, Error, Message, RecordDict
from edgelm.swarm.wire import DECLINED, MODEL, PACK, RECORD, ROUND, UPDATE, most_bytes

BUSY_LOAD = 0.5
"""Processes that want to run, for each core, from which on a device is not idle."""


@dataclass(frozen=True)
class JoinConfig:
    """How a device takes part.

    Attributes
    ----------
    address : str
        Of the server, HOST:PORT.
    root : Path or None
        Certificate that the server's is signed with, PEM; None: plain HTTP.
    every_seconds : float
        How often it asks whether there is a round.
    rounds : int
        After so many updates it ends; 0: never.
    while_idle : bool
        Only while little else runs here.
    """

    address: str
    root: Path | None = None
    every_seconds: float = 60.0
    rounds: int = 0
    while_idle: bool = True


class Joining:
    """Takes part in the rounds of a server.

    Parameters
    ----------
    device : Device
    config : JoinConfig
    ledger : Path
        Where what was sent is written down.
    is_hot : callable
        Whether the device is too warm to learn now.
    told : callable
        Called with one line for people and what it says by name, at everything that happens.

    Attributes
    ----------
    ledger : Ledger
        As it was written last.
    app : ClientApp
        What answers a message of the server's.
    """

    def __init__(
        self, device: Device, config: JoinConfig, ledger: Path, is_hot: Callable[[], bool],
        told: Callable[[str, dict[str, Any]], None],
    ) -> None:  # fmt: skip
        self._device, self._config, self._path = device, config, ledger
        self._is_hot, self._told = is_hot, told
        self.ledger: Ledger = noted(read_ledger(ledger), address=config.address)
        self._sent = 0
        self.app = ClientApp()
        self.app.train()(self._train)
        self.app.evaluate()(self._take)

    def run(self, is_over: Callable[[float], bool]) -> None:
        """Until it has sent as many updates as it should, or ``is_over``, which waits so many seconds, says so.

        Raises
        ------
        ProfileError, ModelFileError
            The profile or the model cannot take part at all.
        """
        self._device.check()
        model, trouble = self._device.model(), ""
        most = most_bytes(model.config, 2)
        while not self._is_done():
            try:
                with Connection(self._config.address, most, self._config.root, self._config.every_seconds) as link:
                    self._told(f"joined {self._config.address}", {"joined": self._config.address})
                    trouble = ""
                    self._ask(link, is_over)
                    if self._is_done() or is_over(0):
                        return
            except DeviceError as exc:
                if str(exc) != trouble:
                    trouble = str(exc)
                    self._told(f"{trouble}; asking again", {"error": trouble})
            if is_over(self._config.every_seconds):
                return

    def _is_done(self) -> bool:
        return bool(self._config.rounds) and self._sent >= self._config.rounds

    def _ask(self, link: Connection, is_over: Callable[[float], bool]) -> None:
        while not (link.is_lost or self._is_done()):
            try:
                message = link.receive() if self._may_work() else None
                if message is not None:
                    self._answer(link, message)
                    continue
            except InputError as exc:
                self._refuse(str(exc))
            if is_over(self._config.every_seconds):
                return

    def _may_work(self) -> bool:
        """Whether nobody talks with this profile, the device is cool, and nothing else keeps it busy."""
        if self._is_hot() or (self._config.while_idle and _is_busy()):
            return False
        try:
            hold(self._device.options.profiles or profiles_dir(), self._device.options.profile).close()
        except ProfileError:
            return False
        return True

    def _answer(self, link: Connection, message: Any) -> None:
        context = Context(message.metadata.run_id, message.metadata.dst_node_id, {}, RecordDict(), {})
        try:
            answer = self.app(message, context)
        except ValueError:
            raise InputError("the server asks for something that no device does") from None
        link.send(answer)
        if answer.has_error():
            return
        update: bytes = answer.content[RECORD][UPDATE]
        number = int(message.content[RECORD][ROUND])
        if update:
            self._sent += 1
        self.ledger = noted(
            self.ledger, rounds=self.ledger.rounds + bool(update), bytes_sent=self.ledger.bytes_sent + len(update),
            last_round=number, layer=self._device.layer(), refused="",
        )  # fmt: skip
        write_ledger(self._path, self.ledger)
        said = f"{len(update):,} bytes sent" if update else "the layer was taken, nothing sent"
        self._told(f"round {number}: {said}", {"round": number, "bytes_sent": len(update)})

    def _train(self, message: Any, context: Any) -> Any:
        """What a message of kind ``train`` does (a function of the ClientApp)."""
        return self._taken(message, gives=True)

    def _take(self, message: Any, context: Any) -> Any:
        """What one of kind ``evaluate`` does: the layer is taken, and nothing is given."""
        return self._taken(message, gives=False)

    def _taken(self, message: Any, *, gives: bool) -> Any:
        try:
            model, pack = _asked(message)
            update = self._device.train(model, pack, gives=gives)
        except EdgelmError as exc:
            self._refuse(str(exc))
            # Why stays here: it may name files.
            return Message(Error(DECLINED), reply_to=message)
        return Message(RecordDict({RECORD: ConfigRecord({UPDATE: update})}), reply_to=message)

    def _refuse(self, why: str) -> None:
        self.ledger = noted(self.ledger, refused=why[:500])
        write_ledger(self._path, self.ledger)
        self._told(why, {"refused": why})


def _is_busy() -> bool:
    try:
        return os.getloadavg()[0] > BUSY_LOAD * (os.cpu_count() or 1)
    except OSError:
        # The system does not say.
        return False


def _asked(message: Any) -> tuple[str, bytes]:
    """The SHA-256 of the model and the pack in a message from outside.

    Raises
    ------
    InputError
        It is no message that a server of edgelm sends.
    """
    try:
        record = message.content[RECORD]
        number, model, pack = record[ROUND], record[MODEL], record[PACK]
        fits = set(message.content) == {RECORD} and set(record) == {ROUND, MODEL, PACK}
    except (KeyError, TypeError, AttributeError, ValueError):
        fits, number, model, pack = False, 0, "", b""
    kinds = type(number) is int and type(model) is str and type(pack) is bytes
    if not (fits and kinds and 0 < number < 1 << 31 and re.fullmatch("[0-9a-f]{64}", model)):
        raise InputError("the server sent a message that holds something else than a round")
    return model, pack
