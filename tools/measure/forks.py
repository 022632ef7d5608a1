"""Runs ``edgelm`` commands in forks of one process that has imported everything and loaded all kernels.

A command takes a few hundredths of a second that way on a tiny model, so that it can be killed or run into a
fault some thousand times. The process that forks must have no threads that work.
"""

from __future__ import annotations

import gc
import os
import select
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

from edgelm.config import LearnConfig
from edgelm.learn.adaptation import Adaptation
from edgelm.log.entry import CHAT, Entry
from edgelm.log.profile import Profile
from edgelm.model import hub

# With these the libraries start no threads that work before the first fork.
os.environ |= {"ORT_DISABLE_TELEMETRY": "1", "RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
PIECE = 300
"""Characters of a piece of ``adapt`` here: short, so that there are many ends of pieces to be cut at."""
PATIENCE_SECONDS = 300


class Command:
    """A command under way in a process of its own.

    Parameters
    ----------
    args : sequence of str
        What stands behind ``edgelm``.
    prepare : callable
        Called in that process before the command begins.

    Attributes
    ----------
    out, err : bytes
        What it has said.
    has_ended : bool
        Whether it has closed both.
    """

    def __init__(self, args: Sequence[str], prepare: Callable[[], None] = lambda: None) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        (stdin, self._stdin), (self._out, stdout), (self._err, stderr) = os.pipe(), os.pipe(), os.pipe()
        self.out = self.err = b""
        self._open = {self._out, self._err}
        self.pid = os.fork()
        if self.pid == 0:
            for fd in (self._stdin, self._out, self._err):
                os.close(fd)
            _become(args, prepare, (stdin, stdout, stderr))
        for fd in (stdin, stdout, stderr):
            os.close(fd)

    @property
    def lines(self) -> list[bytes]:
        """The whole lines on stdout."""
        return self.out.split(b"\n")[:-1]

    @property
    def has_ended(self) -> bool:
        """Whether it has closed stdout and stderr."""
        return not self._open

    def send(self, text: str) -> None:
        """Writes to its standard input."""
        with suppress(BrokenPipeError):  # it has ended; its exit code will say why
            os.write(self._stdin, text.encode())

    def end_input(self) -> None:
        """Closes its standard input."""
        if self._stdin >= 0:
            os.close(self._stdin)
            self._stdin = -1

    def read(self, seconds: float) -> None:
        """Waits for something to be said, at most so long."""
        if not self._open:
            return
        ready, _, _ = select.select(list(self._open), [], [], max(0.0, seconds))
        for fd in ready:
            blob = os.read(fd, 1 << 16)
            if not blob:
                self._open.discard(fd)
                os.close(fd)
            elif fd == self._out:
                self.out += blob
            else:
                self.err += blob

    def kill(self) -> None:
        """Ends it at once, as a loss of power would."""
        os.kill(self.pid, signal.SIGKILL)

    def finish(self) -> int:
        """Waits for its end; returns the exit code, or minus the signal that ended it."""
        self.end_input()
        until = time.monotonic() + PATIENCE_SECONDS
        while self._open:
            self.read(until - time.monotonic())
            if time.monotonic() > until:
                self.kill()
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def _become(args: Sequence[str], prepare: Callable[[], None], streams: tuple[int, int, int]) -> None:
    from edgelm.cli.main import main

    code: object = 1
    try:
        for number, fd in enumerate(streams):
            os.dup2(fd, number)
            os.close(fd)
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115
        sys.argv = ["edgelm", *args]
        prepare()
        main()
    except SystemExit as exc:
        code = exc.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code if isinstance(code, int) else 0)


def run(args: Sequence[str], text: str = "", prepare: Callable[[], None] = lambda: None) -> tuple[int, Command]:
    """Runs a command to its end; returns its exit code too."""
    command = Command(args, prepare)
    command.send(text)
    return command.finish(), command


