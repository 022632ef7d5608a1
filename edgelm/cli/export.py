"""``export``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from edgelm.cli.options import Common, catch_up, common, progress_bar
from edgelm.errors import InputError
from edgelm.model.hub import Model
from edgelm.runtime import Engine
from edgelm.text.files import read_paths
from edgelm.text.general import general_text
from edgelm.text.tokenizer import DOC_LINE

SHARE = 0.95
"""Of all that a text wakes, what the blocks that are kept had: more leaves out next to nothing of ``small``, of which
every text wakes every block now and then (``docs/experiments.md``, 2026-11-27)."""


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, resolve_path=True), metavar="DIR")
@click.option(
    "--quantize",
    type=click.Choice(["none", "int8", "int4", "ternary"]),
    default="int8",
    show_default=True,
    help="Precision of the matrices; int4 and ternary keep the embedding int8.",
)
@click.option("--merge-profile", is_flag=True, help="Include what the profile learned.")
@click.option("--for", "paths", multiple=True, metavar="TEXT_FILE", help="Keep only the neuron blocks that it wakes.")
@click.option(
    "--keep",
    type=click.IntRange(1),
    metavar="N",
    help=f"With --for: blocks of a layer to keep (default: what covers {SHARE:.0%} of all that is awake).",
)
@click.option(
    "--format",
    "kind",
    type=click.Choice(["onnx", "edgelm"]),
    default="onnx",
    show_default=True,
    help="onnx: for plain onnxruntime; edgelm: a model folder, for --model DIR.",
)
@common
def export(
    folder: Path, quantize: str, merge_profile: bool, paths: tuple[str, ...], keep: int | None, kind: str,
    common: Common,
) -> None:  # fmt: skip
    """Write the model into DIR, as ONNX or as a model folder.

    With --for it is a smaller model of the neuron blocks that a text wakes most, as many of each layer; what that costs
    is said of this text and of general text.
    """
    from edgelm.engine.exporting import export_model

    if keep is not None and not paths:
        raise click.UsageError("--keep needs a text: give one with --for")
    if (quantize, kind) == ("ternary", "edgelm"):
        raise click.UsageError("--quantize ternary is for --format onnx; a model folder holds none, int8 or int4")
    text = f"\n{DOC_LINE}\n".join(item.text for item in read_paths(paths, sys.stdin.buffer, common.insist))
    with Engine(common.options, use_profile=merge_profile) as engine:
        catch_up(engine, common)
        made = _part(engine, text, keep, common) if text else None
        fields = export_model(engine.model if made is None else made[0], folder, quantize, kind)
        size, error = f"{fields['bytes']:,} bytes", f"logits within {fields['max_abs_error']:.2g}"
        lines = [f"{folder}: {', '.join(fields['files'])}; {size}, {error}"]
        if made is not None:
            from edgelm.engine.exporting import exported_bytes

            fields |= {"bytes_before": exported_bytes(engine.model, quantize, kind)} | made[1]
            lines += _in_words(fields)
    common.emit(fields, "\n".join(lines))


def _part(engine: Engine, text: str, keep: int | None, common: Common) -> tuple[Model, dict[str, Any]]:
    """The smaller model for a text, and what it costs."""
    from edgelm.engine.opening import open_session
    from edgelm.measure.awakenings import Awakenings
    from edgelm.measure.score import score_text
    from edgelm.model.hub import of_blocks

    config, tokenizer = engine.config, engine.tokenizer
    if config.n_blocks == 0:
        raise InputError(f"{engine.model.name} has no neuron blocks, of which some could be kept; export it whole")
    if keep is not None and keep > config.n_blocks:
        raise InputError(f"--keep must be between 1 and {config.n_blocks}, the blocks of a layer, not {keep}")
    awake, general = Awakenings(config), general_text()
    total = 2 * len(tokenizer.encode_document_lines(text)) + 2 * len(tokenizer.encode(general))
    with progress_bar("scoring", total, common) as on_tokens:
        of_text = score_text(engine.session, tokenizer, config, text, None, on_tokens, awake.add).bits_per_byte
        elsewhere = score_text(engine.session, tokenizer, config, general, None, on_tokens).bits_per_byte
        n_kept = keep or awake.enough(SHARE)
        blocks = awake.strongest(n_kept)
        part = of_blocks(engine.model, blocks)
        session = open_session(part, common.options.threads, engine=engine.choice.engine)
        after, elsewhere_after = (
            score_text(session, tokenizer, part.config, item, None, on_tokens).bits_per_byte for item in (text, general)
        )
    return part, {
        "n_blocks": config.n_blocks,
        "blocks_kept": n_kept,
        "blocks": [layer.tolist() for layer in blocks],
        "awake_covered": round(awake.covered(n_kept), 4),
        "bits_per_byte_before": round(of_text, 4),
        "bits_per_byte_after": round(after, 4),
        "general_before": round(elsewhere, 4),
        "general_after": round(elsewhere_after, 4),
    }


def _in_words(fields: dict[str, Any]) -> list[str]:
    """What a smaller model keeps and costs, for people."""
    kept, covered = f"{fields['blocks_kept']} of {fields['n_blocks']}", f"{fields['awake_covered']:.1%}"
    before, less = f"{fields['bytes_before']:,}", f"{1 - fields['bytes'] / fields['bytes_before']:.1%}"
    lines = [f"{kept} blocks of each layer, {covered} of what is awake; {less} smaller than the whole ({before} bytes)"]
    for name, key in (("this text", "bits_per_byte"), ("general text", "general")):
        before, after = fields[key + "_before"], fields[key + "_after"]
        lines.append(f"{name}: {before} -> {after} bits per byte ({after / before - 1:+.1%})")
    return lines
