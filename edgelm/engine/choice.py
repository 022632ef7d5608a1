"""Which engine answers: the kernels that learning uses too, or ONNX Runtime.

``EDGELM_ENGINE`` or ``--engine`` says so, else what is faster on this device: it is measured once for a model, by
decoding the same tokens with both in turns, and kept beside the profiles.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from edgelm import __version__, ports
from edgelm.config import data_dir, engine_choice, graph_choice
from edgelm.engine.opening import has_onnxruntime, open_session
from edgelm.kernels import aot
from edgelm.model.hub import Model

ENGINES = ("kernels", "onnx")
TOKENS, ROUNDS = 16, 5
"""How many tokens are decoded in a round, and rounds of each engine."""


@dataclass(frozen=True)
class Choice:
    """An engine, and why it is this one.

    Attributes
    ----------
    engine : {"kernels", "onnx"}
    why : str
        A clause for people: ``measured here: 3,200 tokens/s against 1,100``.
    """

    engine: str
    why: str


def choose(model: Model, asked: str | None, threads: int, *, learns: bool, measures: bool) -> Choice:
    """The engine for a model on this device.

    Parameters
    ----------
    model : Model
    asked : str or None
        What the user asked for, if anything; a key of ``ENGINES``.
    threads : int
        Those that ONNX Runtime may use.
    learns : bool
        Whether the kernels will be loaded in any case, because this process learns.
    measures : bool
        Whether to measure where nothing was measured yet; to compile kernels for it takes some seconds.

    Raises
    ------
    ConfigError
        ``EDGELM_ENGINE`` names no engine.
    """
    if engine := asked or engine_choice():
        return Choice(engine, "asked for")
    if not has_onnxruntime():
        return Choice("kernels", "ONNX Runtime is not installed")
    kernels = aot.in_use()
    if kernels == "python":
        return Choice("onnx", "kernels run as plain Python here")
    if graph_choice() == "float32":
        return Choice("onnx", "EDGELM_GRAPH=float32, for which no kernel is written")
    if model.config.steps is not None:
        return Choice("kernels", "of this model the graph takes one token at a time")
    compiled_before = kernels != "jit"
    if not (compiled_before or learns or measures):
        return Choice("onnx", "nothing is learned, and to load the compiler of the kernels takes longer than they save")
    rates = _known(model)
    if rates is None and (measures or compiled_before):
        rates = _measure(model, threads)
        _keep(model, rates)
    if rates is None:
        return Choice("onnx", "not measured yet: `edgelm info --measure` does")
    best, other = sorted(ENGINES, key=lambda engine: -rates[engine])
    return Choice(best, f"measured here: {rates[best]:,.0f} tokens/s against {rates[other]:,.0f} of {other}")


def _measure(model: Model, threads: int) -> dict[str, float]:
    """Tokens per second of each engine, the median of rounds in turns."""
    sessions = {engine: open_session(model, threads, engine=engine) for engine in ENGINES}
    seconds: dict[str, list[float]] = {engine: [] for engine in ENGINES}
    for number in range(1 + ROUNDS):
        for engine, session in sessions.items():
            ids = np.arange(TOKENS) % session.vocab_size
            begun = time.perf_counter()
            for token_id in ids:
                session.run(np.array([token_id]))
            if number:  # the first loads, or compiles
                seconds[engine].append(time.perf_counter() - begun)
            session.reset()
    return {engine: TOKENS / statistics.median(found) for engine, found in seconds.items()}


def _path() -> Path:
    return data_dir() / "engines.json"


def _key(model: Model) -> str:
    """What the figures depend on: another model, processor or installation is measured anew."""
    return " ".join([model.sha256[:16], ports.cpu_name(), aot.in_use(), __version__, _installed("onnxruntime")])


def _installed(package: str) -> str:
    """When a package was installed; neither it nor what knows its version is imported, which would take longer."""
    spec = find_spec(package)
    try:
        return str(int(Path(spec.origin).stat().st_mtime)) if spec is not None and spec.origin else "none"
    except OSError:
        return "none"


def _read() -> dict[str, Any]:
    try:
        found = json.loads(_path().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _known(model: Model) -> dict[str, float] | None:
    """The rates that were measured before, if they were; what the file holds besides counts for nothing."""
    rates = _read().get(_key(model))
    if not isinstance(rates, dict) or {*rates} != {*ENGINES}:
        return None
    fits = all(isinstance(rate, int | float) and 0 < rate < 1e9 for rate in rates.values())
    return rates if fits else None


def _keep(model: Model, rates: dict[str, float]) -> None:
    """Writes the rates down; where that is not possible they are measured again the next time."""
    path = _path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".json", delete=False, encoding="utf-8") as file:
            json.dump(_read() | {_key(model): {name: round(rate, 1) for name, rate in rates.items()}}, file)
        Path(file.name).replace(path)
    except OSError:
        pass
