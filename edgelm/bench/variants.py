"""The ways in which one model can answer: graphs of ONNX Runtime, and the kernels."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from edgelm.bench.limit import narrow
from edgelm.config import graph_choice
from edgelm.engine.kernel_session import KernelSession
from edgelm.engine.opening import open_session, precision_of
from edgelm.engine.session import Session
from edgelm.export.step import build_graph
from edgelm.matrices.quantize import PRECISIONS, Precision
from edgelm.model import hub
from edgelm.model.weights import random_weights
from edgelm.runtime import Engine

GRAPHS = {"float32": PRECISIONS["none"], "int8": PRECISIONS["int8"], "int4": PRECISIONS["int4"]}
"""Of ONNX Runtime. What the neurons write may be learned in float32 and int8; int4 is all constants."""
KERNELS = "kernels"


@dataclass(frozen=True)
class Variant:
    """A way to answer.

    Attributes
    ----------
    session : Session
    narrow : Session
        The same of a model as narrow as it may be: its nodes or calls, almost without work.
    precision : Precision
        Of its matrices.
    """

    session: Session
    narrow: Session
    precision: Precision


def variant_of(engine: str) -> str:
    """The variant that an engine is compared with the other by: integers, unless ``EDGELM_GRAPH`` says float32."""
    return KERNELS if engine == KERNELS else graph_choice() or "int8"


def main_variant(engine: Engine) -> str:
    """The variant that answers here."""
    return KERNELS if engine.choice.engine == KERNELS else engine.precision


def variants(engine: Engine, threads: int, engines: Collection[str]) -> dict[str, Variant]:
    """All variants of the ``engines`` (keys of ``edgelm.engine.choice.ENGINES``); the session of the one that answers
    here is the engine's own."""
    found, main = {}, main_variant(engine)
    if KERNELS in engines:
        name = precision_of(KERNELS)
        session = engine.session if main == KERNELS else open_session(engine.model, threads, name, engine=KERNELS)
        found[KERNELS] = Variant(session, _narrow_kernels(engine, name), GRAPHS[name])
    if "onnx" in engines:
        for name, precision in GRAPHS.items():
            session = engine.session if main == name else _graph(engine, threads, name)
            found[name] = Variant(session, _narrow_graph(engine, threads, name), precision)
    return found


def _graph(engine: Engine, threads: int, name: str) -> Session:
    """The session of a graph; none changes what learning reads."""
    from edgelm.engine.ort_session import OrtSession

    config, weights = engine.config, engine.weights
    if name == "float32":
        return OrtSession(build_graph(config), weights, threads, engine.guard)
    if name == "int8":
        return open_session(engine.model, threads, "int8", engine="onnx")
    return OrtSession(build_graph(config, weights, GRAPHS[name]), {}, threads)


def _narrow_graph(engine: Engine, threads: int, name: str) -> Session:
    from edgelm.engine.ort_session import OrtSession

    precision = GRAPHS[name]
    config = narrow(engine.config, precision)
    weights = random_weights(config, np.random.default_rng(0))
    graph = build_graph(config) if name == "float32" else build_graph(config, weights, precision)
    return OrtSession(graph, weights, threads)


def _narrow_kernels(engine: Engine, precision: str) -> Session:
    config = narrow(engine.config, GRAPHS[precision])
    weights = random_weights(config, np.random.default_rng(0))
    model = hub.in_memory("narrow", config, weights, engine.tokenizer, GRAPHS[precision])
    return KernelSession(model, precision)
