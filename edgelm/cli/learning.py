"""``adapt`` and ``evaluate``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files

import click

from edgelm.cli.options import Common, common
from edgelm.learn.measure import Score, progressive_score, score_text
from edgelm.runtime import Runtime
from edgelm.text.files import TextFile, read_paths
from edgelm.text.secrets import without_secrets
from edgelm.text.tokenizer import DOC_LINE


@contextmanager
def progress_bar(label: str, total: int, common: Common) -> Iterator[Callable[[int], None]]:
    """A bar on stderr that counts tokens; nothing where nobody looks."""
    if common.json or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda n_tokens: bar.advance(task, n_tokens)


def general_text() -> str:
    """Held-out general English that comes with the package, written for it."""
    return files("edgelm").joinpath("data", "general.txt").read_text(encoding="utf-8")


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
@click.option("--no-log", is_flag=True, help="Change the weights alone; keep none of the words.")
@common
def adapt(paths: tuple[str, ...], holdout: float, no_log: bool, common: Common) -> None:
    """Learn files, folders or standard input (-): txt, md, JSON chat exports."""
    text, held_out = split_holdout(read_paths(paths, sys.stdin.buffer), holdout)
    learnable, secrets_skipped = without_secrets(text.text)
    if secrets_skipped:
        common.note(f"{secrets_skipped} lines look like secrets and are not learned", always=True)
    with Runtime(common.runtime, writable=True) as runtime:

        def bits(text: str) -> float | None:
            if not text.strip():
                return None
            score = score_text(runtime.session, runtime.tokenizer, runtime.config, text, runtime.used_memory)
            return round(score.bits_per_byte, 4)

        before, general_before = bits(held_out), bits(general_text())
        common.note("loading the learning kernels (compiled the first time, which takes a while) ...")
        runtime.prepare_to_learn()
        total = len(runtime.tokenizer.encode_document_lines(learnable))
        begun = time.perf_counter()
        with progress_bar("learning", total, common) as on_tokens:
            tokens, size = runtime.adapt(learnable, on_tokens, keep_text=not no_log)
        seconds = time.perf_counter() - begun
        fields = {
            "tokens": tokens,
            "seconds": round(seconds, 3),
            "tokens_per_s": round(tokens / seconds, 2) if seconds else 0.0,
            "bits_per_byte_before": before,
            "bits_per_byte_after": bits(held_out),
            "general_before": general_before,
            "general_after": bits(general_text()),
            "profile_bytes": size,
            "secrets_skipped": secrets_skipped,
        }
    held = f"held-out part {before} -> {fields['bits_per_byte_after']} bits per byte, " if held_out else ""
    general = f"general text {general_before} -> {fields['general_after']}"
    common.emit(fields, f"learned {tokens:,} tokens in {seconds:.1f} s: {held}{general}")


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--learn", is_flag=True, help="Score, then learn, in a throw-away copy of the profile.")
@click.option("--blocks", type=int, metavar="N", help="At most N blocks of a layer awake.")
@common
def evaluate(paths: tuple[str, ...], learn: bool, blocks: int | None, common: Common) -> None:
    """Bits per byte of whole files."""
    texts = read_paths(paths, sys.stdin.buffer)
    with Runtime(common.runtime, max_awake=blocks) as runtime:
        total = sum(len(runtime.tokenizer.encode_document_lines(item.text)) for item in texts)
        if learn:
            runtime.prepare_to_learn()
        begun = time.perf_counter()
        scores = []
        with progress_bar("scoring", total, common) as on_tokens:
            for item in texts:
                if learn:
                    scores.append(
                        progressive_score(runtime.learner, runtime.memory, runtime.tokenizer, item.text, on_tokens)
                    )
                else:
                    session, memory = runtime.session, runtime.used_memory
                    scores.append(score_text(session, runtime.tokenizer, runtime.config, item.text, memory, on_tokens))
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
