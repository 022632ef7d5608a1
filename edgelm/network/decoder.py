"""The whole model over tokens for answering: a call of a kernel for each layer part, or, of one token, for all of them,
and nothing kept for learning."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import numpy as np

from edgelm.cells.buffers import FORWARD_ALONE, integer_buffers, integers_of
from edgelm.cells.cell import Cell, Parts
from edgelm.cells.table import passes_of
from edgelm.kernels import fused
from edgelm.kernels.jit import record
from edgelm.matrices.answering import IntegerProducts
from edgelm.matrices.matrix import Int8, Operands, as_matrix, workspace_size
from edgelm.matrices.spec import TensorSpec
from edgelm.matrices.strips import Strips
from edgelm.model.config import ModelConfig
from edgelm.model.state import State, part_of, shared_part
from edgelm.model.weights import EMBED_SUMS, tensors
from edgelm.network.final_norm import final_norm

Array = np.ndarray


def integer_matrices(config: ModelConfig) -> set[str]:
    """Names of the matrices that are computed with as integers in strips: the output matrix, and those of layer parts
    that have a kernel, if all of a part divide into runs."""
    found = {config.head}
    for prefix, cell in config.parts():
        specs, passes = cell.tensors(), passes_of(cell)
        if hasattr(passes, "Answer") and all(specs[name].divides for name in cell.MATRICES):
            found.update(prefix + name for name in cell.MATRICES if not _is_of_rows(specs[name]))
    return {name for name in found if tensors(config)[name].divides}


def _is_of_rows(spec: TensorSpec) -> bool:
    """Whether it is read row by row, where neurons are awake."""
    return spec.blocks and len(spec.shape) == 2


def _are_integers(cell: Cell, weights: Operands) -> bool:
    """Whether all matrices of a part are such integers as its kernel takes."""
    specs = cell.tensors()
    return all(isinstance(weights[name], Int8 if _is_of_rows(specs[name]) else Strips) for name in cell.MATRICES)


class Decoder:
    """The model over tokens, one or some at a time.

    A layer part whose matrices are all integers, in strips but for those that are read row by row, is computed by its
    kernel, with activations that are integers too; any other by its pass for learning, with float32 activations.

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
        self._shared = shared_part(state)
        self._lasting = frozenset(self._shared)
        """What of it is state; the rest layers leave for those after them, in one call."""
        self._buffers: Parts = {}
        self._begins: dict[str, tuple[Any, Cell]] = {}
        """Of each kind that has a kernel, what is called before its layers."""
        self._advances: dict[str, Cell] = {}
        """Cells of the other kinds, which are moved on after all layers."""
        self._parts: list[Any] = []
        for prefix, cell in config.parts():
            own = {name.removeprefix(prefix): weights[name] for name in weights if name.startswith(prefix)}
            self._parts.append(self._part(cell, own, part_of(state, prefix)))
        tied = config.tied and config.norm == "rms" and isinstance(weights["embed"], Strips)
        self._ends: Any = (_IntegerEnds if tied else _FloatEnds)(config, weights, max_steps, self._buffers)
        self._streams = np.zeros((max_steps, config.d_model), np.float32)
        self._one = self._x = self._streams[:1]
        self._pass_one: Callable[[], None] | None = None
        """All layer parts on one token, once that was recorded; only if each has a kernel."""

    def _part(self, cell: Cell, weights: Operands, state: Parts) -> Any:
        """What computes a layer part."""
        passes = passes_of(cell)
        if hasattr(passes, "Answer") and _are_integers(cell, weights):
            self._begins[cell.KIND] = (passes.begin, cell)
            return passes.Answer(cell, weights, state, self.max_steps, self._buffers)
        self._advances[cell.KIND] = cell
        made: type[_AnswerOfPass] = _AnswerOfPass
        if getattr(cell, "n_blocks", 0):
            made = _ObservedPass if hasattr(passes.Pass, "activations") else _AnswerOfBlockPass
        return made(cell, weights, state, self._shared, self.max_steps, self._buffers)

    @property
    def is_fused(self) -> bool:
        """Whether every layer part has a kernel of its own."""
        return not self._advances

    def run(self, ids: Array, logits: Array) -> None:
        """Feeds ids [T] int64; logits [N,V] are overwritten with those of the last N tokens."""
        x = self._begin(ids)
        if x is not self._one or not self.is_fused:
            self._forward(x)
        elif self._pass_one is not None:
            self._pass_one()
        else:
            self._pass_one = record(partial(self._forward, x))
        self._end(x, logits)

    def _forward(self, x: Array) -> None:
        for part in self._parts:
            part.forward(x)

    def observe(self, ids: Array, logits: Array) -> Array:
        """As ``run``; returns the activations [L,T,M] of the router, before the weakest blocks were put to sleep."""
        x, found = self._begin(ids), []
        for part in self._parts:
            part.forward(x)
            if hasattr(part, "activations"):
                found.append(part.activations.copy())
        self._end(x, logits)
        return np.stack(found) if found else np.zeros((self._config.n_layers, len(ids), 0), np.float32)

    def _begin(self, ids: Array) -> Array:
        if len(self._x) != len(ids):
            self._x = self._one if len(ids) == 1 else self._streams[: len(ids)]
        self._ends.read(ids, self._x)
        if len(self._shared) > len(self._lasting):
            for name in self._shared.keys() - self._lasting:
                del self._shared[name]
        for begin, cell in self._begins.values():
            begin(cell, self._shared, len(ids), self._buffers)
        return self._x

    def _end(self, x: Array, logits: Array) -> None:
        for cell in self._advances.values():
            cell.advance({name: self._shared[name] for name in cell.shared_state()}, len(x))
        self._ends.write(x, logits)


