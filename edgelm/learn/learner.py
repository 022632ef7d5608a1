"""Learning from text: score a segment, then change the weights by its gradient.

Dynamic evaluation (Krause et al. 2018, arXiv 1709.07432) with one scale per tensor or neuron block. For a full segment,

    W <- W - rate 1e-3 g / rms(g) + pull (W0 - W)

where g is the gradient of the segment's mean loss and W0 the base. The last segment of a document may be shorter: both
terms are then smaller in proportion to its tokens. Of neuron blocks only those that were awake in the segment move.

rms(g) is measured over training text at the end of pretraining and comes with the model. If the step were scaled by
the size of the present gradient, a segment that teaches nothing would move the weights as far as a surprising one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from edgelm.config import LearnConfig
from edgelm.errors import DivergenceError
from edgelm.kernels.jit import record
from edgelm.kernels.optim import pulled_step
from edgelm.matrices.matrix import Int8, Operands
from edgelm.model.config import ModelConfig
from edgelm.model.guard import Guard
from edgelm.model.state import State, empty_state
from edgelm.model.weights import Weights, adaptable_names, block_names, tensors
from edgelm.network.network import Network

Array = np.ndarray
OnSegment = Callable[[int, Array], None]
MAX_LOSS = 50.0
"""Mean nats per token of a segment above which something is broken, not surprising."""


class Learner:
    """Changes the adaptable weights of a model by gradient steps.

    Parameters
    ----------
    model : ModelConfig
    weights : dict of ndarray
        All weights. The adaptable ones are shared, not copied, and changed in place; frozen ones may be integers.
    base : dict of ndarray
        The adaptable weights before any learning; read. They may be integers too.
    grad_rms : dict of ndarray
        Root mean square of the gradient of a segment's mean loss: a number, or [M] for neuron blocks.
    config : LearnConfig
    guard : Guard, optional
        Held while the weights are written, so that a reader in another thread sees whole updates only.
    """

    def __init__(
        self, model: ModelConfig, weights: Operands, base: Operands, grad_rms: Weights, config: LearnConfig,
        guard: Guard | None = None,
    ) -> None:  # fmt: skip
        self.model, self.weights, self.base, self.config = model, weights, base, config
        self._guard = guard or Guard(model)
        self.names = adaptable_names(model)
        # The gradients of neuron blocks are never whole: each block's is made when it is written.
        self.network = Network(model, weights, (), config.segment)
        self._dtype = self.network.dtype.type
        self._blocks = block_names(model)
        # Gradients are sums over the segment; its mean is what grad_rms was measured on. A short segment is
        # worth its tokens.
        rate = config.rate * 1e-3 / config.segment
        self._rates: dict[str, Array] = {}
        for name in self.names:
            rates = (rate / (np.float64(grad_rms[name]) + 1e-12)).astype(self._dtype)
            self._rates[name] = np.broadcast_to(rates, model.n_blocks if name in self._blocks else 1).copy()
        grads = self.network.grads
        self._small = [
            (*(np.asarray(t[name]).reshape(-1) for t in (grads, base, weights)), self._rates[name][0])
            for name in self.names
            if name not in self._blocks
        ]
        self._steps_are_calls = all(isinstance(base[name], np.ndarray | Int8) for name in self._blocks)
        self._step_again: Callable[[], None] | None = None

    def steps(self, name: str) -> Array:
        """The step size of a tensor: by how much a gradient of 1, of a segment's summed loss, moves a weight.

        To be broadcast over the gradient: [1], or [M,1,...] for neuron blocks.
        """
        rates = self._rates[name]
        return rates.reshape(-1, *[1] * (self.weights[name].ndim - 1)) if name in self._blocks else rates

    def new_state(self) -> State:
        """An empty state, as it is before a document."""
        return empty_state(self.model, self._dtype)

    def prepare(self) -> None:
        """Loads, or the first time compiles, all kernels; nothing is learned."""
        zero = np.zeros(1, np.int64)
        self.network.forward(zero, zero, self.new_state())
        self.network.backward()
        spare, nothing = np.zeros(1, self._dtype), self._dtype(0)
        pulled_step(spare, spare, nothing, nothing, spare)
        for name in self._blocks[:1]:
            self.network.step_blocks(name, self.base[name], np.zeros_like(self._rates[name]), nothing)

    def score(self, ids: Sequence[int] | Array) -> Array:
        """Losses [len(ids) - 1] in nats of ids[1:], each predicted from all ids before it, from an empty state.

        Nothing is learned.
        """
        return self._run(ids, None)

    def learn(self, ids: Sequence[int] | Array, on_segment: OnSegment | None = None) -> Array:
        """Scores, then learns, each segment of one document, from an empty state. The weights change in place.

        Parameters
        ----------
        ids : sequence of int
            The document, its first id the end-of-document id; ids[1:] are predicted.
        on_segment : callable, optional
            Called as ``on_segment(start, losses)`` after each segment is learned; ``losses`` are those of ids[start +
            1], ids[start + 2] and so on, from before the update. If it raises, learning ends there.

        Returns
        -------
        ndarray [len(ids) - 1]
            Losses in nats, each computed before its segment was learned, in the dtype of the weights.

        Raises
        ------
        DivergenceError
            A loss or a gradient is not finite, or the mean loss of a segment is above ``MAX_LOSS``. The weights are as
            they were before that segment; the segments before it were learned.
        """
        return self._run(ids, on_segment or (lambda start, losses: None))

    def _run(self, ids: Sequence[int] | Array, on_segment: OnSegment | None) -> Array:
        """As ``learn``; without ``on_segment`` nothing is learned."""
        array = np.ascontiguousarray(ids, np.int64)
        state, size, losses = self.new_state(), self.config.segment, []
        for start in range(0, len(array) - 1, size):
            inputs, targets = array[start : start + size], array[start + 1 : start + size + 1]
            inputs = inputs[: len(targets)]
            losses.append(self.network.forward(inputs, targets, state))
            if on_segment is not None:
                self._update(losses[-1])
                on_segment(start, losses[-1])
        return np.concatenate(losses) if losses else np.zeros(0, self._dtype)

    def _update(self, losses: Array) -> None:
        """Moves the weights by the gradient of the segment that was scored last. Raises as ``learn``."""
        network, n_steps = self.network, len(losses)
        if not np.isfinite(losses).all() or losses.mean() > MAX_LOSS:
            raise DivergenceError(f"loss {losses.mean():.1f} nats per token; the text was not learned")
        network.backward()
        # What is not finite on its way back shows in the gains and in log_gamma; blocks need not be read for it. Finite
        # numbers whose product is not would show in the next loss.
        if not np.isfinite(np.vdot(network.small_grads, network.small_grads)):
            raise DivergenceError("a gradient is not finite; the text was not learned")
        with self._guard.writing(network.awake):
            if not (self._steps_are_calls and network.is_recorded(n_steps)):
                self._step(n_steps)
            elif self._step_again is None:
                self._step_again = record(partial(self._step, n_steps))
            else:
                self._step_again()

    def _step(self, n_steps: int) -> None:
        """Takes the step of a segment of so many tokens."""
        pull = self._dtype(self.config.pull * n_steps / self.config.segment)
        for grad, base, weight, rate in self._small:
            pulled_step(grad, base, rate, pull, weight)
        for name in self._blocks:
            self.network.step_blocks(name, self.base[name], self._rates[name], pull)


def adaptable_rms(
    model: ModelConfig, weights: Operands, ids: Sequence[int], segment: int, on_segment: Callable[[int], None]
) -> Weights:
    """As ``measure_grad_rms``, of what learning changes alone and of one document; no gradient of blocks is ever whole.

    ``weights`` may be integers. ``on_segment`` is called with how many segments are done.
    """
    names, blocks = adaptable_names(model), set(block_names(model))
    network, state = Network(model, weights, (), segment), empty_state(model)
    sums = {name: np.zeros(model.n_blocks if name in blocks else 1) for name in names}
    counts = {name: np.zeros_like(total) for name, total in sums.items()}
    array = np.asarray(ids, np.int64)
    for done, start in enumerate(range(0, len(array) - segment, segment), 1):
        network.forward(array[start : start + segment], array[start + 1 : start + segment + 1], state)
        network.backward()
        for name in names:
            if name in blocks:
                sums[name] += network.block_squares(name) / segment**2
                counts[name] += network.awake[int(name.split(".")[1])]
            else:
                sums[name] += np.square(network.grads[name].astype(np.float64) / segment).mean()
                counts[name] += 1
        on_segment(done)
    return _roots(sums, counts)


def measure_grad_rms(model: ModelConfig, weights: Weights, documents: Sequence[Sequence[int]], segment: int) -> Weights:
    """Root mean square of the gradients of a segment's mean loss over ``documents``; the weights are read.

    Returns float32: a number for each tensor; [M] for neuron blocks, over the segments in which a block is awake. Only
    whole segments of ``segment`` tokens count. What never had a gradient gets the median of the rest of its tensor, or
    1.
    """
    names = list(tensors(model))
    network = Network(model, weights, names, segment)
    blocks = {name for name, spec in tensors(model).items() if spec.blocks}
    sums = {name: np.zeros(model.n_blocks if name in blocks else 1) for name in names}
    counts = {name: np.zeros_like(total) for name, total in sums.items()}
    for ids in documents:
        array, state = np.asarray(ids, np.int64), empty_state(model)
        for start in range(0, len(array) - segment, segment):
            network.forward(array[start : start + segment], array[start + 1 : start + segment + 1], state)
            network.backward()
            for name in names:
                grad = network.grads[name].astype(np.float64) / segment
                used = network.awake[int(name.split(".")[1])] if name in blocks else np.ones(1, bool)
                squares = np.square(grad).mean(tuple(range(1, grad.ndim)) if name in blocks else None)
                sums[name] += np.where(used, squares, 0)
                counts[name] += used
    return _roots(sums, counts)


def _roots(sums: dict[str, Array], counts: dict[str, Array]) -> Weights:
    mean = {name: np.sqrt(total / np.maximum(counts[name], 1)) for name, total in sums.items()}
    # A block that never woke has no measure of its own; the median of the others stands in.
    for name, rms in mean.items():
        known = rms[rms > 0]
        mean[name] = np.where(rms > 0, rms, np.median(known) if known.size else 1.0).astype(np.float32)
    return mean
