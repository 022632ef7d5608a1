"""The whole model over tokens for answering: a call of a kernel for each layer part, or, of one token, for all of them,
and nothing kept for learning."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

import numpy as np

from edgelm.cells.buffers import integer_buffers, integers_of
from edgelm.cells.cell import Parts
from edgelm.kernels import fused
from edgelm.kernels.jit import record
from edgelm.matrices.integer_products import IntegerProducts
from edgelm.matrices.matrix import Int8, Operands, as_matrix, workspace_size
from edgelm.matrices.strips import Strips
from edgelm.model.config import ModelConfig
from edgelm.model.state import State, shared_part
from edgelm.model.weights import EMBED_SUMS
from edgelm.network.final_norm import final_norm
from edgelm.network.section import Section

Array = np.ndarray


class Decoder:
    """The model over tokens, one or some at a time; see ``edgelm.network.section.Section``.

    Parameters
    ----------
    config : ModelConfig
    weights : dict of ndarray, Int8 or Strips
        Shared, not copied: a change is seen by the next call. ``integer_matrices`` names what may be ``Strips``.
    state : dict of ndarray
        Updated in place by each call.
    max_steps : int
        Tokens of the longest call.
    """

    def __init__(self, config: ModelConfig, weights: Operands, state: State, max_steps: int) -> None:
        self._config, self.max_steps = config, max_steps
        self._section = Section([*config.parts()], weights, state, shared_part(state), max_steps)
        self.ends = ends_of(config, weights, max_steps)
        self._streams = np.zeros((max_steps, config.d_model), np.float32)
        self._one = self._x = self._streams[:1]

    @property
    def is_fused(self) -> bool:
        """Whether every layer part has a kernel of its own."""
        return self._section.is_fused

    def run(self, ids: Array, logits: Array) -> None:
        """Feeds ids [T] int64; logits [N,V] are overwritten with those of the last N tokens."""
        x = self._begin(ids)
        self._section.forward(x)
        self._end(x, logits)

    def of_one(self, ids: Array, logits: Array) -> Callable[[], None]:
        """What feeds the one token that ids [1] int64 hold when it is called, and overwrites logits [1,V].

        Calls of kernels in a row are recorded the first time, and made as one from then on.
        """
        if not self.is_fused:
            return partial(self.run, ids, logits)
        ends, section, x = self.ends, self._section, self._one
        again: Callable[[], None] | None = None

        def calls() -> None:
            if ends.are_calls:
                ends.read(ids, x)
            section.forward(x)
            if ends.are_calls:
                ends.write(x, logits)

        def feed() -> None:
            nonlocal again
            section.begin(1)
            if not ends.are_calls:
                ends.read(ids, x)
            if again is None:
                again = record(calls)
            else:
                again()
            if not ends.are_calls:
                ends.write(x, logits)

        return feed

    def observe(self, ids: Array, logits: Array) -> Array:
        """As ``run``; returns the activations [L,T,M] of the router, before the weakest blocks were put to sleep."""
        x, found = self._begin(ids), []
        for part in self._section.parts:
            part.forward(x)
            if hasattr(part, "activations"):
                found.append(part.activations.copy())
        self._end(x, logits)
        return np.stack(found) if found else np.zeros((self._config.n_layers, len(ids), 0), np.float32)

    def _begin(self, ids: Array) -> Array:
        if len(self._x) != len(ids):
            self._x = self._one if len(ids) == 1 else self._streams[: len(ids)]
        self.ends.read(ids, self._x)
        self._section.begin(len(ids))
        return self._x

    def _end(self, x: Array, logits: Array) -> None:
        self._section.end(len(x))
        self.ends.write(x, logits)


class Ends(Protocol):
    """What stands before and behind the layers.

    Attributes
    ----------
    are_calls : bool
        Whether both methods do nothing but call kernels, so that they can be recorded.
    """

    are_calls: bool

    def read(self, ids: Array, x: Array) -> None:
        """x [T,D] = the rows ids [T] of the embedding."""

    def write(self, x: Array, logits: Array) -> None:
        """logits [N,V] of the last N rows of x."""


def ends_of(config: ModelConfig, weights: Operands, max_steps: int) -> Ends:
    """The embedding and the output matrix of a model, for calls of at most ``max_steps`` tokens."""
    tied = config.tied and config.norm == "rms" and isinstance(weights["embed"], Strips)
    return (_IntegerEnds if tied else _FloatEnds)(config, weights, max_steps, {})


class _IntegerEnds:
    """The embedding, which is the output matrix too, of integers in strips."""

    are_calls = True

    def __init__(self, config: ModelConfig, weights: Operands, max_steps: int, buffers: Parts) -> None:
        self._embed, self._eps = integers_of(weights, "embed"), np.float32(config.norm_eps)
        self._gain = np.asarray(weights["final_norm"])
        self._buffers = integer_buffers(config.d_model, config.d_model, max_steps, buffers)

    def read(self, ids: Array, x: Array) -> None:
        """As of ``Ends``."""
        q, scale = self._embed
        fused.embed(ids, q, scale, x)

    def write(self, x: Array, logits: Array) -> None:
        """As of ``Ends``."""
        q, scale = self._embed
        fused.head(x, len(x) - len(logits), self._gain, self._eps, q, scale, self._buffers, logits)


class _FloatEnds:
    """The same of other numbers, and of two matrices."""

    are_calls = False

    def __init__(self, config: ModelConfig, weights: Operands, max_steps: int, buffers: Parts) -> None:
        self._embed, head = as_matrix(weights["embed"], EMBED_SUMS), weights[config.head]
        head = IntegerProducts(head) if isinstance(head, Strips) else head
        self._head = as_matrix(head, EMBED_SUMS)
        self._norm = final_norm(config, weights, max_steps)
        shape = (config.vocab_size, config.d_model)
        self._workspace = np.zeros(workspace_size(max_steps, shape), np.float32)
        self._hidden = np.zeros((max_steps, config.d_model), np.float32)

    def read(self, ids: Array, x: Array) -> None:
        """As of ``Ends``."""
        if isinstance(self._embed, Int8):
            fused.embed_rows(ids, self._embed.q, self._embed.scale, x)
        else:
            x[:] = self._embed.rows(ids)

    def write(self, x: Array, logits: Array) -> None:
        """As of ``Ends``."""
        n = len(logits)
        if n:
            hidden = self._hidden[:n]
            self._norm.forward(x[len(x) - n :], hidden)
            self._head.product(hidden, self._workspace, logits)