@contextmanager
def room() -> Iterator[Path]:
    """An empty folder, in memory where that can be: what a killed process wrote is there, whatever the disk."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


@contextmanager
def tiny_model(name: str | None, seed: int = 0) -> Iterator[str]:
    """The model to use: the one that is named, or a tiny one, written for as long as it is used."""
    if name is not None:
        yield name
        return
    with room() as folder:
        # In a process of its own: to train the tokenizer takes threads.
        script = "import sys; from tests.model_folder import *; write_tiny_model(Path(sys.argv[1]), int(sys.argv[2]))"
        subprocess.run([sys.executable, "-c", script, str(folder / "tiny"), str(seed)], check=True)
        yield str(folder / "tiny")


def preload(model: hub.Model) -> None:
    """Imports what the commands import, loads the kernels, and makes pieces and checkpoints small."""
    import edgelm.cli.chat
    import edgelm.cli.learning
    import edgelm.cli.profile
    import edgelm.learn.long_text
    from edgelm.text.files import pieces

    _replace(edgelm.learn.long_text, "pieces", partial(pieces, size=PIECE))
    _replace(edgelm.learn.long_text, "SAVE_TOKENS", 150)
    # Scoring general text shows what was learned; it changes nothing and takes longer than all else.
    edgelm.cli.learning.general_text = lambda: "The ferry waits.\n"
    adaptation = Adaptation(_copy(model), None, LearnConfig(), time.time)
    adaptation.prepare()
    adaptation.learn(Entry(1, 0.0, CHAT, "The ferry waits in the fog."), report=True)
    adaptation.prepare()
    adaptation.replay.consolidate()
    adaptation.replay.round_to_checkpoint()
    # What is alive now stays alive: a collection in a fork would copy all its pages.
    gc.freeze()
    # ONNX Runtime starts one when it is imported, which waits for ever and holds nothing.
    if (n_threads := len(list(Path("/proc/self/task").iterdir()))) > 2:
        raise RuntimeError(f"{n_threads} threads before the first fork")


def set_least_tokens(n_tokens: int) -> None:
    """So little is replayed rather than written to a checkpoint."""
    import edgelm.cli.profile
    import edgelm.learn.long_text
    import edgelm.runtime

    for module in (edgelm.learn.long_text, edgelm.cli.profile, edgelm.runtime):
        _replace(module, "LEAST_TOKENS", n_tokens)


def _replace(module: ModuleType, name: str, value: Any) -> None:
    """Another value for what a module uses; it must be there, or nothing would change."""
    assert hasattr(module, name), f"{module.__name__} has no {name} any more"
    setattr(module, name, value)


def _copy(model: hub.Model) -> hub.Model:
    copied = replace(model)
    for name, array in model.adaptable.items():
        copied.adaptable[name][:] = array
    return copied


def read_log(home: Path, model: hub.Model, name: str = "default") -> tuple[list[Entry], str]:
    """The entries of a profile, every one of them verified, and how far an adaptation came."""
    if not (home / "profiles").exists():
        return [], ""
    profile = Profile(home / "profiles", name, model, writable=False)
    try:
        return profile.entries, profile.progress
    finally:
        profile.close()


def copy_log(home: Path, path: Path) -> None:
    """Copies the database of the default profile with all that its journal holds."""
    with (
        closing(sqlite3.connect(home / "profiles" / "default.db")) as source,
        closing(sqlite3.connect(path)) as target,
    ):
        source.backup(target)


def base_of(home: Path, model: hub.Model) -> str:
    """Identifies the model that the default profile was learned on."""
    profile = Profile(home / "profiles", "default", model, writable=False, any_base=True)
    try:
        return profile.base
    finally:
        profile.close()


def dependents(home: Path, model: hub.Model, entry_id: int) -> set[int]:
    """The entries of the default profile that go when this one is forgotten."""
    profile = Profile(home / "profiles", "default", model, writable=False)
    try:
        return profile.dependents([entry_id])
    finally:
        profile.close()


_replayed: dict[tuple[object, ...], str] = {}


def learned_sha256(home: Path, model: hub.Model, *, anew: bool) -> str:
    """Identifies what the default profile has learned; ``anew`` by a replay of its log from nothing.

    Works on a copy, as a reader shall leave nothing behind; what one log gave is remembered.
    """
    with room() as folder:
        copy = folder / "profiles"
        shutil.copytree(home / "profiles", copy)
        for path in copy.glob("*.weights-*") if anew else ():
            path.unlink()
        profile = Profile(copy, "default", model, writable=False)
        key = (model.sha256, *((e.id, e.kind, e.text, e.parent, e.amount) for e in profile.entries))
        try:
            if anew and key in _replayed:
                return _replayed[key]
            adaptation = Adaptation(_copy(model), profile, LearnConfig(), time.time)
            adaptation.catch_up()
            if anew:
                _replayed[key] = adaptation.sha256
            return adaptation.sha256
        finally:
            profile.close()


def weights_problem(home: Path, model: hub.Model) -> str:
    """What is wrong with the weights: they must be those of a replay of the log from nothing."""
    found, right = (learned_sha256(home, model, anew=anew) for anew in (False, True))
    if found == right:
        return ""
    kinds = " ".join(f"{entry.id}:{entry.kind}" for entry in read_log(home, model)[0])
    return f"the weights are not those of a replay of the log ({kinds})"
