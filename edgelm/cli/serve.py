"""``serve``: the learner where other programs reach it."""

from __future__ import annotations

import signal
import sys
import time
import traceback
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgelm.asking import Friend
from edgelm.cli.options import Common, asks, common
from edgelm.config import SampleConfig, data_dir
from edgelm.errors import DeviceError

if TYPE_CHECKING:
    from edgelm.serve.app import Listening


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0: all.")
@click.option("--port", type=click.IntRange(0, 65535), default=8420, show_default=True, help="0: a free one.")
@click.option("--learn", is_flag=True, help="Learn what people write, unless a request says that it shall not.")
@click.option("--no-learn", is_flag=True, help="Learn nothing, whatever a request says; the profile is only read.")
@click.option("--need-key", is_flag=True, help="Ask for a key on this device too, not only from elsewhere.")
@click.option("--new-key", is_flag=True, help="Print another key for --profile, and end.")
@click.option("--allow-host", multiple=True, metavar="NAME", help="A name of this device that clients may use.")
@click.option("--allow-origin", multiple=True, metavar="URL", help="A page of another server that may ask.")
@click.option("--no-bank", is_flag=True, help="Answer without the bank of exchanges that comes with edgelm.")
@click.option("--wyoming", type=click.IntRange(0, 65535), metavar="PORT", help="Speak the Wyoming protocol there too.")
@click.option(
    "--wyoming-host",
    default="127.0.0.1",
    show_default=True,
    help="Address of --wyoming, which has no keys: whoever reaches it may talk and, with --learn, teach.",
)
@click.option(
    "--intents",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="TOML file of intents, recognised over --wyoming.",
)
@asks
@common
def serve(common: Common, friend: Friend | None, **given: Any) -> None:
    """Answer over HTTP: OpenAI's and Ollama's clients, a page, and an API that shows and forgets what was learned.

    Nothing is learned unless --learn or a request asks for it. From other devices a key is needed; it is made at the
    first start, in the file serve.keys of the data folder. Each key belongs to a profile.

    With --ask URL a question that edgelm does not answer well is sent to the server at URL, as in `edgelm chat`.
    """
    try:
        from edgelm.serve.access import KEYS, Keys
        from edgelm.serve.app import serve as run
        from edgelm.serve.served import ServeOptions
    except ModuleNotFoundError as exc:
        raise DeviceError(f"serving needs {exc.name}: pip install 'edgelm[serve]'") from None
    import asyncio
    from dataclasses import replace

    if given["learn"] and given["no_learn"]:
        raise click.UsageError("--learn and --no-learn contradict each other")
    if given["intents"] is not None and given["wyoming"] is None:
        raise click.UsageError("--intents needs --wyoming PORT: over HTTP no intents are recognised")
    keys = data_dir() / KEYS
    if given["new_key"]:
        key = Keys(keys, common.options.profile).add(common.options.profile)
        common.emit({"profile": common.options.profile, "key": key}, key)
        return
    options = ServeOptions(
        replace(common.options, bank=not given["no_bank"]), learn=given["learn"], may_learn=not given["no_learn"],
        sampling=SampleConfig(), friend=friend,
    )  # fmt: skip

    def ready(url: str, wyoming: str) -> None:
        also = f"\n{wyoming}  (Wyoming, without keys)" if wyoming else ""
        fields = {"url": url, "keys": str(keys)} | ({"wyoming": wyoming} if wyoming else {})
        common.emit(fields, f"{url}  (a page is there, too; keys: {keys}){also}")
        sys.stdout.flush()

    def failed(exc: BaseException) -> None:
        line = " ".join("".join(traceback.format_exception_only(exc)).split())
        common.note(f"a request failed: {line}", always=True)
        if common.verbose:
            common.note("".join(traceback.format_exception(exc)), always=True)

    asyncio.run(_until_told(run(options, _listening(given, keys), time.time, ready, failed)))


async def _until_told(serving: Coroutine[Any, Any, None]) -> None:
    """Until it ends, or is told to by a signal."""
    import asyncio

    task = asyncio.ensure_future(serving)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with suppress(asyncio.CancelledError):
        await task


def _listening(given: dict[str, Any], keys: Path) -> Listening:
    """Where to listen, as the options have it."""
    from edgelm.serve.app import Listening, WyomingListening
    from edgelm.serve.intents import read_intents

    wyoming = None
    if given["wyoming"] is not None:
        intents = read_intents(given["intents"]) if given["intents"] is not None else None
        wyoming = WyomingListening(given["wyoming_host"], given["wyoming"], intents)
    return Listening(
        given["host"], given["port"], keys, given["allow_host"], given["allow_origin"], needs_key=given["need_key"],
        wyoming=wyoming,
    )  # fmt: skip
