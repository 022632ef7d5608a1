"""Logs to compare: acts of a person (turns, texts, answers), consolidations and checkpoints, on the tiny model."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgelm.config import LearnConfig
from edgelm.learn.adaptation import Adaptation
from edgelm.learn.documents import remember
from edgelm.log.entry import CHAT, CHECKPOINT, CONSOLIDATION, FIX, GOOD, TEXT
from edgelm.log.profile import Profile
from edgelm.memory.fast_memory import FastMemory
from edgelm.memory.reading import Reading
from edgelm.model import hub

NEVER = 1 << 40
WORDS = ["the", "ferry", "waits", "in", "fog", "and", "a", "baker", "brings", "warm", "rolls", "to", "Ada's", "boat"]
LIVELY = LearnConfig(rate=1000, gate_segments=2, gate_limit=0.01, gate_draw=0.001)
"""Learns so fast that the guardrail has something to do after a few words, above all after ``HARM``."""
HARM = "zq" * 160


@dataclass(frozen=True)
class Act:
    """What happens; ``parent`` is the number of the act that is answered, ``amount`` the steps after which a
    consolidation is broken off, ``saves`` whether a checkpoint is written."""

    kind: str
    text: str = ""
    conversation: int = 1
    parent: int | None = None
    amount: int | None = None
    saves: bool = True


Open = Callable[..., Adaptation]
DAY = [
    Act(CHAT, "My boat is called Heron."),
    Act(CHAT, "When does the ferry leave?"),
    Act(GOOD, "It leaves at seven.", parent=1),
    Act(FIX, "It leaves at eight.", parent=1),
    Act(TEXT, "The harbour sleeps.\nThe lamps are lit one by one. " * 5, conversation=2),
    Act(CONSOLIDATION),
    Act(CHECKPOINT),
    Act(CHAT, f"The baker is called {HARM}.", conversation=3),
    Act(CONSOLIDATION, amount=1),
    Act(CHAT, "Ada brings warm rolls.", conversation=3),
]
"""Acts of every kind, in one log."""


def open_adaptation(model: Path, folder: Path, config: LearnConfig | None = None, *, name: str = "me") -> Adaptation:
    """A profile held for writing; nothing is replayed yet."""
    loaded = hub.load(str(model))
    ticks = itertools.count(1)
    profile = Profile(folder, name, loaded, writable=True)
    try:
        return Adaptation(loaded, profile, config or LearnConfig(), lambda: float(next(ticks)))
    except BaseException:
        profile.close()
        raise


def close(adaptation: Adaptation) -> None:
    """As a process that is killed: no checkpoint is written."""
    assert adaptation.profile is not None
    adaptation.profile.close()


def after(steps: int | None) -> Callable[[], bool]:
    """Says at the question after so many that it is time to stop."""
    asked = itertools.count()
    return lambda: steps is not None and next(asked) >= steps


def perform(adaptation: Adaptation, acts: Sequence[Act], ids: dict[int, int] | None = None) -> dict[int, int]:
    """Performs the acts; gives the id of the entry that each became, by the number of the act."""
    ids = {} if ids is None else ids
    for number, act in enumerate(acts, len(ids)):
        known = len(adaptation.entries)
        if act.kind == CONSOLIDATION:
            adaptation.consolidate(after(act.amount))
        elif act.kind == CHECKPOINT:
            adaptation.write_checkpoint(0 if act.saves else NEVER)
        else:
            parent = None if act.parent is None else ids[act.parent]
            adaptation.learn(adaptation.tell(act.kind, act.text, conversation=act.conversation, parent=parent))
        # Nothing to consolidate or to round leaves no entry.
        ids[number] = adaptation.entries[-1].id if len(adaptation.entries) > known else 0
    return ids


def perform_without(adaptation: Adaptation, acts: Sequence[Act], ids: dict[int, int], gone: Iterable[int]) -> None:
    """Performs ``acts`` as if those whose entries are ``gone`` had never been."""
    left = [number for number in range(len(acts)) if ids[number] not in set(gone)]
    places = {number: place for place, number in enumerate(left)}
    perform(
        adaptation,
        [
            Act(a.kind, a.text, a.conversation, None if a.parent is None else places[a.parent], a.amount, a.saves)
            for a in (acts[number] for number in left)
        ],
    )


def random_acts(rng: np.random.Generator, n_acts: int) -> list[Act]:
    """Acts drawn at random; every text holds a word of its own."""
    acts: list[Act] = []
    conversation = 1
    for _ in range(n_acts):
        kind = str(rng.choice([CHAT, CHAT, CHAT, TEXT, GOOD, FIX, CONSOLIDATION, CHECKPOINT]))
        turns = [i for i, act in enumerate(acts) if act.kind == CHAT]
        if kind in (GOOD, FIX) and not turns:
            kind = CHAT
        conversation += int(rng.random() < 0.15)
        if kind in (GOOD, FIX):
            parent = int(rng.choice(turns[-3:]))
            acts.append(Act(kind, _words(rng, 8), acts[parent].conversation, parent))
        elif kind in (CHAT, TEXT):
            acts.append(Act(kind, _words(rng, 12 if kind == CHAT else 60), conversation))
        elif kind == CONSOLIDATION:
            acts.append(Act(kind, amount=int(rng.integers(0, 5)) if rng.random() < 0.5 else None))
        else:
            acts.append(Act(kind, saves=bool(rng.random() < 0.7)))
    return acts


def _words(rng: np.random.Generator, at_most: int) -> str:
    own = "".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), 12))
    words = [str(word) for word in rng.choice(WORDS, int(rng.integers(1, at_most)))]
    words += [HARM] * int(rng.random() < 0.2)
    words.insert(int(rng.integers(len(words) + 1)), own)
    return (" " if rng.random() < 0.7 else "\n").join(words)


def own_word(text: str) -> str:
    """The word that no other text has."""
    return next(word for word in text.split() if len(word) == 12)


def assert_knows_the_whole_log(adaptation: Adaptation) -> None:
    """The fast memory is the one that the log alone gives."""
    tokenizer = adaptation.model.tokenizer
    memory, fresh = adaptation.replay.memory, FastMemory(tokenizer)
    befores = [adaptation.before(entry) for entry in adaptation.entries]
    remember(fresh, adaptation.entries, befores, tokenizer)
    fresh.gates[:] = memory.gates
    assert memory._answers._known == fresh._answers._known
    for entry in adaptation.entries:
        ids = np.array([0, *tokenizer.encode(" " + entry.text), 1])
        for as_reply in (False, True):
            guess = np.full(len(ids) - 1, 1e-3)
            np.testing.assert_array_equal(
                memory.predict(ids, 1, guess, as_reply), fresh.predict(ids, 1, guess, as_reply)
            )
            np.testing.assert_array_equal(
                memory.mix(Reading(ids[:-1].tolist()), np.full(tokenizer.vocab_size, 1e-3), as_reply),
                fresh.mix(Reading(ids[:-1].tolist()), np.full(tokenizer.vocab_size, 1e-3), as_reply),
            )
