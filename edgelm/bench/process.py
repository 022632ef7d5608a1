"""What only a new process shows: how soon it answers, how much memory it takes, and what a peer does."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edgelm.config import environment_with_home
from edgelm.errors import EdgelmError
from edgelm.model import hub
from edgelm.runtime import EngineOptions, models_dir

PEERS = {
    "torch": ("torch", "edgelm.bench.peers.torch_peer"),
    "llama-cpp": ("llama_cpp", "edgelm.bench.peers.llama_peer"),
}
"""Name of a peer: the package that it is, and the script that measures it, a module of its own process."""
STARTS = 3
_SAID = "My sister lives by the sea, and her dog is called Pepper.\n"


class Commands:
    """Runs edgelm's own commands as new processes, in a home of their own where nothing was learned yet.

    Parameters
    ----------
    options : EngineOptions
        ``profile`` counts for nothing: what a person told is not what a machine is measured by. ``engine`` answers in
        the chat that learns.
    engine_without_learning : {"kernels", "onnx"}, optional
        What answers in the other processes; default: as in that one. None of them chooses an engine by itself, for
        what was measured of them is kept in the home of the user.

    Raises
    ------
    EdgelmError
        There is no such model, or a command failed.
    """

    def __init__(self, options: EngineOptions, engine_without_learning: str | None = None) -> None:
        # Pulled models stay where they are.
        model = hub.find(options.model, models_dir()).resolve()
        self._options = ["--model", str(model), "--threads", str(options.threads)]
        self._engines = {True: options.engine, False: engine_without_learning or options.engine}
        self._home = tempfile.TemporaryDirectory(prefix="edgelm-")
        self._environment = environment_with_home(Path(self._home.name))

    def __enter__(self) -> Commands:
        return self

    def __exit__(self, *_: object) -> None:
        self._home.cleanup()

    def first_token_ms(self) -> list[float]:
        """Milliseconds from the start of ``edgelm complete hi -n 1`` to its first byte, several times.

        What a first start leaves behind, the files in memory and compiled Python, is there.
        """
        return [self._first_byte_ms() for _ in range(1 + STARTS)][1:]

    def _first_byte_ms(self) -> float:
        begun = time.perf_counter()
        with self._start(["complete", "hi", "-n", "1"]) as process:
            assert process.stdin and process.stdout
            process.stdin.close()
            first = process.stdout.read(1)
            elapsed = time.perf_counter() - begun
            process.stdout.read()
            self._check(process, first)
        return 1e3 * elapsed

    def chat_rss_mb(self, *, learn: bool) -> float:
        """Millions of bytes that a chat has needed when its first turn is answered, at most."""
        arguments = ["chat", "--json", "--max-tokens", "32", *([] if learn else ["--no-learn"])]
        with self._start(arguments, learn=learn) as process:
            try:
                assert process.stdin and process.stdout
                with suppress(BrokenPipeError):  # it has failed; below it is said why
                    process.stdin.write(_SAID.encode())
                answer = process.stdout.readline()
                peak = _peak_bytes(process.pid) if answer else None
                if not answer:
                    self._check(process, answer)
            finally:
                # What it would do at its end, keeping what was learned, is of no use here.
                process.kill()
        if peak is None:
            usage = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
            peak = usage if sys.platform == "darwin" else 1024 * usage
        return peak / 1e6

    def _start(self, arguments: Sequence[str], *, learn: bool = False) -> subprocess.Popen[bytes]:
        engine = self._engines[learn]
        options = [*self._options, *(["--engine", engine] if engine else [])]
        command = [sys.executable, "-m", "edgelm", *arguments, *options]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, bufsize=0, stdin=pipe, stdout=pipe, stderr=pipe, env=self._environment)

    @staticmethod
    def _check(process: subprocess.Popen[bytes], answer: bytes) -> None:
        assert process.stderr
        said = process.stderr.read()
        if process.wait() or not answer:
            why = _why_it_ended(process.returncode, said.decode(errors="replace"))
            raise EdgelmError(f"a process that was to be measured failed: {why}")


def _peak_bytes(pid: int, proc: Path = Path("/proc")) -> int | None:
    """The largest resident set of a process so far; None where the system does not say."""
    try:
        lines = (proc / str(pid) / "status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    sizes = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return 1024 * int(sizes[0]) if sizes else None


def lacking(peer: str) -> str:
    """Why a peer (a key of ``PEERS``) cannot be measured here; empty if it can."""
    package, _ = PEERS[peer]
    return f"{package} is not installed" if find_spec(package) is None else ""


def run_peer(peer: str, arguments: Sequence[str]) -> dict[str, Any]:
    """What the script of a peer (a key of ``PEERS``) measures.

    Raises
    ------
    EdgelmError
        It failed.
    """
    command = [sys.executable, "-m", PEERS[peer][1], *arguments]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise EdgelmError(f"its script failed: {_why_it_ended(done.returncode, done.stderr)}")
    fields: dict[str, Any] = json.loads(_last_line(done.stdout))
    return fields


def _why_it_ended(code: int, said: str) -> str:
    """The last line that a process said, and before it the signal that ended it, if one did."""
    if code >= 0:
        return _last_line(said)
    # Of those for whatever a program likes (SIGRTMIN + 1 and on) there is a number alone.
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return f"{name} ({signal.strsignal(-code) or 'unknown'}); {_last_line(said)}"


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "it said nothing")
