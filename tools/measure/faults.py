"""Lets every system call that changes the data folder fail, one after the other, and looks for what was lost.

python -m tools.measure.faults [--model NAME|PATH] [--each all|one] [--json]

Chat, adapt, chat, forget and rollback are run with a disk that is full (ENOSPC) or fails (EIO) at the n-th call,
once or from there on, and with a kill within the n-th call, for every n; with ``--each one`` each n has one of
these. Needs a C compiler (``cc``). Ends with exit code 1 if anything was lost.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from edgelm.log.entry import Entry
from edgelm.model import hub
from edgelm.text.files import pieces
from tools.measure import forks

SOURCE = Path(__file__).with_suffix(".c")
SECRET = "quokka"
"""A word that is to be forgotten."""
FAULTS = (
    ("full disk, once", errno.ENOSPC, False),
    ("full disk", errno.ENOSPC, True),
    ("failing disk, once", errno.EIO, False),
    ("failing disk", errno.EIO, True),
    ("kill", 0, False),
)
TEXT = "".join(f"{n} the ferry leaves at {n}, and the captain waits until {n} for the baker.\n" for n in range(1, 9))


class Shim:
    """The preloaded library in this process."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None)
        self._library.fault_count.restype = ctypes.c_long
        self._library.fault_failed.restype = ctypes.c_char_p

    def set(self, folder: str, at: int, error: int, sticky: bool) -> None:
        """Lets the ``at``-th call below ``folder`` fail; 0: none."""
        self._library.fault_set(folder.encode(), ctypes.c_long(at), error, int(sticky))

    @property
    def count(self) -> int:
        """Calls since ``set``, in whatever fork."""
        return int(self._library.fault_count())

    @property
    def failed(self) -> str:
        """The call that failed, and its path."""
        return str(self._library.fault_failed().decode())


@dataclass(frozen=True)
class Step:
    """A command of the script.

    Attributes
    ----------
    args, text
        Its arguments and standard input.
    check : callable
        (entries before, entries after, whole lines on stdout, whether it succeeded) -> what is wrong, or "".
    """

    args: tuple[str, ...]
    text: str
    check: Callable[[list[Entry], list[Entry], int, bool], str]


def _came(wanted: list[str], least: int, most: int, before: list[Entry], after: list[Entry]) -> str:
    """After the entries of before, the first of ``wanted`` must be there: between ``least`` and ``most`` of them."""
    if after[: len(before)] != before:
        return f"{len(before)} entries before, {[entry.id for entry in after]} now"
    said = [entry.text for entry in after[len(before) :] if entry.text]
    whole = said == wanted[: len(said)] and least <= len(said) <= most
    return "" if whole else f"{least} to {most} of {wanted} should be there, not {said}"


def chat(*turns: str) -> Step:
    """A chat; what is acknowledged must be in the log, and at most one turn more."""

    def check(before: list[Entry], after: list[Entry], n_lines: int, succeeded: bool) -> str:
        if succeeded and n_lines < len(turns):
            return f"{n_lines} answers to {len(turns)} turns"
        return _came(list(turns), n_lines, n_lines + 1, before, after)

    return Step(("chat", "--max-tokens", "4"), "".join(f"{turn}\n" for turn in turns), check)


def adapt(file: Path) -> Step:
    """Reads a file; what the log has of it already is not to come again."""
    parts = list(pieces(file.read_text(), forks.PIECE))

    def check(before: list[Entry], after: list[Entry], _: int, succeeded: bool) -> str:
        done = sum(entry.text in parts for entry in before)
        wanted = parts[done:]
        return _came(wanted, len(wanted) if succeeded else 0, len(wanted), before, after)

    return Step(("adapt", str(file), "--holdout", "0"), "", check)


def removal(*args: str, keeps: Callable[[Entry], bool]) -> Step:
    """``profile forget`` and ``profile rollback``: wholly or not at all."""

    def check(before: list[Entry], after: list[Entry], _: int, succeeded: bool) -> str:
        left = [entry for entry in before if keeps(entry)]
        if after == left or (after == before and not succeeded):
            return ""
        return f"{len(before)} entries before, {len(after)} now, {len(left)} should be left"

    return Step(("profile", *args), "", check)


def script(file: Path) -> list[Step]:
    """What is run, in this order, on one profile."""
    return [
        chat(f"My {SECRET} sleeps in the harbour.", "The baker brings rolls."),
        adapt(file),
        chat("In the evening the lamps are lit.", "There is fog."),
        removal("forget", "--match", SECRET, keeps=lambda entry: SECRET not in entry.text),
        removal("rollback", "4", keeps=lambda entry: entry.id <= 4),
    ]


