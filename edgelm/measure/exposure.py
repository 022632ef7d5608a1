"""What a learned change gives back of the words that it was learned from.

Weights without words can still say words: told often, or strange enough, a sentence is completed by whoever asks for
its second half. Measured is what a plain reader of the change could do with it, not what an attacker could at most.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgelm.engine.opening import open_session
from edgelm.engine.sampler import log_softmax
from edgelm.engine.session import Session
from edgelm.log.change import apply_change
from edgelm.log.entry import CHAT, Entry
from edgelm.model import hub
from edgelm.model.layers import Layer
from edgelm.model.weights import Weights
from edgelm.text.template import USUAL, Template
from edgelm.text.tokenizer import Tokenizer

LEAST_WORDS, MOST_SENTENCES, MOST_CHARACTERS = 6, 100, 300


@dataclass(frozen=True)
class Exposure:
    """Of ``sentences`` those whose second half is completed word for word, each token being the likeliest one; and the
    mean bits of a second half."""

    sentences: int
    completed: int
    bits: float


def sentences(entries: Iterable[Entry], template: Template = USUAL) -> list[str]:
    """Lines of the log that are long enough, at most ``MOST_SENTENCES``, evenly over it, as learning has read them."""
    found = [
        template.user_turn(line).rstrip("\n") if entry.kind == CHAT else line
        for entry in entries
        for line in entry.text.splitlines()
        if len(line.split()) >= LEAST_WORDS and len(line) <= MOST_CHARACTERS
    ]
    unique = list(dict.fromkeys(found))
    chosen = np.linspace(0, len(unique) - 1, min(len(unique), MOST_SENTENCES)).round().astype(int)
    return [unique[i] for i in chosen]


def compare(folder: Path, changes: Weights, entries: Iterable[Entry], layers: Sequence[Layer] = ()) -> dict[str, float]:
    """What a learned change completes of the log's sentences, beside what the model of ``folder`` completes without it.

    Both lie on ``layers``.

    Returns the fields of ``profile export --json`` that say so.
    """
    lines = sentences(entries, hub.read_manifest(folder).template)
    found, base = (of_change(folder, part, lines, layers) for part in (changes, {}))
    return {
        "sentences": found.sentences, "completed": found.completed, "completed_by_base": base.completed,
        "bits_a_sentence": round(found.bits, 2), "bits_a_sentence_of_base": round(base.bits, 2),
    }  # fmt: skip


def of_change(folder: Path, changes: Weights, lines: Iterable[str], layers: Sequence[Layer] = ()) -> Exposure:
    """What the model of a folder completes with a learned change (``edgelm.log.change``), or with none."""
    model = hub.load(str(folder))
    if layers:
        model.set_layers(layers)
    if changes:
        base = model.base()
        with model.guard.writing():
            apply_change(changes, base, model.adaptable)
    return measure(open_session(model, fixed=True), model.tokenizer, lines)


def measure(session: Session, tokenizer: Tokenizer, lines: Iterable[str]) -> Exposure:
    """What the model of ``session``, without any memory of words, completes of ``lines``."""
    total, completed, bits = 0, 0, 0.0
    for line in lines:
        words = line.split(" ")
        half = len(words) // 2
        first = tokenizer.encode(" ".join(words[:half]))
        rest = tokenizer.encode(" " + " ".join(words[half:]))
        ids = np.array([tokenizer.document_id, *first, *rest])
        session.reset()
        logits = session.run(ids[:-1], len(first))
        total += 1
        completed += bool((logits.argmax(-1) == rest).all())
        bits -= float(log_softmax(logits)[np.arange(len(rest)), rest].sum()) / np.log(2)
    return Exposure(total, completed, bits / max(1, total))
