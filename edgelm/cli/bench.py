"""``bench``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import click

from edgelm import ports
from edgelm.bench import report
from edgelm.bench.process import PEERS, Commands, lacking, run_peer
from edgelm.bench.speed import Speeds
from edgelm.bench.timing import ROUNDS
from edgelm.cli.options import Common, common, progress_bar
from edgelm.engine.choice import ENGINES, Choice, choose
from edgelm.engine.opening import has_onnxruntime
from edgelm.errors import EdgelmError
from edgelm.kernels import aot
from edgelm.model import hub
from edgelm.model.needs import memory_needed
from edgelm.runtime import Engine, EngineOptions, models_dir

_LINES = (
    ("decode", "decode_tokens_per_s", "tokens/s"),
    ("decode, kernels", "decode_kernels_tokens_per_s", "tokens/s"),
    ("decode, onnx", "decode_onnx_tokens_per_s", "tokens/s"),
    ("decode, onnx, fixed", "decode_fixed_tokens_per_s", "tokens/s"),
    ("prefill", "prefill_tokens_per_s", "tokens/s"),
    ("prefill, kernels", "prefill_kernels_tokens_per_s", "tokens/s"),
    ("prefill, onnx", "prefill_onnx_tokens_per_s", "tokens/s"),
    ("learn", "learn_tokens_per_s", "tokens/s"),
    ("decode while learning", "decode_while_learning_tokens_per_s", "tokens/s"),
    ("learn while decoding", "learn_while_decoding_tokens_per_s", "tokens/s"),
    ("forward alone", "forward_tokens_per_s", "tokens/s"),
    ("learning over forward", "learn_over_forward", "times the time"),
    ("first token", "first_token_ms", "ms"),
    ("memory", "rss_mb", "MB"),
    ("memory, learning", "learn_rss_mb", "MB"),
    ("state", "state_bytes", "bytes"),
    ("late over early decode", "position_ratio", ""),
    ("late position", "late_position", "tokens"),
    ("neurons awake", "awake_fraction", ""),
)
"""Rows of the table: what people call a figure, its field, its unit. Those whose field is missing are left out."""


def _peers(ctx: click.Context, param: click.Parameter, value: str) -> list[str]:
    names = [name.strip() for name in value.split(",") if name.strip()]
    if unknown := [name for name in names if name not in PEERS]:
        raise click.BadParameter(f"{unknown[0]!r} is not one of {', '.join(PEERS)}")
    return list(dict.fromkeys(names))


def _number(ctx: click.Context, param: click.Parameter, value: float) -> float:
    # Every comparison with it is false: no range holds it off, and no clock reaches it.
    if math.isnan(value):
        raise click.BadParameter("nan is not a number of seconds")
    return value


@click.command()
@click.option("--blocks", type=click.IntRange(1), metavar="N", help="At most N blocks of a layer awake.")
@click.option("--compare", default="", callback=_peers, metavar="PEER,...", help=f"Peers: {', '.join(PEERS)}.")
@click.option(
    "--gguf", type=click.Path(exists=True, dir_okay=False, resolve_path=True), help="The model that llama-cpp runs."
)
@click.option(
    "--seconds", type=click.FloatRange(0, 3600, min_open=True), default=3.0, show_default=True, callback=_number,
    help="How long each speed is measured, over all rounds.",
)  # fmt: skip
@common
def bench(blocks: int | None, compare: list[str], gguf: str | None, seconds: float, common: Common) -> None:
    """Speed and memory on this machine, and how near decoding is to its limit.

    It measures the model as it came: no profile is read, and nothing is kept of what is learned meanwhile. Both
    engines are measured side by side, or that of --engine alone. Which of them answers is measured first where it was
    not yet; that is kept, as by `edgelm info --measure`.
    """
    common.note("measuring which engine answers, unless that is known ...")
    choice, without_learning = _choices(common.options)
    engines = _measured_engines(common.options.engine, choice.engine)
    options = replace(common.options, engine=choice.engine)
    with Engine(options, max_awake=blocks, use_profile=False) as engine:
        fields = report.about(engine, options.threads, choice.why) | {"rounds": ROUNDS, "seconds": seconds}
        fields["engine_without_learning"] = without_learning.engine
        common.note("loading the learning kernels (compiled the first time, which takes a while) ...")
        engine.adaptation.prepare()
        common.note("starting new processes ...")
        with Commands(options, without_learning.engine) as commands:
            first_token_ms = commands.first_token_ms()
            # The chat that learns comes last: what it was told, any later process would have to replay.
            memory = [commands.chat_rss_mb(learn=learn) for learn in (False, True)]
            started = report.processes(first_token_ms, *memory)
        common.note("reading up to a late position ...")
        measured = Speeds(engine, seconds / ROUNDS, options.threads, engines)
        with progress_bar("measuring", ROUNDS, common) as on_round:
            for _ in range(ROUNDS):
                measured.round()
                on_round(1)
        found = report.speeds(engine, measured)
        fields |= found | started | {"ranges": found["ranges"] | started["ranges"]}
        arguments = {
            "torch": ["--model", str(engine.model.folder.resolve()), *(["--blocks", str(blocks)] if blocks else [])],
            "llama-cpp": ["--gguf", str(gguf)] if gguf else [],
        }
    for peer in compare:
        fields |= _compare(peer, fields, arguments[peer], common)
    common.emit(fields, table(fields))


def _choices(options: EngineOptions) -> tuple[Choice, Choice]:
    """Which engine answers here where something is learned, and where nothing is."""
    ports.check_memory(memory_needed(options.model, models_dir()), options.model or hub.DEFAULT, ports.detect())
    model, asked, threads = hub.load(options.model, models_dir()), options.engine, options.threads
    learning = choose(model, asked, threads, learns=True, measures=True)
    return learning, choose(model, asked, threads, learns=False, measures=False)


def _measured_engines(asked: str | None, answers: str) -> Sequence[str]:
    """The one that was asked for, or both; but none that is not installed, and no kernels that run as plain Python,
    unless they answer."""
    if asked:
        return (asked,)
    if not has_onnxruntime():
        return ("kernels",)
    return ENGINES if answers == "kernels" or aot.in_use() != "python" else ("onnx",)


def _compare(peer: str, fields: dict[str, Any], arguments: list[str], common: Common) -> dict[str, Any]:
    """What a peer adds to the fields; nothing, and a note, where it cannot be measured."""
    problem = lacking(peer) or ("" if arguments else "it needs a model, --gguf PATH")
    if not problem:
        common.note(f"measuring {peer} ...")
        timing = ["--seconds", str(fields["seconds"]), "--threads", str(fields["threads"])]
        try:
            return report.against(peer, fields, run_peer(peer, [*arguments, *timing]))
        except EdgelmError as exc:
            problem = str(exc)
    common.note(f"no comparison with {peer}: {problem}", always=True)
    return {}


def table(fields: dict[str, Any]) -> str:
    """The figures for people: a line each, with the smallest and the largest of the rounds."""
    threads = "thread" if fields["threads"] == 1 else "threads"
    # Results of before there were two engines lack it, and what was measured of each.
    by = f" by {fields['engine']}" if "engine" in fields else ""
    lines = [
        f"{fields['model']}, {fields['parameters'] / 1e6:.1f} M parameters, at most {fields['blocks']} blocks awake, "
        f"answers in {fields['precision']}{by}",
        f"{fields['cpu']}, {fields['cores']} cores, load {fields['load']} before; {fields['threads']} {threads}",
        "",
    ]
    for label, name, unit in (line for line in _LINES if line[1] in fields):
        low_high = fields["ranges"].get(name)
        spread = f"{low_high[0]:,} to {low_high[1]:,}" if low_high else ""
        lines.append(f"{label:24s} {fields[name]:>12,} {unit:15s} {spread}".rstrip())
    lines += ["", f"{'variant':8s}{'tokens/s':>10s}{'MB/token':>10s}{'GB/s':>8s}{'nodes ms':>10s}{'of limit':>10s}"]
    for row in fields["variants"]:
        lines.append(
            f"{row['name']:8s}{row['decode_tokens_per_s']:10,.1f}{row['bytes_per_token'] / 1e6:10.2f}"
            f"{row['bandwidth_gb_s']:8.1f}{row['overhead_ms']:10.2f}{row['roofline_ratio']:10.0%}"
        )
    compared = [f"{name.replace('_', ' '):32s} {value:,}" for name, value in fields.items() if "_vs_" in name]
    return "\n".join([*lines, *(["", *compared] if compared else [])])
