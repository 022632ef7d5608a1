"""Devices without a network: each has a text, learns it on the shared layer, and has a change."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgelm.config import LearnConfig
from edgelm.engine.opening import open_session
from edgelm.learn.adaptation import Adaptation
from edgelm.log.change import digest, pack_change
from edgelm.measure.score import score_text
from edgelm.model import hub, tensorfile
from edgelm.model.hub import Model
from edgelm.model.layers import Layer
from edgelm.model.weights import Weights
from edgelm.swarm.aggregate import AggregateConfig, aggregate, stepped, strategy
from edgelm.swarm.update import UpdateConfig, incoming, nothing, outgoing, shared_layer
from edgelm.text.general import general_text
from edgelm.text.tokenizer import document_ids

HEADING, LABEL = re.compile(r"^\[[^\]]*\][^\n]*\n", re.MULTILINE), re.compile(r"^(User|Assistant): ", re.MULTILINE)
Send = Callable[[int, Weights, np.random.Generator], Weights]
"""What arrives at the server of a device's change: its number, the change, randomness."""


@dataclass
class Swarm:
    """Devices of one model, what they send and how it is aggregated.

    Attributes
    ----------
    model : Model
    update : UpdateConfig
    aggregation : AggregateConfig
    cache : Path
        A folder in which what was learned is kept, by a hash of the model, of the layer and of the text.
    scored : dict of float
        Bits per byte, by a hash of the layer and of the text.
    share : float
        Of the last step that general text allowed.
    """

    model: Model
    update: UpdateConfig
    aggregation: AggregateConfig
    cache: Path
    scored: dict[str, float] = field(default_factory=dict)
    share: float = 1.0

    def learned(self, text: str, layer: Weights) -> Weights:
        """The change of the weights by a text on a shared layer, without memory of its words."""
        key = hashlib.sha256("\n".join([self.model.sha256, digest(layer), text]).encode()).hexdigest()[:24]
        path = self.cache / f"{key}.safetensors"
        if not path.exists():
            self.cache.mkdir(parents=True, exist_ok=True)
            change = _learn(self.model.folder, text, layer)
            tensorfile.write(path, change, {"kind": "edgelm learned change"})
        return tensorfile.read(path)[0]

    def arrived(self, change: Weights, rng: np.random.Generator) -> Weights:
        """What the server has of an honest device's change."""
        return incoming(outgoing(change, self.model, self.update, rng), self.model, self.update)

    def round(self, total: Weights, texts: Sequence[str], seed: int, send: Send | None = None) -> Weights:
        """The shared layer after one round of these devices."""
        layer, rng = shared_layer(total, self.model), np.random.default_rng(seed)
        changes = [self.learned(text, layer) for text in texts]
        send = send or (lambda _, change, rng: self.arrived(change, rng))
        updates = [send(i, change, rng) for i, change in enumerate(changes)]
        found = aggregate(strategy(self.aggregation.strategy, len(updates), self.aggregation.liars), updates)
        new, self.share = stepped(total, found, self.aggregation.rate, self.general_cost)
        return new

    def nothing(self) -> Weights:
        """The shared layer before the first round."""
        return nothing(self.model.config)

    def bits(self, total: Weights | None, texts: Sequence[str]) -> list[float]:
        """Bits per byte of texts with a shared layer and nothing else; what was scored once is not scored again."""
        layer = shared_layer(total, self.model) if total is not None else {}
        keys = [hashlib.sha256((digest(layer) + text).encode()).hexdigest() for text in texts]
        left = [i for i, key in enumerate(keys) if key not in self.scored]
        if left:
            model = hub.load(str(self.model.folder))
            model.set_layers([Layer("swarm", "", layer)] if layer else [])
            session = open_session(model, fixed=True)
            for i in left:
                self.scored[keys[i]] = score_text(session, model.tokenizer, model.config, texts[i]).bits_per_byte
        return [self.scored[key] for key in keys]

    def general_cost(self, total: Weights) -> float:
        """The share by which general text costs more."""
        text = general_text()
        return self.bits(total, [text])[0] / self.bits(None, [text])[0] - 1


def _learn(folder: Path, text: str, layer: Weights) -> Weights:
    model = hub.load(str(folder))
    model.set_layers([Layer("swarm", "", layer)] if layer else [])
    adaptation = Adaptation(model, None, LearnConfig(), time.time)
    for ids in document_ids(model.tokenizer.encode_document_lines(text)):
        adaptation.replay.learn_document(np.array(ids), lambda _: None, keep_words=False)
    return pack_change(model.adaptable, adaptation.base, model.config)


def without_headings(text: str) -> str:
    """A chat without the lines that say when it was and what about."""
    return HEADING.sub("", text)


def words_alone(text: str) -> str:
    """What was said: no headings, no labels, no ends of documents."""
    return LABEL.sub("", without_headings(text)).replace("<|doc|>\n", "")


def beginning(text: str, n_characters: int) -> str:
    """Whole conversations of about so many characters; 0: all."""
    part = text[:n_characters] if n_characters else text
    return part[: part.rfind("<|doc|>\n")] if n_characters and "<|doc|>\n" in part else part
