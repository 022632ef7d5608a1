"""Forward and backward of the whole model over one segment, sparse in the blocks.

The state is carried from segment to segment, gradients stop where a segment begins (truncated
back-propagation through time).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np

from edgelm.cells.buffers import FORWARD_ALONE, are_calls
from edgelm.cells.passes import Pass
from edgelm.cells.table import passes_of
from edgelm.kernels import arrays
from edgelm.kernels.jit import record
from edgelm.kernels.loss import cross_entropy
from edgelm.kernels.norm import ZERO
from edgelm.matrices.matrix import Operands, as_matrix, workspace_size
from edgelm.model.config import ModelConfig
from edgelm.model.state import State, advance, empty_state, part_of, shared_part, state_shapes
from edgelm.model.weights import EMBED_SUMS, Weights, tensors
from edgelm.network.final_norm import final_norm

Array = np.ndarray


class Network:
    """The model over segments, with gradients.

    Where layer parts do nothing but call kernels, the calls of a segment of ``max_steps`` tokens are recorded the first
    time and made as one from then on, forward and backward: Python's global lock is given up once for all of them, so
    that whoever answers meanwhile seldom waits for it.

    Parameters
    ----------
    config : ModelConfig
    weights : dict of ndarray
        Shared, not copied: a change is seen by the next segment. Matrices may be integers.
    wanted : iterable of str
        Names of the matrices whose gradients are wanted; those of gains and of biases always are.
    max_steps : int
        Longest segment.
    forward_alone : bool
        ``backward`` is never called: all layers share the buffers.

    Attributes
    ----------
    grads : dict of ndarray
        Gradients of the sum of the segment's losses, after ``backward``.
    small_grads : ndarray
        Those of gains and of biases, one after another: the same memory as in ``grads``.
    """

    def __init__(
        self, config: ModelConfig, weights: Operands, wanted: Iterable[str], max_steps: int, *,
        forward_alone: bool = False,
    ) -> None:  # fmt: skip
        self.config, self.weights, self.max_steps = config, weights, max_steps
        always = {prefix + name for prefix, cell in config.parts() for name in passes_of(cell).SMALL}
        always |= {"final_norm", "final_norm_bias"}
        wanted = always | set(wanted)
        matrices_are_left = wanted == always
        dtype = weights["embed"].dtype
        specs = {name: spec for name, spec in tensors(config).items() if name in wanted}
        # Those that are always made stand side by side, so that one look tells whether all are finite.
        small = {name: math.prod(spec.shape) for name, spec in specs.items() if name in always}
        self.small_grads = np.zeros(sum(small.values()), dtype)
        places = dict(zip(small, np.split(self.small_grads, np.cumsum([*small.values()])[:-1]), strict=True))
        self.grads: Weights = {
            name: places[name].reshape(spec.shape) if name in places else np.zeros(spec.shape, dtype)
            for name, spec in specs.items()
        }
        matrices = [spec.shape for spec in tensors(config).values() if len(spec.shape) == 2 and spec.sums is not None]
        shared_buffers: Weights = {"workspace": np.zeros(max(workspace_size(max_steps, s) for s in matrices), dtype)}
        self._workspace = shared_buffers["workspace"]
        if forward_alone:
            shared_buffers[FORWARD_ALONE] = np.ones(1, dtype)
        self.passes: list[tuple[str, Pass]] = []
        """The layer parts in the order of use, each with the beginning of its tensors' names."""
        for prefix, cell in config.parts():
            own = [{n.removeprefix(prefix): t[n] for n in t if n.startswith(prefix)} for t in (weights, self.grads)]
            self.passes.append((prefix, passes_of(cell).Pass(cell, *own, max_steps, shared_buffers)))
        names: Any = {name: name for name in state_shapes(config)}
        self._state_names: list[list[Any]] = [[*part_of(names, prefix).items()] for prefix, _ in self.passes]
        # The residual stream before each layer part, and after the last.
        self.streams = np.zeros((len(self.passes) + 1, max_steps, config.d_model), dtype)
        self.hidden, self.dx = np.zeros((2, max_steps, config.d_model), dtype)
        self.losses = np.zeros(max_steps, dtype)
        self.logits = np.zeros((max_steps, config.vocab_size), dtype)
        self._with_blocks: dict[str, Any] = {prefix: part for prefix, part in self.passes if hasattr(part, "awake")}
        self.dtype = dtype
        self.embed, self.head = (as_matrix(weights[name], EMBED_SUMS) for name in ("embed", config.head))
        self.final_norm = final_norm(config, weights, max_steps)
        parts = [part for _, part in self.passes]
        can_record = matrices_are_left and are_calls(self.head) and all(getattr(p, "are_calls", False) for p in parts)
        self._called: list[Any] = [*parts, self.final_norm] if can_record else []
        """The layer parts and the norm, if all that is done with them may be recorded."""
        # Calls that are made again find the state where it was.
        self._state = empty_state(config, dtype.type) if self._called else {}
        self._forward_again: Callable[[], None] | None = None
        self._backward_again: Callable[[], None] | None = None

    def forward(self, ids: Array, targets: Array, state: State) -> Array:
        """Losses in nats [T] of ``targets`` [T] after ``ids`` [T]; ``state`` is updated in place."""
        n_steps = len(ids)
        self.ids = ids
        self.streams[0, :n_steps] = self.embed.rows(ids)
        if self.is_recorded(n_steps):
            self._forward_recorded(state)
        else:
            self._forward(n_steps, state)
        advance(state, self.config, n_steps)
        logits, losses = self.logits[:n_steps], self.losses[:n_steps]
        cross_entropy(targets, logits, losses)
        return losses.copy()

    def is_recorded(self, n_steps: int) -> bool:
        """Whether calls of a segment of so many tokens are recorded."""
        return bool(self._called) and n_steps == self.max_steps

    def _forward_recorded(self, state: State) -> None:
        """As ``_forward``, of a segment of the usual length."""
        for name, array in self._state.items():
            np.copyto(array, state[name])
        if self._forward_again is None:
            self._forward_again = record(partial(self._forward, self.max_steps, self._state))
        else:
            for part, x in zip(self._called, self.streams, strict=True):
                part.take(x)
            self._forward_again()
        for name, array in self._state.items():
            np.copyto(state[name], array)

    def _forward(self, n_steps: int, state: State) -> None:
        """From the first stream to the logits; what all layers share stays as it is."""
        x, shared = self.streams[:, :n_steps], shared_part(state)
        for number, ((_, part), names) in enumerate(zip(self.passes, self._state_names, strict=True)):
            arrays.copy(x[number].reshape(-1), x[number + 1].reshape(-1))
            part.forward(x[number], x[number + 1], {local: state[name] for local, name in names}, shared)
        hidden = self.hidden[:n_steps]
        self.final_norm.forward(x[-1], hidden)
        self.head.product(hidden, self._workspace, self.logits[:n_steps])

    def backward(self) -> None:
        """Fills ``grads`` for the segment that ``forward`` saw last; once a forward."""
        n_steps, grads = len(self.ids), self.grads
        if self.config.head in grads:
            np.dot(self.logits[:n_steps].T, self.hidden[:n_steps], out=grads[self.config.head])
        if not self.is_recorded(n_steps):
            self._backward(n_steps)
        elif self._backward_again is None:
            self._backward_again = record(partial(self._backward, n_steps))
        else:
            self._backward_again()
        if "embed" in grads:
            if not self.config.tied:
                grads["embed"][:] = 0
            np.add.at(grads["embed"], self.ids, self.dx[:n_steps])

    def _backward(self, n_steps: int) -> None:
        """From the gradients of the logits to that of the first stream."""
        dlogits, hidden, dx = self.logits[:n_steps], self.hidden[:n_steps], self.dx[:n_steps]
        dhidden = self.head.product_back(dlogits, self._workspace, hidden)
        arrays.fill(dx.reshape(-1), ZERO)
        self.final_norm.backward(dhidden, dx, self.grads)
        for _, part in reversed(self.passes):
            # A layer part adds to the stream, so dx is both its incoming gradient and what it adds to.
            arrays.copy(dx.reshape(-1), hidden.reshape(-1))
            part.backward(hidden, dx)

    def step_blocks(self, name: str, base: Any, rates: Array, pull: np.floating) -> None:
        """Moves the awake blocks of a tensor of neuron blocks; see ``edgelm.cells.passes.BlockPass``."""
        prefix, _, local = name.rpartition(".")
        self._with_blocks[prefix + "."].step_blocks(local, base, rates, pull)

    def block_squares(self, name: str) -> Array:
        """The mean square of the gradient of each block [M] of a tensor, float64; of blocks that slept it is 0."""
        prefix, _, local = name.rpartition(".")
        found: Array = self._with_blocks[prefix + "."].block_squares(local)
        return found

    @property
    def awake(self) -> Array:
        """Which blocks the last segment woke, [L,M] bool; [L,0] for a model without blocks."""
        awake = [part.awake for part in self._with_blocks.values()]
        return np.stack(awake) if awake else np.zeros((self.config.n_layers, 0), bool)

    @property
    def n_pairs(self) -> int:
        """Pairs of a token and an awake block in the last segment, over all layers."""
        return sum(part.n_pairs for part in self._with_blocks.values())
