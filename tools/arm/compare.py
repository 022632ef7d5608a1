"""The same log, learned on emulated Arm and on this machine: what differs?

python -m tools.arm compare ROOM [--cpu CPU] [--short]

Twenty turns of chat with learning, a text adapted, a process killed in a turn and started again, all with the float32
graph at temperature 0 (``--short``: two turns, fewer tokens, no text): answers must be the same to the last token,
learned weights within ``TOLERANCE``. Integers round differently, so of those the first difference is reported. Prints a
line a check, and fails with their number.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from edgelm.model import tensorfile

TOLERANCE = 1e-3
"""Largest difference of a learned weight, as a share of the largest change of its tensor; a change is kept in float16,
whose last bit is half of that."""
TURNS = (
    "hello", "my name is Ada", "I live in a small town by the sea", "my dog is called Biscuit",
    "he likes to swim in the harbour", "what is my dog called?", "I work as a baker", "the bakery opens at five",
    "when does the bakery open?", "I am a bit tired today", "my sister Nora plays the violin",
    "she lives in Lisbon", "where does my sister live?", "we had soup for dinner", "do you like music?",
    "my favourite colour is green", "what is my favourite colour?", "what is my name?", "thank you", "good night",
)  # fmt: skip
TEXT = "\n".join(
    f"The {what} of the harbour master is kept in the {where} house, and nobody may use it before the bell."
    for what, where in product(("lamp", "boat", "key", "horn", "map", "rope"), ("white", "old", "upper", "ice"))
)
N_TOKENS = 100
"""Of a completion."""


class Machine:
    """Runs edgelm's commands with a data folder of its own, here or in the room."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self._command, self.folder = command, folder
        folder.mkdir()

    def start(self, *args: str, home: str = "home", precision: str = "float32") -> subprocess.Popen[str]:
        """A process with pipes."""
        environment = os.environ | {"EDGELM_HOME": str(self.folder / home), "EDGELM_GRAPH": precision}
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [*self._command, "-m", "edgelm", *args], env=environment, stdin=pipe, stdout=pipe, text=True,
            start_new_session=True,
        )  # fmt: skip

    def run(self, *args: str, said: str = "", home: str = "home", precision: str = "float32") -> str:
        """What a command prints."""
        with self.start(*args, home=home, precision=precision) as process:
            printed, _ = process.communicate(said)
        if process.returncode:
            raise SystemExit(f"{' '.join(self._command)} -m edgelm {' '.join(args)}: exit code {process.returncode}")
        return printed

    def chat(self, *said: str, home: str = "home") -> list[dict[str, Any]]:
        """The turns of a conversation."""
        lines = self.run(*_CHAT, said="\n".join(said) + "\n", home=home).splitlines()
        return [json.loads(line) for line in lines]

    def killed(self, said: Sequence[str], kept: int) -> list[str]:
        """Says all, and is killed when so many turns are acknowledged; the log that is left, and a new answer.

        What had been logged besides is taken back before that, since one machine may be further than the other.
        """
        with self.start(*_CHAT, home="killed") as process:
            assert process.stdin and process.stdout
            process.stdin.write("\n".join(said) + "\n")
            process.stdin.flush()
            for _ in range(kept):
                process.stdout.readline()
            os.killpg(process.pid, signal.SIGKILL)
        entries = [json.loads(line) for line in self.run("profile", "log", "--json", home="killed").splitlines()]
        log = [entry["text"] for entry in entries]
        if len(log) > kept:
            self.run("profile", "rollback", str(entries[kept - 1]["id"]), home="killed")
        answer = self.chat("what is my dog called?", home="killed")[0]["reply"]
        return [*log[:kept], answer] if list(said[: len(log)]) == log else [f"a log of other words: {log}"]

    def change(self, name: str = "default") -> dict[str, np.ndarray]:
        """The learned change of a profile."""
        path = self.folder / f"{name}.safetensors"
        self.run("profile", "export", str(path), "--profile", name)
        return tensorfile.read(path)[0]


def compare(
    ours: Machine, theirs: Machine, turns: Sequence[str] = TURNS, n_tokens: int = N_TOKENS, text: str = TEXT
) -> dict[str, str]:
    """By check, what differs; nothing where nothing does."""
    found: dict[str, str] = {}
    completion = ("complete", "The ferry", "-n", str(n_tokens), "--temperature", "0")

    def both(name: str, ask: Callable[[Machine], Any], differ: Callable[[Any, Any], str] = _inequality) -> None:
        found[name] = differ(ask(ours), ask(theirs))
        print(f"{name:28s} {found[name] or 'the same'}", flush=True)

    both(f"{len(turns)} turns: answers", lambda m: [turn["reply"] for turn in m.chat(*turns)])
    both(f"{len(turns)} turns: weights", lambda m: m.change(), _difference)
    both("killed and started again", lambda m: m.killed(turns[:8], len(turns[:8]) // 2))
    if text:
        path = ours.folder / "text.txt"
        path.write_text(text, encoding="utf-8")
        both("adapt: figures", lambda m: _figures(m.run("adapt", str(path), "--json", "--profile", "text")))
        both("adapt: weights", lambda m: m.change("text"), _difference)
    both(f"float32: {n_tokens} tokens", lambda m: m.run(*completion))
    both("against numpy", lambda m: m.run("models", "verify", "--json"))
    of_integers = [m.run(*completion, precision="int8") for m in (ours, theirs)]
    same = next((i for i, (a, b) in enumerate(zip(*of_integers, strict=False)) if a != b), len(of_integers[0]))
    print(f"int8: the same for {same} of {len(of_integers[0])} characters", flush=True)
    return found


def _inequality(ours: Any, theirs: Any) -> str:
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        return "; ".join(f"{i}: {a!r}, {b!r}" for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b)
    return "" if ours == theirs else f"{ours!r}, {theirs!r}"


def _difference(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> str:
    if ours.keys() != theirs.keys() or any(ours[name].shape != array.shape for name, array in theirs.items()):
        return "other tensors, or other blocks of them"
    worst = max(
        (float(np.abs(theirs[name].astype(np.float64) - a).max() / np.abs(a.astype(np.float64)).max()), name)
        for name, a in ours.items()
    )
    print(f"{'':28s} at most {worst[0]:.1e} of the largest change, in {worst[1]}")
    return "" if worst[0] <= TOLERANCE else f"{worst[1]} by {worst[0]:.1e} of its largest change"


def _figures(printed: str) -> dict[str, float]:
    fields = json.loads(printed)
    return {name: round(fields[name], 3) for name in ("tokens", "bits_per_byte_before", "bits_per_byte_after")}


def main(command: list[str], *, short: bool) -> None:
    """Compares this machine with the one that ``command`` runs Python on."""
    size = (TURNS[3:5], N_TOKENS // 8, "") if short else (TURNS, N_TOKENS, TEXT)
    with tempfile.TemporaryDirectory(prefix="edgelm-") as folder:
        ours = Machine([sys.executable], Path(folder) / "here")
        found = compare(ours, Machine(command, Path(folder) / "there"), *size)
    sys.exit(sum(bool(difference) for difference in found.values()))


_CHAT = ("chat", "--json", "--temperature", "0", "--seed", "1", "--max-tokens", "40")
