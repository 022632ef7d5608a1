"""A running model under the kernels that learning uses too."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from edgelm.engine.blocks_ahead import BlocksAhead
from edgelm.engine.integer_blocks import IntegerBlocks
from edgelm.engine.session import Snapshot
from edgelm.matrices.matrix import Int8
from edgelm.model.hub import Model
from edgelm.model.packing import operand
from edgelm.model.state import empty_state, state_bytes
from edgelm.model.weights import block_names, tensors
from edgelm.network.decoder import Decoder
from edgelm.network.pipeline import Pipeline
from edgelm.network.section import integer_matrices

Array = np.ndarray
STEPS = 64
"""Tokens that are read together: the weights of a layer part are then read from a near cache for all but the first."""


class KernelSession:
    """The model by its cells' kernels, which see what is learned.

    What learning changes is copied after each change. Of the neuron blocks those that were written to are copied, as
    integers, which whoever learns makes for a session that answers meanwhile. While somebody is writing, the copies of
    before answer, so that a token is never computed from half a change, and never waits for one.

    Parameters
    ----------
    model : Model
    precision : {"int8", "float32"}
        ``float32``: nothing is made integers, and the weights are read where whoever learns writes them.
    threads : int
        That read a long text, if all layer parts have kernels. What is computed does not depend on it.
    """

    def __init__(self, model: Model, precision: str = "int8", threads: int = 1) -> None:
        self._guard, self._is_live = model.guard, precision == "float32"
        config, self.vocab_size = model.config, model.config.vocab_size
        self._state = empty_state(config)
        self.state_bytes = state_bytes(config)
        self._model = model
        if self._is_live:
            model.answers_in_float32 = True
            weights: dict[str, Any] = dict(model.weights)
        else:
            weights = self._integers(model)
        self._decoder = Decoder(config, weights, self._state, STEPS)
        self._pipeline: Pipeline | None = None
        self._n_threads, self._weights = min(threads, config.n_layers) if self._decoder.is_fused else 1, weights
        self._id, self._logits = np.zeros(1, np.int64), np.zeros((1, self.vocab_size), np.float32)
        self._decode = self._decoder.of_one(self._id, self._logits)

    def _integers(self, model: Model) -> dict[str, Any]:
        """All tensors: what kernels multiply as integers in strips; what learning changes as copies of its own; the
        rest as it is in the file."""
        weights: dict[str, Any] = {}
        in_strips = integer_matrices(model.config)
        self._rows = IntegerBlocks(model, in_strips)
        self._copies: dict[str, Array] = {}
        for name, spec in tensors(model.config).items():
            if name in in_strips:
                weights[name] = model.strips(name)
            elif name + ".q" in self._rows.arrays:
                weights[name] = Int8(self._rows.arrays[name + ".q"], self._rows.arrays[name + ".scale"])
            elif spec.learns:
                weights[name] = self._copies[name] = np.array(model.now(name))
            else:
                weights[name] = operand(model.packed, name)
        # What was written before now is not in the file.
        self._seen = 0
        of_layers = enumerate(block_names(model.config))
        self._ahead = BlocksAhead(model, [(i, name, weights[name]) for i, name in of_layers if name in in_strips])
        return weights

    def _refresh(self) -> None:
        """Takes over what was learned since the last time, unless somebody is just writing."""
        if self._guard.n_writes == self._seen:
            return
        self._ahead.want()
        if not self._guard.enter_if_free():
            return
        try:
            self._ahead.take()
            self._rows.refresh()
            for name, copy in self._copies.items():
                np.copyto(copy, self._model.now(name))
            self._seen = self._guard.n_writes
        finally:
            self._guard.leave()

    def run(self, ids: Array, first_logit: int | None = None) -> Array:
        """Feeds ids [T], T >= 1; returns logits [N,V] from ``first_logit`` on (default: the last alone).

        The array returned for a single token is overwritten by the next call.
        """
        if len(ids) == 1 and first_logit is None:
            self._id[0] = ids[0]
            with self._weights_of_now():
                self._decode()
            return self._logits
        first = len(ids) - 1 if first_logit is None else first_logit
        logits = np.empty((len(ids) - first, self.vocab_size), np.float32)
        ids = np.ascontiguousarray(ids, np.int64)
        starts = range(0, len(ids), STEPS)
        pieces = [ids[start : start + STEPS] for start in starts]
        of_pieces = [logits[max(start - first, 0) : max(start + STEPS - first, 0)] for start in starts]
        if len(pieces) > 1 and self._n_threads > 1:
            self._feed_long(pieces, of_pieces)
        else:
            for piece, of_piece in zip(pieces, of_pieces, strict=True):
                self._feed(piece, of_piece)
        return logits

    def _feed_long(self, pieces: list[Array], logits: list[Array]) -> None:
        if self._pipeline is None:
            config = self._model.config
            self._pipeline = Pipeline(config, self._weights, self._state, STEPS, self._n_threads)
        self._refresh()
        self._pipeline.run(pieces, logits)

    def _feed(self, ids: Array, logits: Array) -> None:
        with self._weights_of_now():
            self._decoder.run(ids, logits)

    def _weights_of_now(self) -> AbstractContextManager[Any]:
        """Within it the weights are whole, with all that was learned before."""
        if self._is_live:
            return self._guard
        self._refresh()
        return nullcontext()

    def observe(self, ids: Array) -> tuple[Array, Array]:
        """Feeds ids [T]; returns all logits [T,V] and the router's activations [L,T,M], before the cap."""
        ids = np.ascontiguousarray(ids, np.int64)
        logits, found = np.empty((len(ids), self.vocab_size), np.float32), []
        with self._guard:
            if not self._is_live:
                self._refresh()
            for start in range(0, len(ids), STEPS):
                part = slice(start, start + STEPS)
                found.append(self._decoder.observe(ids[part], logits[part]))
        return logits, np.concatenate(found, 1)

    def reset(self) -> None:
        """Forgets everything that was fed."""
        for array in self._state.values():
            array[:] = 0

    def snapshot(self) -> Snapshot:
        """A copy of the state."""
        return [array.copy() for array in self._state.values()]

    def restore(self, snapshot: Snapshot) -> None:
        """Returns to a state that ``snapshot`` gave."""
        for array, saved in zip(self._state.values(), snapshot, strict=True):
            array[:] = saved
