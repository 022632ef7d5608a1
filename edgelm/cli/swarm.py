"""``swarm``: devices that each learn, and learn from each other through a layer that all share."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from edgelm import ports
from edgelm.cli.options import Common, common
from edgelm.config import data_dir
from edgelm.errors import InputError
from edgelm.heat import Heat

STRATEGIES = ("mean", "median", "trimmed-mean", "krum", "multi-krum", "bulyan")
"""Those of ``edgelm.swarm.aggregate``, which takes longer to import than help should."""
_FILE = click.Path(path_type=Path, dir_okay=False)


def _folder() -> Path:
    return data_dir() / "swarm"


@click.group()
def swarm() -> None:
    """Many devices learn from each other, and the words stay where they are."""


class _ToldError(BaseException):
    """A signal asks the process to end."""


class _Told:
    """Whether a signal asked the process to end; without a lock, which the handler could find held."""

    is_over = False

    def wait(self, seconds: float) -> bool:
        """Waits so long, if nothing asked before; whether something did."""
        if not self.is_over:
            time.sleep(seconds)
        return self.is_over


@contextmanager
def _until_told() -> Iterator[_Told]:
    """SIGINT and SIGTERM leave the block; whoever waits is told, too, should the exception be lost on its way, as it is
    in a callback out of compiled code."""
    told = _Told()

    def end(number: int, frame: object) -> None:
        # Once: what ends now is not to be interrupted.
        for signal_number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signal_number, signal.SIG_IGN)
        told.is_over = True
        raise _ToldError

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield told
    except _ToldError:
        pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@swarm.command()
@click.option("--listen", default="127.0.0.1", show_default=True, metavar="ADDR", help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8430, show_default=True, help="0: a free one.")
@click.option("--rounds", type=click.IntRange(0), default=0, help="Rounds to lead (default: until stopped).")
@click.option(
    "--devices-per-round", type=click.IntRange(1, 100_000), default=10, show_default=True, help="Drawn in a round."
)
@click.option(
    "--least-devices", type=click.IntRange(1), default=2, show_default=True, help="Whose updates a round needs."
)
@click.option("--every", type=click.FloatRange(0), default=3600.0, show_default=True, help="Seconds between rounds.")
@click.option("--wait", type=click.FloatRange(1), default=1800.0, show_default=True, help="Seconds for answers.")
@click.option("--strategy", type=click.Choice(STRATEGIES), help="Of Flower's, how updates become one.")
@click.option("--rate", type=click.FloatRange(0, 100, min_open=True), help="What the aggregate is multiplied by.")
@click.option("--certificate", type=_FILE, metavar="FILE", help="Of TLS, PEM; without it others can read updates.")
@click.option("--key", type=_FILE, metavar="FILE", help="Of --certificate, PEM.")
@common
def serve(common: Common, **given: Any) -> None:
    """Lead rounds: devices that joined get the shared layer, and what they learned moves it.

    The layer is kept in the data folder; a server that was stopped or killed goes on after its last round.
    """
    if (given["certificate"] is None) != (given["key"] is None):
        raise click.UsageError("--certificate and --key belong together")
    if given["least_devices"] > given["devices_per_round"]:
        raise click.UsageError("--least-devices is more than --devices-per-round")
    import numpy as np

    from edgelm.swarm.aggregate import AggregateConfig
    from edgelm.swarm.link import Link, Listening
    from edgelm.swarm.server import Outcome, ServeConfig, Server

    def told(outcome: Outcome) -> None:
        what = f"general text costs {outcome.general_cost:+.2%}" if outcome.kept else f"not kept: {outcome.why}"
        counts = f"{outcome.answered} of {outcome.asked} devices"
        common.emit(vars(outcome), f"round {outcome.round}: {counts}; {what} ({outcome.seconds:.0f} s)")
        sys.stdout.flush()

    chosen = {name: given[name] for name in ("strategy", "rate") if given[name] is not None}
    config = ServeConfig(
        _folder() / "server", given["rounds"], given["devices_per_round"], given["least_devices"], given["wait"],
        given["every"], replace(AggregateConfig(), **chosen),
    )  # fmt: skip
    listening = Listening(given["listen"], given["port"], given["certificate"], given["key"])
    server = Server(common.options, config, np.random.default_rng(common.options.seed or None), told)
    with _until_told() as told_to_end:
        try:
            link = Link(listening, server.status)
            common.emit({"url": link.url, "round": server.shared.round}, f"{link.url}  (round {server.shared.round})")
            sys.stdout.flush()
            try:
                server.run(link, told_to_end.wait)
            finally:
                link.close()
        finally:
            server.close()


@swarm.command()
@click.argument("address")
@click.option("--every", type=click.FloatRange(0.1), default=60.0, show_default=True, help="Seconds between questions.")
@click.option("--rounds", type=click.IntRange(0), default=0, help="Updates to send (default: until stopped).")
@click.option("--while-idle/--always", default=True, show_default=True, help="Only while little else runs here.")
@click.option("--root", type=_FILE, metavar="FILE", help="Certificate of the server or of who signed it, PEM: TLS.")
@common
def join(common: Common, address: str, **given: Any) -> None:
    """Take part with a profile: ADDRESS is HOST:PORT of a server.

    In a round the server's layer is checked and put beneath the profile's log, and how the log then moved the weights
    is sent: clipped, in noise, in 300 kB at most. The words are never sent. Nothing happens while somebody talks with
    the profile or the device is too warm.
    """
    import numpy as np

    from edgelm.swarm.connection import checked_address
    from edgelm.swarm.device import Device, ledger_path
    from edgelm.swarm.joining import JoinConfig, Joining
    from edgelm.swarm.update import UpdateConfig

    heat, where = Heat(ports.detect()), checked_address(address)
    with _until_told() as told_to_end:
        # Its owner comes first.
        os.nice(10)

        def rest() -> None:
            waited = 0.0
            while heat.is_too_high() and waited < _REST_SECONDS:
                waited += 1
                told_to_end.wait(1)

        def told(line: str, fields: dict[str, Any]) -> None:
            common.emit(fields, line)
            sys.stdout.flush()

        device = Device(common.options, UpdateConfig(), np.random.default_rng(), rest)
        config = JoinConfig(where, given["root"], given["every"], given["rounds"], given["while_idle"])
        ledger = ledger_path(_folder(), common.options.profile)
        Joining(device, config, ledger, heat.is_too_high, told).run(told_to_end.wait)


_REST_SECONDS = 10.0


@swarm.command()
@click.argument("address", required=False)
@click.option("--root", type=_FILE, metavar="FILE", help="Certificate of the server or of who signed it, PEM: TLS.")
@common
def status(common: Common, address: str | None, root: Path | None) -> None:
    """What a server does, or without ADDRESS what this profile has given and taken."""
    if address is None:
        from edgelm.swarm.device import ledger_path, read_ledger

        fields = {
            "profile": common.options.profile,
            **asdict(read_ledger(ledger_path(_folder(), common.options.profile))),
        }
    else:
        fields = _asked(address, root)
    shown = fields | ({"time": _local(fields["time"])} if "time" in fields else {})
    common.emit(fields, "\n".join(f"{name:15s} {value}" for name, value in shown.items()))


def _local(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)) if seconds else ""


def _asked(address: str, root: Path | None) -> dict[str, Any]:
    from edgelm.swarm.connection import bounded_client, checked_address, reported
    from edgelm.swarm.flower import httpx

    kinds = {"model": str, "model_sha256": str, "round": int, "sha256": str, "devices": int, "asking": bool}
    url = f"{'http' if root is None else 'https'}://{checked_address(address)}/swarm/status"
    try:
        with bounded_client(1 << 16, root, 10.0) as client:
            found = client.get(url).raise_for_status().json()
        if type(found) is not dict or {name: type(value) for name, value in found.items()} != kinds:
            raise ValueError
    except httpx.HTTPError as exc:
        raise reported(exc, address) from None
    except ValueError:
        raise InputError(f"{address}: its answer is none of `edgelm swarm serve`") from None
    return {name: found[name] for name in kinds}
