"""The whole model over tokens for answering: a call of a kernel for each layer part, and nothing kept for learning."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from edgelm.cells.buffers import integer_buffers, integers_of
from edgelm.cells.cell import Cell, Parts
from edgelm.cells.table import passes_of
from edgelm.kernels import fused
from edgelm.kernels import norm as norm_kernels
from edgelm.matrices.matrix import Operands, as_matrix, workspace_size
from edgelm.matrices.strips import Strips
from edgelm.model.config import ModelConfig
from edgelm.model.state import State, part_of, shared_part
from edgelm.model.weights import EMBED_SUMS, tensors

Array = np.ndarray


def integer_matrices(config: ModelConfig) -> set[str]:
    """Names of the matrices that are computed with as integers in strips: the embedding, and those of layer parts that
    have a kernel, if all of a part divide into runs."""
    found = {"embed"}
    for prefix, cell in config.parts():
        specs = cell.tensors()
        if hasattr(passes_of(cell), "Answer") and all(specs[name].divides for name in cell.MATRICES):
            found.update(prefix + name for name in cell.MATRICES)
    return {name for name in found if tensors(config)[name].divides}


class Decoder:
    """The model over tokens, one or some at a time.

    A layer part whose matrices are all in strips is computed by its kernel, with activations that are integers too; any
    other by its pass for learning, with float32 activations.

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
        self._buffers: Parts = {}
        self._begins: dict[str, tuple[Any, Cell]] = {}
        """Of each kind that has a kernel, what is called before its layers."""
        self._advances: dict[str, Cell] = {}
        """Cells of the other kinds, which are moved on after all layers."""
        self._parts: list[Any] = []
        for prefix, cell in config.parts():
            own = {name.removeprefix(prefix): weights[name] for name in weights if name.startswith(prefix)}
            self._parts.append(self._part(cell, own, part_of(state, prefix)))
        given = (config, weights["embed"], np.asarray(weights["final_norm"]), max_steps, self._buffers)
        self._ends: Any = _IntegerEnds(*given) if isinstance(weights["embed"], Strips) else _FloatEnds(*given)
        self._streams = np.zeros((max_steps, config.d_model), np.float32)
        self._x = self._streams

    def _part(self, cell: Cell, weights: Operands, state: Parts) -> Any:
        """What computes a layer part."""
        passes = passes_of(cell)
        if hasattr(passes, "Answer") and all(isinstance(weights[name], Strips) for name in cell.MATRICES):
            self._begins[cell.KIND] = (passes.begin, cell)
            return passes.Answer(cell, weights, state, self.max_steps, self._buffers)
        self._advances[cell.KIND] = cell
        made = _AnswerOfBlockPass if getattr(cell, "n_blocks", 0) else _AnswerOfPass
        return made(cell, weights, state, self._shared, self.max_steps, self._buffers)

    @property
    def is_fused(self) -> bool:
        """Whether every layer part has a kernel of its own."""
        return not self._advances

    def run(self, ids: Array, logits: Array) -> None:
        """Feeds ids [T] int64; logits [N,V] are overwritten with those of the last N tokens."""
        x = self._begin(ids)
        for part in self._parts:
            part.forward(x)
        self._end(x, logits)

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
            self._x = self._streams[: len(ids)]
        self._ends.read(ids, self._x)
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
        if buffers.setdefault("workspace", np.zeros(0, np.float32)).size < size:
            buffers["workspace"] = np.zeros(size, np.float32)
        self._pass = passes_of(cell).Pass(cell, weights, {}, max_steps, buffers)
        self._state, self._shared = state, shared

    def forward(self, x: Array) -> None:
        """As of ``edgelm.cells.passes.Answer``."""
        self.before = x.copy()
        self._pass.forward(self.before, x, self._state, self._shared)


class _AnswerOfBlockPass(_AnswerOfPass):
    """That of a cell with neuron blocks."""

    def __init__(self, cell: Any, weights: Operands, *rest: Any) -> None:
        super().__init__(cell, weights, *rest)
        # The paper with no block put to sleep says how much each wanted to wake.
        self._uncapped, self._weights = replace(cell, max_awake=cell.n_blocks), weights

    @property
    def activations(self) -> Array:
        """As of ``edgelm.cells.passes.BlockAnswer``."""
        return self._uncapped.activations(self.before, {k: np.asarray(w) for k, w in self._weights.items()})


class _IntegerEnds:
    """The embedding, which is the output matrix too, of integers."""

    def __init__(self, config: ModelConfig, embed: Any, gain: Array, max_steps: int, buffers: Parts) -> None:
        self._embed, self._gain, self._eps = integers_of({"embed": embed}, "embed"), gain, np.float32(config.norm_eps)
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
    """The same of float32."""

    def __init__(self, config: ModelConfig, embed: Any, gain: Array, max_steps: int, buffers: Parts) -> None:
        self._embed, self._gain, self._eps = as_matrix(embed, EMBED_SUMS), gain, np.float32(config.norm_eps)
        self._workspace = np.zeros(workspace_size(max_steps, embed.shape), np.float32)
        self._inverse, self._hidden = np.zeros(max_steps, np.float32), np.zeros((max_steps, config.d_model), np.float32)

    def read(self, ids: Array, x: Array) -> None:
        """As of ``_IntegerEnds``."""
        x[:] = self._embed.rows(ids)

    def write(self, x: Array, logits: Array) -> None:
        """As of ``_IntegerEnds``."""
        n = len(logits)
        if n:
            hidden = self._hidden[:n]
            norm_kernels.rms_forward(x[len(x) - n :], self._gain, self._eps, self._inverse, hidden)
            self._embed.product(hidden, self._workspace, logits)
