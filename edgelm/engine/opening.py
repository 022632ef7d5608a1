"""Opens a session on a model, of either engine: one that multiplies small integers where that is fast, or float32.

The kernels multiply integers fast on every processor, ONNX Runtime on those that have an instruction for it. For ONNX
Runtime a graph is made of the model's sizes each time, in some hundredths of a second: none comes from a file, so that
nothing but what edgelm writes reaches ONNX Runtime. That of integers names frozen tensors that it does not hold; they
come from the model's file, as constants that ONNX Runtime may rearrange. What the neurons write (w2) learning changes:
their integers are inputs, made again before a run from the float32 that was written since the last one. Where nothing
will be learned they are constants too, and a token takes two thirds of the time.
"""

from __future__ import annotations

from importlib.util import find_spec

from edgelm import ports
from edgelm.config import graph_choice
from edgelm.engine.integer_blocks import IntegerBlocks
from edgelm.engine.session import Session
from edgelm.export.step import build_graph
from edgelm.matrices.quantize import PRECISIONS
from edgelm.model.hub import Model
from edgelm.model.packing import integers, unpack_one
from edgelm.model.weights import Weights, adaptable_names, tensors


def has_onnxruntime() -> bool:
    """Whether ONNX Runtime is installed; the wheels for Arm leave it out."""
    return find_spec("onnxruntime") is not None


def precision_of(engine: str = "onnx") -> str:
    """``int8`` or ``float32``, what an engine computes with here: ``EDGELM_GRAPH``, else what is faster."""
    return graph_choice() or ("int8" if engine == "kernels" or ports.multiplies_integers() else "float32")


def open_session(
    model: Model, threads: int = 1, precision: str | None = None, *, fixed: bool = False, engine: str | None = None
) -> Session:
    """A session on the weights of a model, which sees what is learned.

    Parameters
    ----------
    model : Model
    threads : int
        Of ONNX Runtime, inside one operator; of the kernels, where a long text is read.
    precision : {"int8", "float32"}, optional
        Default: ``precision_of(engine)``.
    fixed : bool
        Nothing is learned from now on. ONNX Runtime is faster with integers then, and would not see it.
    engine : {"onnx", "kernels"}, optional
        Default: ONNX Runtime where it is installed, else the kernels.

    Raises
    ------
    ModelFileError
        The graph does not fit the weights.
    """
    engine = engine or ("onnx" if has_onnxruntime() else "kernels")
    config, precision = model.config, precision or precision_of(engine)
    if engine == "kernels":
        from edgelm.engine.kernel_session import KernelSession

        return KernelSession(model, precision, threads)
    # It takes 20 MB and a tenth of a second to load, which only those pay whom it answers.
    from edgelm.engine.ort_session import OrtSession

    if precision == "float32":
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
