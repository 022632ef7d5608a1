"""The guardrail: learning must not cost the model its general ability.

A held-out general text that comes with the package is scored as learning goes on, beside the score of the base model
on the same words. ``Guardrail`` only measures. ``Replay`` acts on the result: where general text has become a little
worse, the weights are pulled towards the base; where it is clearly worse, or a score is not finite, they go back to the
last good point.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from edgelm.config import LearnConfig
from edgelm.matrices.matrix import Operands
from edgelm.model.config import ModelConfig
from edgelm.model.state import empty_state
from edgelm.network.network import Network
from edgelm.text.general import general_text
from edgelm.text.tokenizer import Tokenizer

EXCERPTS, EXCERPT_TOKENS = 12, 128
AT_ONCE = 2
"""Excerpts that a check reads; the checks take turns."""


class Guardrail:
    """Compares the adapted weights with the base model's on general text, of which it takes ``EXCERPTS`` excerpts.

    Parameters
    ----------
    model : ModelConfig
    tokenizer : Tokenizer
    weights : dict of ndarray
        All weights, shared with the learner. The base model is scored with the frozen ones and ``base``.
    base : dict of ndarray
        The adaptable weights before any learning; read. An excerpt is scored with them when it is first needed, and the
        score is kept.
    config : LearnConfig
    bare : dict of ndarray, optional
        As ``base``, without the layers that lie beneath what is learned; default: there are none.
    """

    def __init__(
        self, model: ModelConfig, tokenizer: Tokenizer, weights: Operands, base: Operands, config: LearnConfig,
        bare: Operands | None = None,
    ) -> None:  # fmt: skip
        self._bare = bare
        self._model, self._weights, self._base, self._config = model, weights, base, config
        ids = tokenizer.encode(general_text())
        length = min(EXCERPT_TOKENS, max(1, len(ids) // EXCERPTS))
        starts = np.linspace(0, max(0, len(ids) - length), EXCERPTS).astype(int)
        self._excerpts = [np.array([tokenizer.document_id, *ids[start : start + length]], np.int64) for start in starts]
        self._base_nats: dict[int, float] = {}

    @cached_property
    def limit(self) -> float:
        """What ``excess_of_all`` must be below: ``gate_limit``, or less where layers cost some of it already.

        Layers and learning together then cost general text less than ``gate_limit`` beside the bare model.
        """
        limit = self._config.gate_limit
        if self._bare is None:
            return limit
        bare = Network(self._model, {**self._weights, **self._bare}, (), 8, forward_alone=True)
        nats = sum(self._nats(bare, i) for i in range(EXCERPTS))
        return min(limit, (1 + limit) * nats / self._nats_of_base(range(EXCERPTS)) - 1)

    def excess(self, network: Network, check: int) -> float:
        """Share by which general text costs more nats than with the base model: 0.02 is 2 % worse, below 0 better.

        Parameters
        ----------
        network : Network
            Computes with the adapted weights. Its buffers are overwritten: ``backward`` must not follow.
        check : int
            Number of the check, from 0: each reads the next ``AT_ONCE`` excerpts in turn.

        Returns
        -------
        float
            NaN or infinite if the weights are broken.
        """
        chosen = [(check * AT_ONCE + i) % EXCERPTS for i in range(AT_ONCE)]
        return self._compare(network, chosen)

    def excess_of_all(self, network: Network) -> float:
        """As ``excess``, over all excerpts."""
        return self._compare(network, range(EXCERPTS))

    def _compare(self, network: Network, chosen: Sequence[int]) -> float:
        """As ``excess``, over the excerpts with the numbers ``chosen``."""
        return sum(self._nats(network, i) for i in chosen) / self._nats_of_base(chosen) - 1

    def _nats_of_base(self, chosen: Sequence[int]) -> float:
        if unknown := [i for i in chosen if i not in self._base_nats]:
            # Of its own, over the base model's arrays: they are read, never copied or changed. Of short segments: what
            # it needs for itself grows with them.
            network_of_base = Network(self._model, {**self._weights, **self._base}, (), 8, forward_alone=True)
            self._base_nats |= {i: self._nats(network_of_base, i) for i in unknown}
        return sum(self._base_nats[i] for i in chosen)

    def _nats(self, network: Network, excerpt: int) -> float:
        """The summed nats of an excerpt from an empty state; the network's buffers are overwritten."""
        ids, state, total = self._excerpts[excerpt], empty_state(self._model, network.dtype.type), 0.0
        for start in range(0, len(ids) - 1, network.max_steps):
            targets = ids[start + 1 : start + network.max_steps + 1]
            total += float(network.forward(ids[start : start + len(targets)], targets, state).sum())
        return total