class _AnswerOfPass:
    """A layer part computed by its pass for learning, of whose buffers nothing is kept."""

    def __init__(
        self, cell: Cell, weights: Operands, state: Parts, shared: Parts, max_steps: int, buffers: Parts
    ) -> None:
        size = max(
            workspace_size(max_steps, spec.shape[-2:]) for spec in cell.tensors().values() if spec.sums is not None
        )
        # Passes of one kind share all of theirs.
        own = cast(Any, buffers).setdefault(f"of {cell.KIND}", {FORWARD_ALONE: True})
        own.setdefault("workspace", np.zeros(size, np.float32))
        self._pass = passes_of(cell).Pass(cell, weights, {}, max_steps, own)
        self._state, self._shared = state, shared

    def forward(self, x: Array) -> None:
        """As of ``edgelm.cells.passes.Answer``."""
        self.before = x.copy()
        self._pass.forward(self.before, x, self._state, self._shared)


class _ObservedPass(_AnswerOfPass):
    """That of a cell whose pass makes activations that nothing puts to sleep."""

    @property
    def activations(self) -> Array:
        """As of ``edgelm.cells.passes.BlockAnswer``."""
        found: Array = self._pass.activations
        return found


class _AnswerOfBlockPass(_AnswerOfPass):
    """That of a cell with neuron blocks."""

    def __init__(self, cell: Any, weights: Operands, *rest: Any) -> None:
        super().__init__(cell, weights, *rest)
        self._cell, self._weights = cell, weights

    @property
    def activations(self) -> Array:
        """As of ``edgelm.cells.passes.BlockAnswer``."""
        return self._cell.all_activations(self.before, {k: np.asarray(w) for k, w in self._weights.items()})


class _IntegerEnds:
    """The embedding, which is the output matrix too, of integers in strips."""

    def __init__(self, config: ModelConfig, weights: Operands, max_steps: int, buffers: Parts) -> None:
        self._embed, self._eps = integers_of(weights, "embed"), np.float32(config.norm_eps)
        self._gain = np.asarray(weights["final_norm"])
        self._buffers = integer_buffers(config.d_model, config.d_model, max_steps, buffers)

    def read(self, ids: Array, x: Array) -> None:
        """x [T,D] = the rows ids [T]."""
        q, scale = self._embed
        fused.embed(ids, q, scale, x)

    def write(self, x: Array, logits: Array) -> None:
        """logits [N,V] of the last N rows of x."""
        q, scale = self._embed
        fused.head(x, len(x) - len(logits), self._gain, self._eps, q, scale, self._buffers, logits)


class _FloatEnds:
    """The same of other numbers, and of two matrices."""

    def __init__(self, config: ModelConfig, weights: Operands, max_steps: int, buffers: Parts) -> None:
        self._embed, head = as_matrix(weights["embed"], EMBED_SUMS), weights[config.head]
        head = IntegerProducts(head, max_steps, buffers) if isinstance(head, Strips) else head
        self._head = as_matrix(head, EMBED_SUMS)
        self._norm = final_norm(config, weights, max_steps)
        shape = (config.vocab_size, config.d_model)
        self._workspace = np.zeros(workspace_size(max_steps, shape), np.float32)
        self._hidden = np.zeros((max_steps, config.d_model), np.float32)

    def read(self, ids: Array, x: Array) -> None:
        """As of ``_IntegerEnds``."""
        if isinstance(self._embed, Int8):
            fused.embed_rows(ids, self._embed.q, self._embed.scale, x)
        else:
            x[:] = self._embed.rows(ids)

    def write(self, x: Array, logits: Array) -> None:
        """As of ``_IntegerEnds``."""
        n = len(logits)
        if n:
            hidden = self._hidden[:n]
            self._norm.forward(x[len(x) - n :], hidden)
            self._head.product(hidden, self._workspace, logits)
