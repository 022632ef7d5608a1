"""What a model remembers between two tokens: one dictionary of arrays, as large after a million tokens as after one.

Names and shapes are those of the graph's inputs: ``state.LAYER.NAME``, and ``state.norm.NAME`` for what all layers
share.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from edgelm.cells.cell import Parts, Shapes
from edgelm.model.config import ModelConfig

Array = np.ndarray
State = dict[str, Array]
_SHARED = "state.norm."


@cache
def _shapes(config: ModelConfig) -> Shapes:
    table: Shapes = {}
    for _, cell in config.parts():
        table |= {_SHARED + name: shape for name, shape in cell.shared_state().items()}
    for prefix, cell in config.parts():
        own = {_layer(prefix) + name: shape for name, shape in cell.state().items()}
        assert not own.keys() & table.keys(), own
        table |= own
    return table


def state_shapes(config: ModelConfig) -> Shapes:
    """Name and shape of every state tensor."""
    return dict(_shapes(config))


def state_bytes(config: ModelConfig) -> int:
    """Bytes of the state in float32."""
    return 4 * sum(math.prod(shape) for shape in _shapes(config).values())


def empty_state(config: ModelConfig, dtype: type = np.float32) -> State:
    """The state before the first token."""
    return {name: np.zeros(shape, dtype) for name, shape in _shapes(config).items()}


def copy_state(state: State) -> State:
    """An independent copy."""
    return {name: array.copy() for name, array in state.items()}


def _layer(prefix: str) -> str:
    """``layers.3.mixer.`` to ``state.3.``."""
    return f"state.{prefix.split('.')[1]}."


def part_of(state: State, prefix: str) -> Parts:
    """The arrays, not copied, of the layer whose tensors begin with ``prefix``."""
    beginning = _layer(prefix)
    return {name.removeprefix(beginning): array for name, array in state.items() if name.startswith(beginning)}


def replace_part(state: State, prefix: str, part: Parts) -> None:
    """Puts arrays in the place of those of the layer whose tensors begin with ``prefix``."""
    state |= {_layer(prefix) + name: array for name, array in part.items()}


def shared_part(state: State) -> Parts:
    """The arrays, not copied, that all layers share."""
    return {name.removeprefix(_SHARED): array for name, array in state.items() if name.startswith(_SHARED)}


def advance(state: State, config: ModelConfig, n_steps: int) -> None:
    """Moves what all layers share on by so many tokens, in place."""
    shared = shared_part(state)
    done: set[str] = set()
    for _, cell in config.parts():
        if new := cell.shared_state().keys() - done:
            cell.advance({name: shared[name] for name in new}, n_steps)
            done |= new
