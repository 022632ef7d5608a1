"""From samples to the figures of ``edgelm bench``."""

from __future__ import annotations

import os
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from statistics import median
from typing import Any

from edgelm import __version__, ports
from edgelm.bench.limit import bytes_per_token
from edgelm.bench.speed import Speeds
from edgelm.kernels import aot
from edgelm.measure.score import awake_fraction
from edgelm.runtime import Engine

MEASURED_ON = ("numpy", "onnxruntime", "numba")
_RATES = {
    "learn_tokens_per_s": "learn",
    "decode_while_learning_tokens_per_s": "decode_while_learning",
    "learn_while_decoding_tokens_per_s": "learn_while_decoding",
    "forward_tokens_per_s": "forward",
}
"""Fields, and the samples that they are of, whichever engines are measured."""
_FIXED = "fixed"
"""Name of ONNX Runtime's variant all of whose weights are constants."""
_LIMITS = ("bytes_per_token", "bandwidth_gb_s", "overhead_ms", "roofline_ratio")
"""What the fields of the normal path are called, as those of every variant."""
_RATIOS = {
    "decode_vs": ("decode_tokens_per_s", ("decode_tokens_per_s", "decode_compiled_tokens_per_s")),
    "decode_fixed_vs": ("decode_fixed_tokens_per_s", ("decode_tokens_per_s", "decode_compiled_tokens_per_s")),
    "prefill_vs": ("prefill_tokens_per_s", ("prefill_tokens_per_s",)),
}


def about(engine: Engine, threads: int, why: str) -> dict[str, Any]:
    """What is measured, and on what; ``load`` is how much the machine did beside, before it begins. ``why`` says why
    it is this engine that answers."""
    return {
        "model": engine.model.name,
        "parameters": engine.model.n_parameters,
        "blocks": engine.config.max_awake,
        "engine": engine.choice.engine,
        "engine_why": why,
        "precision": engine.precision,
        "port": ports.detect().name,
        "cpu": ports.cpu_name(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "threads": threads,
        "kernels": aot.in_use(),
        "versions": {"edgelm": __version__} | _versions(),
    }


def _versions() -> dict[str, str]:
    """Of what the figures depend on; a wheel with compiled kernels runs without numba."""
    found = {}
    for name in MEASURED_ON:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def speeds(engine: Engine, measured: Speeds) -> dict[str, Any]:
    """Medians of the rounds, with the smallest and the largest in ``ranges``, and what follows from them."""
    main, samples, names = measured.main, measured.samples, _rates(measured)
    rates = {field: median(samples[name]) for field, name in names.items()}
    variants = {name: _variant(engine, measured, name, f"decode.{name}") for name in measured.precisions}
    if measured.fixed is not None:
        variants[_FIXED] = _variant(engine, measured, measured.fixed, "decode_fixed") | {"name": _FIXED}
    pairs, early = measured.pairs_per_token[main], samples[f"decode.{main}"]
    position_ratio = [late / soon for late, soon in zip(samples["decode.late"], early, strict=True)]
    overhead_ms = [1e3 / per_s for per_s in samples[f"narrow.{main}"]]
    fields = {name: round(per_s, 2) for name, per_s in rates.items()}
    if len(measured.of_engine) > 1:
        for what in ("decode", "prefill"):
            kernels, onnx = (rates[f"{what}_{name}_tokens_per_s"] for name in ("kernels", "onnx"))
            fields[f"{what}_vs_onnx"] = round(kernels / onnx, 3)
    fields |= {
        "learn_over_forward": round(rates["forward_tokens_per_s"] / rates["learn_tokens_per_s"], 2),
        "position_ratio": round(median(position_ratio), 4),
        "late_position": measured.late_position,
        "state_bytes": engine.session.state_bytes,
        "awake_fraction": round(awake_fraction(engine.config, pairs), 4),
        "blocks_awake": round(pairs / engine.config.n_layers, 2),
    }
    fields |= {name: variants[main][name] for name in _LIMITS}
    ranges = {field: _range(samples[name]) for field, name in names.items()}
    ranges |= {"position_ratio": _range(position_ratio, 4), "overhead_ms": _range(overhead_ms, 4)}
    return fields | {"variants": list(variants.values()), "ranges": ranges}


def _rates(measured: Speeds) -> dict[str, str]:
    """Fields of speeds, and the samples that they are of."""
    names = {f"{what}_tokens_per_s": f"{what}.{measured.main}" for what in ("decode", "prefill")} | _RATES
    for engine, variant in measured.of_engine.items():
        names |= {f"{what}_{engine}_tokens_per_s": f"{what}.{variant}" for what in ("decode", "prefill")}
    if measured.fixed is not None:
        names["decode_fixed_tokens_per_s"] = "decode_fixed"
    return names


def _variant(engine: Engine, measured: Speeds, name: str, decode_name: str) -> dict[str, Any]:
    """The speed of a graph, or of the kernels, against what its bytes and its nodes, or calls, alone would take.

    One thread reads ``bytes_per_token`` at ``bandwidth_gb_s``; a ratio near 1 says that decoding is at that limit.
    """
    n_bytes = bytes_per_token(engine.config, measured.pairs_per_token[name], measured.precisions[name])
    decode, best = measured.median(decode_name), max(measured.samples[f"read_rate.{name}"])
    overhead = 1 / measured.median(f"narrow.{name}")
    return {
        "name": name,
        "decode_tokens_per_s": round(decode, 2),
        "bytes_per_token": n_bytes,
        "bandwidth_gb_s": round(best / 1e9, 2),
        "overhead_ms": round(1e3 * overhead, 4),
        "roofline_ratio": round((n_bytes / best + overhead) * decode, 4),
    }


def processes(first_token_ms: list[float], rss_mb: float, learn_rss_mb: float) -> dict[str, Any]:
    """What new processes showed."""
    return {
        "first_token_ms": round(median(first_token_ms), 1),
        "rss_mb": round(rss_mb, 1),
        "learn_rss_mb": round(learn_rss_mb, 1),
        "ranges": {"first_token_ms": _range(first_token_ms, 1)},
    }


def against(peer: str, fields: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """How many times as fast as a peer; its own figures stand below its name.

    It is judged by the fastest that it has. Learning is compared with each of its ways.
    """
    name = peer.replace("-", "_")
    ratios: dict[str, Any] = {name: theirs}
    for ratio, (ours, ways) in _RATIOS.items():
        found = [theirs[way] for way in ways if theirs.get(way)]
        if found and ours in fields:
            ratios[f"{ratio}_{name}"] = round(fields[ours] / max(found), 3)
    for way in ("eager", "alone", "compiled"):
        if per_s := theirs.get(f"learn_{way}_tokens_per_s"):
            ratios[f"learn_vs_{name}_{way}"] = round(fields["learn_tokens_per_s"] / per_s, 3)
    return ratios


def _range(values: list[float], digits: int = 2) -> list[float]:
    return [round(min(values), digits), round(max(values), digits)]
