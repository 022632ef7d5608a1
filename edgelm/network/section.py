"""Layer parts in a row over tokens, for answering: a call of a kernel for each, and nothing kept for learning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from edgelm.cells.buffers import FORWARD_ALONE
from edgelm.cells.cell import Cell, Parts
from edgelm.cells.table import passes_of
from edgelm.matrices.matrix import Int8, Operands, workspace_size
from edgelm.matrices.spec import TensorSpec
from edgelm.matrices.strips import Strips
from edgelm.model.config import ModelConfig
from edgelm.model.state import State, part_of
from edgelm.model.weights import tensors

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


class Section:
    """Some layer parts in a row, over tokens, with buffers of their own.

    A layer part whose matrices are all integers, in strips but for those that are read row by row, is computed by its
    kernel, with activations that are integers too; any other by its pass for learning, with float32 activations.

    Parameters
    ----------
    parts : sequence of (str, Cell)
        Of ``ModelConfig.parts``.
    weights : dict of ndarray, Int8 or Strips
        Shared, not copied: a change is seen by the next call. ``integer_matrices`` names what may be ``Strips``.
    state : dict of ndarray
        Of the whole model; the arrays of these parts are updated in place by each call.
    shared : dict of ndarray
        What all layers share, updated in place by each call.
    max_steps : int
        Tokens of the longest call.

    Attributes
    ----------
    buffers : dict of ndarray
        Hold nothing between two calls.
    """

    def __init__(
        self, parts: Sequence[tuple[str, Cell]], weights: Operands, state: State, shared: Parts, max_steps: int
    ) -> None:
        self.shared, self._max_steps = shared, max_steps
        self._lasting = frozenset(shared)
        """What of it is state; the rest layers leave for those after them, in one call."""
        self.buffers: Parts = {}
        self._begins: dict[str, tuple[Any, Cell]] = {}
        """Of each kind that has a kernel, what is called before its layers."""
        self._advances: dict[str, Cell] = {}
        """Cells of the other kinds, which are moved on after all layers."""
        self.parts: list[Any] = []
        for prefix, cell in parts:
            own = {name.removeprefix(prefix): weights[name] for name in weights if name.startswith(prefix)}
            self.parts.append(self._part(cell, own, part_of(state, prefix)))

    def _part(self, cell: Cell, weights: Operands, state: Parts) -> Any:
        """What computes a layer part."""
        passes = passes_of(cell)
        if hasattr(passes, "Answer") and _are_integers(cell, weights):
            self._begins[cell.KIND] = (passes.begin, cell)
            return passes.Answer(cell, weights, state, self._max_steps, self.buffers)
        self._advances[cell.KIND] = cell
        made: type[_AnswerOfPass] = _AnswerOfPass
        if getattr(cell, "n_blocks", 0):
            made = _ObservedPass if hasattr(passes.Pass, "activations") else _AnswerOfBlockPass
        return made(cell, weights, state, self.shared, self._max_steps, self.buffers)

    @property
    def is_fused(self) -> bool:
        """Whether every layer part has a kernel of its own."""
        return not self._advances

    def begin(self, n_steps: int) -> None:
        """To be called before ``forward`` of so many tokens."""
        if len(self.shared) > len(self._lasting):
            for name in self.shared.keys() - self._lasting:
                del self.shared[name]
        for begin, cell in self._begins.values():
            begin(cell, self.shared, n_steps, self.buffers)

    def forward(self, x: Array) -> None:
        """Adds what the parts give to the residual stream x [T,D], in place."""
        for part in self.parts:
            part.forward(x)

    def end(self, n_steps: int) -> None:
        """To be called after ``forward`` of so many tokens."""
        for cell in self._advances.values():
            cell.advance({name: self.shared[name] for name in cell.shared_state()}, n_steps)

    @property
    def left(self) -> list[Array]:
        """What the parts of a fused section leave in buffers for those after them, in one call; the same order in each
        section of a model."""
        names = sorted({name for _, cell in self._begins.values() for name in getattr(passes_of(cell), "LEAVES", ())})
        return [self.buffers[name] for name in names]


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
