"""Learning from text: score a segment, then change the weights by its gradient.

Dynamic evaluation (Krause et al. 2018, arXiv 1709.07432) with one scale per tensor or neuron block:

    W <- W - rate 1e-3 g / rms(g) + pull (W0 - W)

rms(g) is measured over training text at the end of pretraining and comes with the model: scaled by the
gradient of the moment, noise would take steps as long as those of a surprise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from edgelm.config import LearnConfig, ModelConfig
from edgelm.errors import DivergenceError
from edgelm.kernels.optim import pulled_step, pulled_step_int8, sum_of_squares
from edgelm.learn.network import Network
from edgelm.model.guard import Guard
from edgelm.model.packing import Int8Matrix, Operands, Tensor
from edgelm.model.reference import State
from edgelm.model.weights import Weights, adaptable_names, shapes

Array = np.ndarray
OnSegment = Callable[[int, Array], None]
MAX_LOSS = 50.0
"""Mean nats per token of a segment above which something is broken, not surprising."""


class Learner:
    """Changes the adaptable weights of a model; their only writer.

    Parameters
    ----------
    model : ModelConfig
    weights : dict of ndarray
        All weights, the adaptable ones shared with the session and changed in place; frozen ones may be integers.
    base : dict of ndarray
        The adaptable weights before any learning; they may be integers too.
    grad_rms : dict of ndarray
        Root mean square of the gradient of a segment's mean loss: a number, or [M] for blocks.
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
        self.network = Network(model, weights, self.names, config.segment)
        self._dtype = self.network.dtype.type
        grads = self.network.grads
        self._rows = [_Rows(name, grads[name], base[name], np.asarray(weights[name])) for name in self.names]
        self._room = np.zeros(max(tensor.weight.shape[1] for tensor in self._rows), self._dtype)
        # Gradients are sums over the segment; its mean is what grad_rms was measured on. A short segment is
        # worth its tokens.
        rate = config.rate * 1e-3 / config.segment
        self._rates = [
            np.broadcast_to((rate / (np.float64(grad_rms[t.name]) + 1e-12)).astype(self._dtype), len(t.weight)).copy()
            for t in self._rows
        ]

    def steps(self, name: str) -> Array:
        """By how much a unit of the gradient of a segment's summed loss moves each row of a tensor; to be
        broadcast over its gradient."""
        rates = self._rates[self.names.index(name)]
        return rates.reshape(-1, 1, 1) if self.network.grads[name].ndim == 3 else rates

    def new_state(self) -> State:
        """The state before a document."""
        return State.empty(self.model, self._dtype)

    def prepare(self) -> None:
        """Loads, or the first time compiles, all kernels; nothing is learned."""
        zero = np.zeros(1, np.int64)
        self.network.forward(zero, zero, self.new_state())
        self.network.backward()
        spare, none = np.zeros((1, 1), self._dtype), np.zeros(1, np.bool_)
        sum_of_squares(spare, none)
        pulled_step(spare, spare, none, spare[0], self._dtype(0), spare)
        pulled_step_int8(spare, spare.astype(np.uint8), spare, spare[0], none, spare[0], self._dtype(0), spare)

    def score(self, ids: Sequence[int] | Array) -> Array:
        """Losses in nats of ids[1:], each after all before it; nothing is learned."""
        return self._run(ids, None)

    def learn(self, ids: Sequence[int] | Array, on_segment: OnSegment | None = None) -> Array:
        """Scores, then learns, each segment of one document, from an empty state.

        Parameters
        ----------
        ids : sequence of int
            The document, its first id the end-of-document id; ids[1:] are predicted.
        on_segment : callable, optional
            Called after each segment is learned, with its first position and its losses; it may raise to
            stop.

        Returns
        -------
        ndarray [len(ids) - 1]
            Losses in nats, each computed before its segment was learned.

        Raises
        ------
        DivergenceError
            A gradient is not finite; the weights are as they were before that segment.
        """
        return self._run(ids, on_segment or (lambda start, losses: None))

    def _run(self, ids: Sequence[int] | Array, on_segment: OnSegment | None) -> Array:
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
        network, n_steps = self.network, len(losses)
        if not np.isfinite(losses).all() or losses.mean() > MAX_LOSS:
            raise DivergenceError(f"loss {losses.mean():.1f} nats per token; the text was not learned")
        network.backward()
        awake = network.awake
        used = [_ALL if tensor.layer is None else awake[tensor.layer] for tensor in self._rows]
        # What is not finite on its way back shows in the gains and in log_gamma; w2 need not be read for it. Finite
        # numbers whose product is not would show in the next loss.
        total = sum(float(sum_of_squares(t.grad, _ALL)) for t in self._rows if t.layer is None)
        if not np.isfinite(total):
            raise DivergenceError("a gradient is not finite; the text was not learned")
        pull = self._dtype(self.config.pull * n_steps / self.config.segment)
        with self._guard.writing(awake):
            for t, rows, rates in zip(self._rows, used, self._rates, strict=True):
                if isinstance(t.base, Int8Matrix):
                    base = t.base
                    pulled_step_int8(t.grad, base.q, base.scale, self._room, rows, rates, pull, t.weight)
                else:
                    pulled_step(t.grad, t.base, rows, rates, pull, t.weight)


class _Rows:
    """A tensor, its base and its gradient as rows that are updated or not: neuron blocks, or all in one [1, N]."""

    def __init__(self, name: str, grad: Array, base: Tensor, weight: Array) -> None:
        blocks = weight.ndim == 3
        self.name, self.layer = name, int(name.split(".")[1]) if blocks else None
        n = len(weight) if blocks else 1
        self.grad, self.weight = grad.reshape(n, -1), weight.reshape(n, -1)
        self.base: Tensor
        if isinstance(base, Int8Matrix):
            self.base = Int8Matrix(base.q.reshape(n, -1), base.scale.reshape(n, -1))
        else:
            self.base = base.reshape(n, -1)


_ALL = np.ones(1, np.bool_)


def measure_grad_rms(model: ModelConfig, weights: Weights, documents: Sequence[Sequence[int]], segment: int) -> Weights:
    """Root mean square of the gradients of a segment's mean loss over ``documents``.

    A number for each tensor; [M] for neuron blocks, over the segments in which a block is awake.
    """
    names = list(shapes(model))
    network = Network(model, weights, names, segment)
    blocks = {name for name in names if name.endswith((".w1", ".w2"))}
    sums = {name: np.zeros(model.n_blocks if name in blocks else 1) for name in names}
    counts = {name: np.zeros_like(total) for name, total in sums.items()}
    for ids in documents:
        array, state = np.asarray(ids, np.int64), State.empty(model)
        for start in range(0, len(array) - segment, segment):
            network.forward(array[start : start + segment], array[start + 1 : start + segment + 1], state)
            network.backward()
            for name in names:
                grad = network.grads[name].astype(np.float64) / segment
                used = network.awake[int(name.split(".")[1])] if name in blocks else np.ones(1, bool)
                squares = np.square(grad).mean((1, 2) if name in blocks else None)
                sums[name] += np.where(used, squares, 0)
                counts[name] += used
    mean = {name: np.sqrt(sums[name] / np.maximum(counts[name], 1)) for name in names}
    # A block that never woke has no measure of its own; the median of the others stands in.
    for name, rms in mean.items():
        known = rms[rms > 0]
        mean[name] = np.where(rms > 0, rms, np.median(known) if known.size else 1.0).astype(np.float32)
    return mean
