"""Which entries of the log moved an answer: by how many bits each made it likelier.

For the weights, to first order (TracIn, Pruthi et al. 2020, arXiv 2002.08484): the step that an entry's
gradient takes, times the gradient of the answer. For the fast memory exactly: the answer's probability with the
entry and without it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgelm.conversation import Conversation
from edgelm.learn.adaptation import Adaptation
from edgelm.learn.documents import remember
from edgelm.learn.learner import Learner
from edgelm.log.entry import CHAT, PAIRED, Entry
from edgelm.memory.fast_memory import FastMemory
from edgelm.model.weights import Weights, tensors
from edgelm.network.network import Network

CANDIDATES = 16
"""Entries looked at closely: those that share most rare words with the answer, and the newest."""


@dataclass(frozen=True)
class Influence:
    """An entry, and the bits that weights and fast memory owe to it."""

    entry: Entry
    bits_slow: float
    bits_fast: float

    @property
    def bits(self) -> float:
        """Both together."""
        return self.bits_slow + self.bits_fast


def influences_on_reply(chat: Conversation) -> list[Influence]:
    """The influence of likely entries on the last reply of a conversation, greatest first.

    The learning thread computes it, after all that it was asked for before.

    Raises
    ------
    InputError
        Nothing was answered yet.
    """
    before, reply = chat.last_exchange()
    adaptation = chat.engine.adaptation
    found: list[Influence] = chat.engine.worker.call(lambda _: influences(adaptation, before, reply)).result()
    return found


def influences(adaptation: Adaptation, before: str, answer: str) -> list[Influence]:
    """The influence of likely entries on ``answer`` after ``before``, greatest first."""
    tokenizer, template = adaptation.model.tokenizer, adaptation.model.template
    entries = [entry for entry in adaptation.entries if entry.text]
    if not entries:
        return []
    learner, memory = adaptation.replay.learner, adaptation.replay.memory
    head, tail = template.document(tokenizer.encode(before)), tokenizer.encode(answer)
    ids = np.array([*head, *tail])
    p = np.exp(-learner.score(ids).astype(np.float64))[len(head) - 1 :]
    network = Network(learner.model, learner.weights, learner.names, learner.config.segment)
    of_answer = _gradients(learner, network, ids, len(head))
    with_all = np.log2(memory.predict(ids, len(head), p, as_reply=True)).sum()
    found = []
    for entry in _candidates(entries, set(ids.tolist()), adaptation):
        others = [other for other in entries if other.id != entry.id]
        befores = [adaptation.before(other) for other in others]
        without = FastMemory(tokenizer, template=template)
        without.gates[:] = memory.gates
        remember(without, others, befores, tokenizer, template)
        fast = float(with_all - np.log2(without.predict(ids, len(head), p, as_reply=True)).sum())
        text = template.user_turn(entry.text) if entry.kind == CHAT or entry.kind in PAIRED else entry.text
        own = _gradients(learner, network, np.array(template.document(tokenizer.encode(text))), 1)
        slow = sum((float((learner.steps(name) * own[name] * array).sum()) for name, array in of_answer.items()), 0.0)
        found.append(Influence(entry, slow / float(np.log(2)), fast))
    return sorted(found, key=lambda item: -item.bits)


def _candidates(entries: list[Entry], wanted: set[int], adaptation: Adaptation) -> list[Entry]:
    tokens = {entry.id: set(adaptation.model.tokenizer.encode(" " + entry.text)) for entry in entries}
    counts: dict[int, int] = {}
    for found in tokens.values():
        for token in found & wanted:
            counts[token] = counts.get(token, 0) + 1
    score = {i: sum(1 / counts[token] for token in found & wanted) for i, found in tokens.items()}
    return sorted(entries, key=lambda entry: (-score[entry.id], -entry.id))[:CANDIDATES]


def _gradients(learner: Learner, network: Network, ids: np.ndarray, first: int) -> Weights:
    """Sum of the gradients of the losses of ids[first:], by tensor."""
    state = learner.new_state()
    total = {name: np.zeros_like(learner.weights[name]) for name in learner.names}
    for start in range(0, len(ids) - 1, network.max_steps):
        targets = ids[start + 1 : start + network.max_steps + 1]
        network.forward(ids[start : start + len(targets)], targets, state)
        if start + len(targets) < first:
            continue
        network.logits[: max(0, first - 1 - start)] = 0  # by now they hold the gradients of the losses
        network.backward()
        for name, sum_ in total.items():
            if tensors(learner.model)[name].blocks:
                awake = network.awake[int(name.split(".")[1])]
                sum_[awake] += network.grads[name][awake]
            else:
                sum_ += network.grads[name]
    return total
