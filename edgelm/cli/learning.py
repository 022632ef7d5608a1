"""``adapt`` and ``evaluate``."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from edgelm.cli.events import noting
from edgelm.cli.options import Common, catch_up, common, progress_bar
from edgelm.config import LearnConfig
from edgelm.measure.score import Score, progressive_score, score_text
from edgelm.runtime import Engine
from edgelm.text.files import TextFile, read_paths
from edgelm.text.general import general_text
from edgelm.text.secrets import without_secrets
from edgelm.text.tokenizer import DOC_LINE

SUITES = ("facts", "correction", "forgetting", "suggest", "author", "recall", "point")


def split_holdout(texts: list[TextFile], share: float) -> tuple[TextFile, str]:
    """Joins all texts, a document each, and cuts the last ``share`` off, at a line end."""
    *others, last = (item.text for item in texts)
    joined = f"\n{DOC_LINE}\n".join([*(text.removesuffix("\n") for text in others), last])
    if share == 0:
        return TextFile(texts[0].name, joined, len(joined.encode())), ""
    cut = joined.find("\n", int(len(joined) * (1 - share)))
    # A single long line is cut where the share says.
    cut = cut if 0 <= cut < len(joined) - 1 else int(len(joined) * (1 - share))
    learned, held_out = joined[:cut], joined[cut:].lstrip("\n")
    return TextFile(texts[0].name, learned, len(learned.encode())), held_out


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--holdout", type=click.FloatRange(0, 0.9), default=0.1, show_default=True, help="Share kept to measure.")
@click.option(
    "--no-log",
    is_flag=True,
    help="Change the weights alone; keep none of the words. It can then neither be forgotten nor rolled back.",
)
@common
def adapt(paths: tuple[str, ...], holdout: float, no_log: bool, common: Common) -> None:
    """Learn files, folders or standard input (-): txt, md, JSON chat exports."""
    text, held_out = split_holdout(read_paths(paths, sys.stdin.buffer, common.insist), holdout)
    learnable, secrets_skipped = without_secrets(text.text)
    if secrets_skipped:
        common.note(f"{secrets_skipped} lines look like secrets and are not learned", always=True)
    with Engine(common.options, writable=True) as engine:
        # Where a bar is drawn, remarks would tear it.
        engine.on_event = noting(common, wanted=common.json or not sys.stderr.isatty())

        def bits(text: str) -> float | None:
            if not text.strip():
                return None
            memory = engine.adaptation.memory
            score = score_text(engine.session, engine.tokenizer, engine.config, text, memory)
            return round(score.bits_per_byte, 4)

        catch_up(engine, common)
        before, general_before = bits(held_out), bits(general_text())
        common.note("loading the learning kernels (compiled the first time, which takes a while) ...")
        engine.adaptation.prepare()
        total = len(engine.tokenizer.encode_document_lines(learnable))
        begun = time.perf_counter()
        with progress_bar("learning", total, common) as on_tokens:
            tokens = engine.adapt(learnable, on_tokens, keep_text=not no_log)
        seconds = time.perf_counter() - begun
        fields = {
            "tokens": tokens,
            "seconds": round(seconds, 3),
            "tokens_per_s": round(tokens / seconds, 2) if seconds else 0.0,
            "bits_per_byte_before": before,
            "bits_per_byte_after": bits(held_out),
            "general_before": general_before,
            "general_after": bits(general_text()),
            "profile_bytes": engine.profile.n_bytes if engine.profile else 0,
            "secrets_skipped": secrets_skipped,
        }
    held = f"held-out part {before} -> {fields['bits_per_byte_after']} bits per byte, " if held_out else ""
    general = f"general text {general_before} -> {fields['general_after']}"
    common.emit(fields, f"learned {tokens:,} tokens in {seconds:.1f} s: {held}{general}")


@click.command()
@click.argument("paths", nargs=-1, metavar="PATH...")
@click.option("--learn", is_flag=True, help="Score, then learn, in a throw-away copy of the profile.")
@click.option("--blocks", type=int, metavar="N", help="At most N blocks of a layer awake.")
@click.option("--suite", type=click.Choice(SUITES), help="A measure of learning, in a throw-away copy of the profile.")
@common
def evaluate(paths: tuple[str, ...], learn: bool, blocks: int | None, suite: str | None, common: Common) -> None:
    """Bits per byte of whole files, or a measure of learning.

    The suites facts, correction and recall need no PATH: they have facts of their own, or read files of them. Of recall
    a line is {"told": ..., "asked": ..., "word": ...}, the word null where what is asked was not told.
    The suite point reads remarks with their replies: dialogue files, or JSON lines.
    """
    if suite in ("recall", "point"):
        _evaluate_talk(suite, paths, common)
        return
    if suite:
        _evaluate_suite(suite, paths, common)
        return
    if not paths:
        raise click.UsageError("Missing argument 'PATH...'")
    texts = read_paths(paths, sys.stdin.buffer, common.insist)
    with Engine(common.options, max_awake=blocks, fixed=not learn) as engine:
        total = sum(len(engine.tokenizer.encode_document_lines(item.text)) for item in texts)
        catch_up(engine, common)
        if learn:
            engine.adaptation.prepare()
        begun = time.perf_counter()
        scores = []
        with progress_bar("scoring", total, common) as on_tokens:
            for item in texts:
                if learn:
                    scores.append(progressive_score(engine.adaptation.replay, item.text, on_tokens))
                else:
                    session, memory = engine.session, engine.adaptation.memory
                    scores.append(score_text(session, engine.tokenizer, engine.config, item.text, memory, on_tokens))
        seconds = time.perf_counter() - begun
    score = sum(scores[1:], scores[0])
    rows = [{"path": item.name, **_fields(part)} for item, part in zip(texts, scores, strict=True)]
    fields = {**_fields(score), "seconds": round(seconds, 3), "bytes_per_s": round(score.n_bytes / seconds, 1)}
    lines = [f"{row['bits_per_byte']:.4f} bits per byte  {row['path']}" for row in rows]
    lines.append(f"{score.bits_per_byte:.4f} over {score.n_bytes:,} bytes, {score.awake_fraction:.1%} of neurons awake")
    common.emit(fields | ({"files": rows} if len(rows) > 1 else {}), "\n".join(lines))


def _fields(score: Score) -> dict[str, float | int]:
    return {
        "bytes": score.n_bytes,
        "tokens": score.tokens,
        "bits_per_byte": round(score.bits_per_byte, 5),
        "awake_fraction": round(score.awake_fraction, 4),
    }


def _evaluate_suite(suite: str, paths: tuple[str, ...], common: Common) -> None:
    from edgelm.measure import suites
    from edgelm.measure.facts import made_up, read_facts

    options, begun = common.options, time.perf_counter()
    with progress_bar("learning", 0, common) as on_tokens:

        def run(data: Any) -> dict[str, Any]:
            with suites.Trial(options, LearnConfig()) as trial:
                fields: dict[str, Any] = getattr(suites, suite)(trial, data, on_tokens)
                return fields

        texts = read_paths(paths, sys.stdin.buffer, common.insist)
        if suite in ("facts", "correction"):
            told = [fact for item in texts for fact in read_facts(item.text, item.name)]
            rows = [run(told or made_up(200, options.seed))]
        elif not paths:
            raise click.UsageError(f"--suite {suite} needs a text: give a PATH")
        else:
            rows = [{"path": item.name, **run(item.text)} for item in texts]
    fields: dict[str, Any] = {"suite": suite, **(rows[0] if len(rows) == 1 else {"files": rows})}
    fields["seconds"] = round(time.perf_counter() - begun, 1)
    lines = (f"{name:32s} {value}" for row in rows for name, value in row.items())
    common.emit(fields, "\n".join(lines))


def _evaluate_talk(suite: str, paths: tuple[str, ...], common: Common) -> None:
    """The measures of what is written in whole conversations."""
    from edgelm.measure.point import on_the_point, read_pairs
    from edgelm.measure.recall import bundled_facts, read_told, recall

    begun, texts = time.perf_counter(), read_paths(paths, sys.stdin.buffer, common.insist)
    with progress_bar("asking", 0, common) as on_tokens:
        if suite == "recall":
            facts = [fact for item in texts for fact in read_told(item.text, item.name)]
            fields = recall(common.options, facts or bundled_facts(), on_tokens)
        else:
            pairs = [pair for item in texts for pair in read_pairs(item.text, item.name)]
            if not pairs:
                raise click.UsageError("--suite point needs remarks with their replies: give a PATH")
            with Engine(common.options, use_profile=False, fixed=True) as engine:
                fields = on_the_point(
                    engine.session, engine.tokenizer, pairs, common.options.seed or 1, on_tokens, engine.template
                )
    fields = {"suite": suite, **fields, "seconds": round(time.perf_counter() - begun, 1)}
    lines = [f"{name:32s} {value}" for name, value in fields.items() if name != "misses"]
    lines += [f"missed: {row['asked']} - {row['answer']} ({row['word']})" for row in fields.get("misses", [])]
    common.emit(fields, "\n".join(lines))