class Tester:
    """Runs steps with faults.

    Parameters
    ----------
    folder : Path
        Empty; for homes.
    model : Model
    name : str
        Its ``--model``.

    Attributes
    ----------
    cases : Counter
        Runs by kind of fault.
    codes : Counter
        Exit codes.
    failures : list of str
    """

    def __init__(self, folder: Path, model: hub.Model, name: str) -> None:
        self.model, self.name, self.shim = model, name, Shim()
        self.home, self._kept = folder / "home", folder / "kept"
        self.cases: Counter[str] = Counter()
        self.codes: Counter[str] = Counter()
        self.failures: list[str] = []
        self._where = ""

    def run(self, step: Step, fault: tuple[int, int, bool] = (0, 0, False)) -> tuple[int, forks.Command]:
        """Runs a step with a fault (at, errno, sticky)."""
        home, shim = f"{self.home}", self.shim

        def prepare() -> None:
            forks.set_least_tokens(0)
            shim.set(home, *fault)

        done = forks.run([*step.args, "--json", "--seed", "1", "--model", self.name], step.text, prepare)
        count, failed = shim.count, shim.failed
        shim.set("", 0, 0, False)
        self.n_calls, self.failed = count, failed
        return done

    def test(self, steps: list[Step], *, all_faults: bool, stride: int) -> Iterator[str]:
        """Runs all steps with all faults; yields a line about each."""
        for number, step in enumerate(steps):
            shutil.rmtree(self._kept, ignore_errors=True)
            self.home.mkdir(exist_ok=True)
            shutil.copytree(self.home, self._kept)
            before = forks.read_log(self.home, self.model)[0]
            self._where = f"{step.args[:2]} without a fault"
            self._check(step, before, *self.run(step))
            n_calls, begun = self.n_calls, time.monotonic()
            for at in range(1, n_calls + 1, stride):
                for i, (kind, error, sticky) in enumerate(FAULTS):
                    if all_faults or i == (at + number) % len(FAULTS):
                        self._try(step, before, kind, (at, error, sticky))
            yield f"{' '.join(step.args[:2])}: {n_calls} calls, {time.monotonic() - begun:.0f} s"
            self._restore()
            self.run(step)

    def _restore(self) -> None:
        shutil.rmtree(self.home)
        shutil.copytree(self._kept, self.home)

    def _try(self, step: Step, before: list[Entry], kind: str, fault: tuple[int, int, bool]) -> None:
        self._restore()
        self.cases[kind] += 1
        code, command = self.run(step, fault)
        self._where = f"{' '.join(step.args[:2])}, {kind} at call {fault[0]}, {self.failed}"
        self.codes[f"{kind}: {code}"] += 1
        if (code == -9) != (fault[1] == 0) or code not in (0, 1, -9):
            self._fail(f"exit code {code}")
        try:
            self._check(step, before, code, command)
            self._go_on(step)
        except Exception as exc:
            self._fail(f"{type(exc).__name__}: {exc}")

    def _go_on(self, step: Step) -> None:
        """The next run must be a good one, whatever came before it."""
        before, unfinished = forks.read_log(self.home, self.model)
        after = step if unfinished else chat("And afterwards?")
        self._where += ", the next run"
        code, command = self.run(after)
        if code != 0:
            self._fail(f"exit code {code}")
        self._check(after, before, code, command)
        if problem := forks.weights_problem(self.home, self.model):
            self._fail(problem)
        said = [entry.text for entry in forks.read_log(self.home, self.model)[0]]
        if not any(SECRET in text for text in said):
            files = [path for path in self.home.rglob("*") if path.is_file()]
            if found := [path.name for path in files if SECRET.encode() in path.read_bytes()]:
                self._fail(f"what was forgotten is still in {found}")

    def _check(self, step: Step, before: list[Entry], code: int, command: forks.Command) -> None:
        lines = command.err.decode(errors="replace").splitlines()
        spoken = len(lines) == 1 and lines[0].startswith("edgelm: ") if code == 1 else not lines
        if not spoken:
            self._fail(f"exit code {code} and on stderr: {command.err.decode(errors='replace')}")
        after = forks.read_log(self.home, self.model)[0]
        if problem := step.check(before, after, len(command.lines), code == 0):
            self._fail(problem)

    def _fail(self, problem: str) -> None:
        self.failures.append(f"{self._where}: {problem}")


def _preload() -> None:
    """Begins this process anew with the shim, compiled for it."""
    with TemporaryDirectory() as folder:
        library = f"{folder}/faults.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, str(SOURCE), "-ldl"], check=True)
        environment = os.environ | {"LD_PRELOAD": library}
        code = subprocess.run([sys.executable, "-m", "tools.measure.faults", *sys.argv[1:]], env=environment).returncode
    sys.exit(code)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="default: a tiny one, made for this")
    parser.add_argument("--each", choices=("all", "one"), default="all")
    parser.add_argument("--stride", type=int, default=1, help="only every so manieth call fails")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if not hasattr(ctypes.CDLL(None), "fault_set"):
        _preload()
    begun = time.monotonic()
    with forks.tiny_model(args.model) as name, forks.room() as folder:
        os.environ["EDGELM_HOME"] = f"{folder}/home"
        file = folder / "text.txt"
        file.write_text(TEXT)
        model = hub.load(name)
        forks.preload(model)
        tester = Tester(folder, model, name)
        for line in tester.test(script(file), all_faults=args.each == "all", stride=args.stride):
            if not args.json:
                print(line, flush=True)
    fields = {
        "cases": dict(tester.cases), "exit_codes": dict(sorted(tester.codes.items())), "failures": tester.failures,
        "seconds": round(time.monotonic() - begun, 1),
    }  # fmt: skip
    print(json.dumps(fields, indent=None if args.json else 2))
    sys.exit(1 if tester.failures else 0)


if __name__ == "__main__":
    main()
