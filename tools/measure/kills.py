"""Kills ``chat --json``, ``adapt`` and ``profile rollback``, ``forget``, ``import`` and ``rebase`` at random moments.

It looks for what was lost. Checkpoints are small and frequent, so that many kills meet one being written.

python -m tools.measure.kills [--kills 2000] [--model NAME|PATH] [--seed 0] [--json]

A turn is acknowledged when its line of JSON is printed. After every kill the log must hold every acknowledged
turn, and what was in flight wholly or not at all. Ends with exit code 1 if anything was lost.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

from edgelm.log.entry import TEXT, Entry
from edgelm.log.profile import Profile
from edgelm.model import hub
from edgelm.text.files import pieces
from tools.measure import forks

MOST_CHARACTERS = 6000
"""A longer log is rolled back, so that its replay stays short."""
WEIGHTS_EVERY = 20
"""Runs between two comparisons of the weights with a replay from nothing."""
WORDS = """\
the a baker captain ferry harbour lamp winter fog basket roll rope boat island morning evening sea horn
neighbour waits leaves brings lights sounds borrows knows buys unties gives slow warm loud quiet early old green
née über 渡船 never always often seven thirty and but when because under behind before"""


def sentence(rng: random.Random, n_words: int) -> str:
    """Words in any order; with a number that is unlikely to come twice."""
    return " ".join([*rng.choices(WORDS.split(), k=n_words), f"{rng.randrange(10**6):06d}"])


OTHER = "other"
"""The profile that a copy of the log is imported into."""
Models = tuple[tuple[hub.Model, str], tuple[hub.Model, str]]


class Killer:
    """One profile, and what has to be in it.

    Parameters
    ----------
    home : Path
        ``EDGELM_HOME``.
    models : tuple of (Model, str)
        The one that the profile belongs to, and the one that it is moved to next; each with its ``--model``.
    seed : int

    Attributes
    ----------
    phases : Counter
        Kills by command and phase.
    failures : list of str
    acknowledged, lost, ended : int
        Turns; and runs that ended before they were killed.
    """

    def __init__(self, home: Path, models: Models, seed: int) -> None:
        self.home, self.models = home, models
        self.rng = random.Random(seed)
        self.phases: Counter[str] = Counter()
        self.failures: list[str] = []
        self.acknowledged = self.lost = self.ended = self.runs = self.weights_checks = 0
        self.entries: list[Entry] = []
        self.largest_id = 0
        self.file = home.with_name("text.txt")
        self._progress = ""
        self._usual: dict[str, float] = {}
        self._write_file()

    @property
    def model(self) -> hub.Model:
        """The one that the profile belongs to."""
        return self.models[0][0]

    @property
    def name(self) -> str:
        """Its ``--model``."""
        return self.models[0][1]

    @property
    def kills(self) -> int:
        """Commands that were killed."""
        return self.phases.total()

    def _write_file(self) -> None:
        lines = [sentence(self.rng, self.rng.randrange(5, 30)) for _ in range(self.rng.randrange(4, 16))]
        self.file.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def run(self) -> None:
        """One command, killed at some moment, and what is to be checked after it."""
        self.runs += 1
        size = sum(len(entry.text) for entry in self.entries)
        told = any(entry.text for entry in self.entries)
        if size > MOST_CHARACTERS or self.rng.random() < 0.04:
            self._rollback()
        elif told and not self._progress and self.rng.random() < 0.12:
            self.rng.choice([self._forget, self._import, self._rebase])()
        elif self._progress or self.rng.random() < 0.3:
            self._adapt()
        else:
            self._chat()
        if self.runs % WEIGHTS_EVERY == 0:
            self.check_weights()

    def check_weights(self) -> None:
        """The weights must be those of a replay of the log from nothing."""
        if self.entries:
            self.weights_checks += 1
            if problem := forks.weights_problem(self.home, self.model):
                self._fail(problem)

    def _fail(self, problem: str) -> None:
        self.failures.append(f"run {self.runs}: {problem}")

    def _prepare(self) -> Callable[[], None]:
        least, idle, seed = self.rng.choice((0, 60, 256)), self.rng.choice((0.002, 0.02, 20.0)), self.rng.random()

        def prepare() -> None:
            import edgelm.cli.chat

            forks.set_least_tokens(least)
            edgelm.cli.chat.IDLE_SECONDS = idle
            random.seed(seed)

        return prepare

    def _start(self, *args: object) -> forks.Command:
        words = [*map(str, args), "--json"]
        return forks.Command(words if "--model" in words else [*words, "--model", self.name], self._prepare())

    def _moment(self, command: str) -> float:
        """Seconds after which to kill: anywhere in a run, or in its second half, where it writes."""
        return self._usual.get(command, 0.5) * self.rng.uniform(self.rng.choice((0.0, 0.5, 0.5)), 1.1)

    def _end(self, command: forks.Command, kind: str, phase: Callable[[], str], begun: float, kill: bool) -> bool:
        """Kills it, or lets it end; returns whether it ended well before."""
        if kill:
            command.kill()
        code = command.finish()
        seconds = time.monotonic() - begun
        if code == -9:
            reached, usual = phase(), self._usual.get(kind, 0.5)
            self.phases[f"{kind}, {reached}"] += 1
            if reached.startswith("before the first") and seconds > usual / 2:
                # The machine has become slower: else no run would ever end, to say so.
                self._usual[kind] = 1.25 * usual
            return False
        self.ended += 1
        self._usual[kind] = 0.8 * self._usual.get(kind, seconds) + 0.2 * seconds
        if code != 0 or command.err:
            self._fail(f"{kind}: exit code {code}: {command.err.decode(errors='replace').strip()}")
        return code == 0

    def _chat(self) -> None:
        turns = [sentence(self.rng, self.rng.randrange(2, 14)) for _ in range(self.rng.randrange(1, 7))]
        # A third of the kills follow the start, and as many any answer, the last among them, or the last alone.
        mark = self.rng.choice((0, self.rng.randint(1, len(turns)), len(turns)))
        begun = time.monotonic()
        command = self._start("chat", "--max-tokens", 4)
        sent = self._converse(command, turns, mark)

        def phase() -> str:
            n_acks = len(command.lines)
            return "before the first answer" if n_acks == 0 else "between" if n_acks < len(turns) else "after the last"

        self._end(command, "chat", phase, begun, not command.has_ended)
        self._check_turns(turns[:sent], len(command.lines))

    def _converse(self, command: forks.Command, turns: list[str], mark: int) -> int:
        """Sends turns, each after the answer to the last, until it is to be killed; returns how many were sent.

        That is some time after ``mark`` answers.
        """
        pause, sent, due = self.rng.choice((0.0, 0.0, 0.03)), 0, time.monotonic()
        soon = self.rng.random() * (0.3 * self._usual.get("chat", 0.5) if mark == len(turns) else pause + 0.03)
        until = time.monotonic() + self._moment("chat") if mark == 0 else float("inf")
        while not command.has_ended and time.monotonic() < until:
            n_acks = len(command.lines)
            if sent == n_acks < len(turns) and time.monotonic() >= due:
                command.send(turns[sent] + "\n")
                sent += 1
            elif n_acks == len(turns):
                command.end_input()
            command.read(min(0.01, until - time.monotonic()))
            if len(command.lines) > n_acks:
                due = time.monotonic() + pause
                until = due - pause + soon if len(command.lines) == mark else until
        return sent

    def _check_turns(self, sent: list[str], n_acks: int) -> None:
        new = self._read()
        said = [entry.text for entry in new if entry.text]
        self.acknowledged += n_acks
        self.lost += len(set(sent[:n_acks]) - set(said))
        if said not in (sent[:n_acks], sent[: n_acks + 1]):
            self._fail(f"chat: sent {sent}, {n_acks} acknowledged, the log has {said}")

    def _read(self, *, kept: int | None = None) -> list[Entry]:
        """The entries that came; those of before must be there as they were."""
        old = self.entries[:kept]
        self.entries, self._progress = forks.read_log(self.home, self.model)
        before, new = self.entries[: len(old)], self.entries[len(old) :]
        same = [_lasting(a) == _lasting(b) for a, b in zip(old, before, strict=False)]
        if len(before) < len(old) or not all(same):
            self._fail(f"entries were lost or changed: {len(old)} before, {len(self.entries)} now")
        ids = [self.largest_id, *(entry.id for entry in new)]
        if any(b <= a for a, b in pairwise(ids)):
            self._fail(f"ids do not rise: {ids}")
        self.largest_id = max(ids)
        return new

    def _done(self) -> int:
        """Pieces of the file that the log has."""
        conversation = self._progress.split(":")[1] if self._progress else ""
        return sum(entry.kind == TEXT and str(entry.conversation) == conversation for entry in self.entries)

    def _adapt(self) -> None:
        parts = list(pieces(self.file.read_text(encoding="utf-8"), forks.PIECE))
        done, begun = self._done(), time.monotonic()
        command = self._start("adapt", self.file, "--holdout", 0)
        command.end_input()
        until = begun + self._moment("adapt")
        while not command.has_ended and time.monotonic() < until:
            command.read(until - time.monotonic())
        seen: list[str] = []

        def phase() -> str:
            seen.extend(entry.text for entry in self._read() if entry.text)
            n_now = done + len(seen)
            return "before the first piece" if not seen else "between" if n_now < len(parts) else "after the last"

        ended = self._end(command, "adapt", phase, begun, not command.has_ended)
        if ended:
            phase()
        if seen != parts[done : done + len(seen)] or (ended and done + len(seen) < len(parts)):
            self._fail(f"adapt: {done} of {len(parts)} pieces done, {len(seen)} came, exit was {ended}")
        if not self._progress and (ended or seen or done):
            if done + len(seen) < len(parts):
                self._fail(f"adapt: said to be complete with {done + len(seen)} of {len(parts)} pieces")
            self._write_file()
        elif self._done() != done + len(seen) or (self._progress and self._progress.split(":")[2] != str(self._done())):
            self._fail(f"adapt: the progress is {self._progress}, {done + len(seen)} pieces are in the log")

    def _profile_command(self, kind: str, args: Sequence[object], phase: Callable[[], str]) -> bool:
        """``edgelm profile KIND ARGS``, killed at some moment; returns whether it ended well before."""
        begun = time.monotonic()
        command = self._start("profile", kind, *args)
        command.end_input()
        until = begun + self._moment(kind)
        while not command.has_ended and time.monotonic() < until:
            command.read(until - time.monotonic())
        return self._end(command, kind, phase, begun, not command.has_ended)

    def _rollback(self) -> None:
        entry_id = self.rng.choice([0, *(entry.id for entry in self.entries)])
        self._take_away("rollback", entry_id, {entry.id for entry in self.entries if entry.id > entry_id})

    def _forget(self) -> None:
        entry_id = self.rng.choice([entry.id for entry in self.entries if entry.text])
        self._take_away("forget", entry_id, forks.dependents(self.home, self.model, entry_id))

    def _take_away(self, kind: str, entry_id: int, gone: set[int]) -> None:
        """``rollback`` or ``forget``: it takes all of ``gone``, or nothing."""
        n_kept, n_now = sum(entry.id not in gone for entry in self.entries), 0

        def phase() -> str:
            nonlocal n_now
            n_now = len(forks.read_log(self.home, self.model)[0])
            return "before" if n_now == len(self.entries) else "after it was written"

        if self._profile_command(kind, [entry_id], phase):
            phase()
            if n_now != n_kept:
                self._fail(f"{kind} {entry_id}: {n_now} entries are left, {n_kept} should be")
        elif n_now not in (n_kept, len(self.entries)):
            self._fail(f"{kind} {entry_id} was done in part: {len(self.entries)} before, {n_now} now")
        if n_now == n_kept:
            self.entries = [entry for entry in self.entries if entry.id not in gone]
        if self._read():
            self._fail(f"{kind} {entry_id}: there are new entries")
        if self._progress and self._progress.split(":")[2] != str(self._done()):
            self._fail(f"{kind}: the progress is {self._progress}, {self._done()} pieces are in the log")
        elif not self._progress:
            self._write_file()

    def _import(self) -> None:
        """A copy of the log into a new profile: it has all of it then, or is not there."""
        copy = self.home.with_name("copy.db")
        copy.unlink(missing_ok=True)
        forks.copy_log(self.home, copy)
        found: list[Entry] = []

        def phase() -> str:
            found[:] = forks.read_log(self.home, self.model, OTHER)[0]
            return "after it was written" if found else "before"

        if self._profile_command("import", [copy, "--profile", OTHER], phase):
            phase()
        taken = [_lasting(entry) for entry in found]
        if taken not in ([], [_lasting(entry) for entry in self.entries]):
            self._fail(f"import: {len(taken)} of {len(self.entries)} entries came")
        Profile.delete(self.home / "profiles", OTHER)
        if self._read():
            self._fail("import: there are new entries in the profile that was copied")

    def _rebase(self) -> None:
        """To another model and, the next time, back: the log is the same, whichever it belongs to then."""
        old, new = self.models
        self._profile_command("rebase", ["--model", new[1]], lambda: self._of_which())
        if self._of_which() == "after it was written":
            self.models = (new, old)
        if self._read():
            self._fail("rebase: there are new entries")

    def _of_which(self) -> str:
        base = forks.base_of(self.home, self.model)
        return "after it was written" if base == self.models[1][0].sha256 else "before"


def _lasting(entry: Entry) -> tuple[object, ...]:
    return entry.id, entry.time, entry.kind, entry.text, entry.conversation, entry.parent


def summary(killer: Killer, seconds: float) -> dict[str, object]:
    """What is printed."""
    return {
        "kills": killer.kills,
        "phases": dict(sorted(killer.phases.items())),
        "ended_before": killer.ended,
        "acknowledged": killer.acknowledged,
        "lost": killer.lost,
        "weights_checks": killer.weights_checks,
        "failures": killer.failures,
        "seconds": round(seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=2000)
    parser.add_argument("--model", help="default: a tiny one, made for this")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    begun = time.monotonic()
    with forks.tiny_model(args.model) as name, forks.tiny_model(None, seed=1) as other, forks.room() as folder:
        os.environ["EDGELM_HOME"] = f"{folder}/home"
        model = hub.load(name)
        forks.preload(model)
        killer = Killer(folder / "home", ((model, name), (hub.load(other), other)), args.seed)
        while killer.kills < args.kills and len(killer.failures) < 20:
            killer.run()
        killer.check_weights()
    fields = summary(killer, time.monotonic() - begun)
    if args.json:
        print(json.dumps(fields))
    else:
        for phase, count in sorted(killer.phases.items()):
            print(f"{count:6d} kills  {phase}")
        print(*killer.failures, sep="\n", end="\n" if killer.failures else "")
        print(
            f"{killer.kills} kills, {killer.ended} runs ended before; {killer.acknowledged} turns acknowledged, "
            f"{killer.lost} lost; weights compared {killer.weights_checks} times; {len(killer.failures)} failures; "
            f"{fields['seconds']} s"
        )
    sys.exit(1 if killer.failures or killer.lost else 0)


if __name__ == "__main__":
    main()
