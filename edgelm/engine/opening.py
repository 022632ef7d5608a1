"""Opens a session on a model: one that multiplies small integers where the processor does that fast, or float32.

A graph is made of the model's sizes each time, in some hundredths of a second: none comes from a file, so that nothing
but what edgelm writes reaches ONNX Runtime. That of integers names frozen tensors that it does not hold; they come from
the model's file, as constants that ONNX Runtime may rearrange. What the neurons write (w2) learning changes: their
integers are inputs, made again before a run from the float32 that was written since the last one. Where nothing will be
learned they are constants too, and a token takes two thirds of the time.
"""

from __future__ import annotations

import numpy as np

from edgelm import ports
from edgelm.config import graph_choice
from edgelm.engine.session import OrtSession
from edgelm.export.step import build_graph
from edgelm.matrices.quantize import BLOCK, PRECISIONS
from edgelm.model.hub import Model
from edgelm.model.packing import integers, unpack_one
from edgelm.model.weights import Weights, adaptable_names, block_names, tensors

Array = np.ndarray


def precision_of(model: Model) -> str:
    """``int8`` or ``float32``, what a model is computed with here: ``EDGELM_GRAPH``, else what is faster."""
    return graph_choice() or ("int8" if ports.multiplies_integers() else "float32")


def open_session(model: Model, threads: int = 1, precision: str | None = None, *, fixed: bool = False) -> OrtSession:
    """A session on the weights of a model, which sees what is learned.

    Parameters
    ----------
    model : Model
    threads : int
        Threads inside one operator.
    precision : {"int8", "float32"}, optional
        Default: ``precision_of(model)``.
    fixed : bool
        Nothing is learned from now on. A session of integers is faster then, and would not see it.

    Raises
    ------
    ModelFileError
        The graph does not fit the weights.
    """
    config = model.config
    if (precision or precision_of(model)) == "float32":
        model.answers_in_float32 = True
        return OrtSession(build_graph(config), model.weights, threads, model.guard)
    blocks, frozen = IntegerBlocks(model), _frozen(model)
    # The float32 of the others is there for whoever learns, once somebody does.
    names = [name for name in adaptable_names(config) if name + ".q" not in blocks.arrays]
    if not fixed:
        graph = build_graph(config, None, PRECISIONS["int8"], frozen)
        learned = {name: model.learning(name) for name in names}
        return OrtSession(graph, learned | blocks.arrays, threads, model.guard, frozen, blocks.refresh)
    blocks.refresh()
    frozen |= {name: model.now(name) for name in names} | blocks.arrays
    return OrtSession(build_graph(config, None, PRECISIONS["int8"], frozen), {}, threads, frozen=frozen)


def _frozen(model: Model) -> Weights:
    """What the integer graph of a model names and does not hold."""
    frozen: Weights = {}
    for name, spec in sorted(tensors(model.config).items()):
        if spec.learns:
            continue
        if spec.divides:
            frozen[name + ".q"], frozen[name + ".scale"] = integers(model.packed, name, blocks=spec.blocks)
        else:
            frozen[name] = unpack_one(model.packed, name)
    return frozen


class IntegerBlocks:
    """What the neurons of a model write, as integers that follow the float32.

    Parameters
    ----------
    model : Model

    Attributes
    ----------
    arrays : dict of ndarray
        ``NAME.q`` uint8 [M,D,B] and ``NAME.scale`` float32 [M,D,B/32] of each w2, changed in place by ``refresh``;
        empty for a model whose blocks do not divide into runs.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        # What was written before now is not in the file.
        self._seen = np.zeros_like(model.guard.versions)
        self._names = block_names(model.config)
        self.arrays: Weights = {}
        divided = [name for name in self._names if tensors(model.config)[name].divides]
        packed = model.private(divided)
        for name in divided:
            q, scale = integers(packed, name, blocks=True)
            self.arrays |= {name + ".q": q, name + ".scale": scale}

    def refresh(self) -> None:
        """Makes the integers of all blocks that were written since the last call; the guard is to be held."""
        versions = self._model.guard.versions
        stale = versions != self._seen
        if not self.arrays or not stale.any():
            return
        # Whoever learned has loaded the kernels.
        from edgelm.kernels.integers import quantize_blocks

        for name, used in zip(self._names, stale, strict=True):
            weight, q, scale = self._model.learning(name), self.arrays[name + ".q"], self.arrays[name + ".scale"]
            n = len(weight)
            quantize_blocks(weight.reshape(n, -1, BLOCK), used, q.reshape(n, -1, BLOCK), scale.reshape(n, -1))
        np.copyto(self._seen, versions)
