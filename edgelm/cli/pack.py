"""``pack``: layers of shared knowledge, made from public texts, that lie beneath what was learned here."""

from __future__ import annotations

import hashlib
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from edgelm.cli.options import Common, catch_up, common, progress_bar
from edgelm.errors import InputError, ModelFileError, ProfileError
from edgelm.learn.layering import check_layers, general_cost
from edgelm.learn.long_text import LEAST_TOKENS
from edgelm.log.packs import (
    MOST_TITLE,
    Pack,
    Source,
    clipped,
    keep,
    kept_in,
    may_be_passed_on,
    path_of,
    read_card,
    read_pack,
    write_pack,
)
from edgelm.log.profile import Profile
from edgelm.model import hub
from edgelm.model.hub import Model
from edgelm.model.layers import Layer
from edgelm.model.weights import Weights
from edgelm.runtime import Engine, models_dir, packs_dir, profiles_dir
from edgelm.text.chats import looks_like_chat
from edgelm.text.files import TextFile, read_paths
from edgelm.text.general import general_text
from edgelm.text.secrets import without_secrets

_OUTPUT = click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
                       help="Where to write it (default: NAME.safetensors).")  # fmt: skip
_CARD = click.option("--card", default="", metavar="TEXT", help="What it is, in words.")
DOCUMENT = "\n<|doc|>\n"


@click.group()
def pack() -> None:
    """Layers of knowledge beneath the log: make, add, compare, take away."""


@pack.command()
@click.argument("name")
@click.argument("paths", nargs=-1, required=True, metavar="FILE...")
@click.option("--licence", required=True, metavar="TEXT", help="Under which the texts, and so the pack, may be used.")
@click.option(
    "--with-text", is_flag=True, help="The words too: what the pack knows by heart, with the licence's leave."
)
@click.option("--force", is_flag=True, help="Even if a text looks like a chat or holds lines that look like secrets.")
@_CARD
@_OUTPUT
@common
def make(
    name: str, paths: tuple[str, ...], licence: str, with_text: bool, force: bool, card: str, output: Path | None,
    common: Common,
) -> None:  # fmt: skip
    """Learn texts into a pack: a file with the change of the weights and a card, and, unless told, none of the words.

    Make packs of public texts alone: words can be read back from weights. Lines that look like secrets are never
    learned.
    """
    if with_text and not force and not may_be_passed_on(licence):
        raise InputError(f"is everybody allowed to pass on texts under {licence!r}? --force says so")
    texts = read_paths(paths, sys.stdin.buffer, common.insist)
    learnable, skipped = _public(texts, force=force)
    begun = time.perf_counter()
    model, changes, tokens, cost = _learned(learnable, common)
    sources = tuple(
        Source(Path(text.name).name[:MOST_TITLE], hashlib.sha256(text.text.encode()).hexdigest()) for text in texts
    )
    kept = learnable if with_text else ""
    made = _written(output, Pack(name, licence, card, _today(), model.sha256, model.name, sources, changes, kept))
    fields = _fields(made) | {
        "path": str(output or f"{name}.safetensors"), "tokens": tokens, "secrets_skipped": skipped,
        "general_cost": round(cost, 5), "seconds": round(time.perf_counter() - begun, 1),
    }  # fmt: skip
    text = f"{fields['path']}: {made.n_bytes:,} bytes, learned from {tokens:,} tokens; general text costs {cost:+.2%}"
    common.emit(fields, text)


def _public(texts: Sequence[TextFile], *, force: bool) -> tuple[str, int]:
    """The texts as one, without lines that look like secrets, and how many those were."""
    for text in texts:
        if not force and looks_like_chat(text.text):
            raise InputError(
                f"{text.name}: looks like a chat, and a pack is for others; --force makes one all the same"
            )
    learnable, skipped = without_secrets(DOCUMENT.join(text.text for text in texts))
    if skipped and not force:
        raise InputError(
            f"{skipped} lines look like secrets, and a pack is for others; --force leaves these out and goes on"
        )
    return learnable, skipped


def _learned(text: str, common: Common) -> tuple[Model, Weights, int, float]:
    """What the model learns of a text in a profile that is thrown away: the change, its tokens, and what it costs."""
    with tempfile.TemporaryDirectory(prefix="edgelm-") as folder:
        options = replace(common.options, profile="pack", profiles=Path(folder), bank=False)
        with Engine(options, writable=True) as engine:
            engine.adaptation.prepare()
            total = len(engine.tokenizer.encode_document_lines(text))
            with progress_bar("learning", total, common) as on_tokens:
                tokens = engine.adapt(text, on_tokens)
            changes = clipped(engine.learned_change(), engine.model)
            if not changes:
                raise InputError("nothing was learned of the texts: they are too short, or made general text worse")
            cost = general_cost(engine.adaptation, [Layer("pack", "", changes)])
            return engine.model, changes, tokens, cost


def _today() -> str:
    return time.strftime("%Y-%m-%d", time.gmtime())


def _written(output: Path | None, made: Pack) -> Pack:
    return write_pack(output or Path(f"{made.name}.safetensors"), made)


def _fields(found: Pack) -> dict[str, Any]:
    sources = [{"title": source.title, "sha256": source.sha256} for source in found.sources]
    return {
        "name": found.name, "sha256": found.sha256, "bytes": found.n_bytes, "from": sources, "licence": found.licence,
        "made": found.made, "base": found.base, "base_name": found.base_name,
    }  # fmt: skip


@pack.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE")
@common
def add(file: Path, common: Common) -> None:
    """Put a pack beneath the log of a profile; the log is learned anew on it.

    One of the same name is replaced where it lies. It is refused if general text would cost over 1 % more with it and
    the other layers.
    """
    model = _model(common)
    found, store = read_pack(file, model), _profile(common)
    if found.sha256 in {layer.sha256 for layer in store.layers}:
        # Its file may have been lost.
        keep(packs_dir(), file, model, found.sha256)
        common.emit(_fields(found), f"{found.name} lies beneath profile {common.options.profile!r} already")
        return
    with Engine(common.options, writable=True) as engine:
        assert engine.profile is not None
        names = [layer.name for layer in engine.model.layers]
        layers = [found.layer if layer.name == found.name else layer for layer in engine.model.layers]
        layers += [] if found.name in names else [found.layer]
        cost = check_layers(engine.adaptation, layers)
        # The file first: a profile never names a pack that is not there.
        keep(packs_dir(), file, model, found.sha256)
        engine.profile.set_layers(layers)
    fields = _fields(found) | {"general_cost": round(cost, 5)} | _replayed(common)
    common.emit(fields, f"{found.name} lies beneath profile {common.options.profile!r}; general text costs {cost:+.2%}")


def _replayed(common: Common) -> dict[str, Any]:
    """Learns the log anew on the layers that lie beneath it by now."""
    with Engine(common.options, writable=True) as engine:
        catch_up(engine, common)
        engine.adaptation.write_replayed_checkpoint(LEAST_TOKENS)
        layers = [layer.name for layer in engine.model.layers]
        return {"layers": layers, "weights_sha256": engine.adaptation.sha256}


def _model(common: Common) -> Model:
    return hub.load(common.options.model, models_dir())


def _profile(common: Common) -> Profile:
    """The log alone: the packs of its layers are not read."""
    return Profile(profiles_dir(), common.options.profile, _model(common), writable=False, any_base=True)


@pack.command()
@click.argument("name")
@common
def remove(name: str, common: Common) -> None:
    """Take a layer away from beneath a profile's log: the weights are those of a life without it, bit for bit."""
    store = Profile(profiles_dir(), common.options.profile, _model(common), writable=True)
    try:
        left = [layer for layer in store.layers if layer.name != name]
        if len(left) == len(store.layers):
            raise ProfileError(f"no layer {name!r} lies beneath profile {store.name!r}; see `edgelm profile show`")
        store.set_layers(left)
    finally:
        if store.is_new:
            store.discard()
        store.close()
    fields = {"removed": name, **_replayed(common)}
    common.emit(fields, f"{name} is taken away from beneath profile {common.options.profile!r}")


@pack.command(name="list")
@common
def list_(common: Common) -> None:
    """The packs that were added here, and which lie beneath the profile."""
    beneath = {layer.sha256 for layer in _profile(common).layers}
    rows = [_fields(found) | {"in_profile": found.sha256 in beneath} for found in kept_in(packs_dir())]
    lines = (
        f"{'*' if row['in_profile'] else ' '} {row['name']:20s} {row['sha256'][:12]} {row['bytes']:>12,} bytes  "
        + ", ".join(source["title"] for source in row["from"])
        for row in rows
    )
    common.emit({"packs": rows}, "\n".join(lines))


@pack.command()
@click.argument("pack", metavar="PACK")
@common
def show(pack: str, common: Common) -> None:
    """What a pack says of itself; PACK is a file or the name of one that was added."""
    found = read_card(_find(pack))
    fields = _fields(found) | {"card": found.card}
    lines = [f"{name:15s} {value}" for name, value in fields.items() if name != "from"]
    lines += [f"{'from':15s} {source.title} ({source.sha256})" for source in found.sources]
    common.emit(fields, "\n".join(lines))


def _find(name: str) -> Path:
    """The file of a pack: a path, or the name of one that was added."""
    if Path(name).is_file():
        return Path(name)
    found = [
        pack for pack in kept_in(packs_dir()) if pack.name == name or (len(name) > 7 and pack.sha256.startswith(name))
    ]
    if not found:
        raise ModelFileError(f"{name}: no such file, and no pack that was added has this name; see `edgelm pack list`")
    if len(found) > 1:
        raise ModelFileError(f"several packs are called {name!r}: give the first digits of one's SHA-256")
    return path_of(packs_dir(), found[0].sha256)


@pack.command()
@click.argument("pack", metavar="PACK")
@click.argument("paths", nargs=-1, metavar="[TEXT...]")
@common
def diff(pack: str, paths: tuple[str, ...], common: Common) -> None:
    """What a pack changes: which tensors and blocks, by how much, and the bits per byte of texts with it and without.

    General text is among the texts in any case. The memory of words has no part in it.
    """
    from edgelm.learn.packs import parts_of
    from edgelm.measure.packs import bits_per_byte

    model, texts = _model(common), read_paths(paths, sys.stdin.buffer, common.insist)
    found = read_pack(_find(pack), model)
    names, said = [*(text.name for text in texts), "general text"], [*(text.text for text in texts), general_text()]
    total = 2 * sum(len(model.tokenizer.encode_document_lines(text)) for text in said)
    with progress_bar("scoring", total, common) as on_tokens:
        without, having = (bits_per_byte(model.folder, part, said, on_tokens) for part in ([], [found.layer]))
    rows = [
        {
            "path": name,
            "bits_per_byte_without": round(a, 5),
            "bits_per_byte_with": round(b, 5),
            "change": round(b / a - 1, 5),
        }
        for name, a, b in zip(names, without, having, strict=True)
    ]
    parts = [vars(part) for part in parts_of(found.changes, model)]
    lines = [
        f"{part['name']:32s} {part['blocks']:5d} of {part['of_blocks']:5d}  {part['relative_norm']:.2%} of the base, "
        f"at most {part['largest_block']:.2%}"
        for part in parts
    ]
    lines += [f"{a:.4f} -> {b:.4f} bits per byte  {name}" for name, a, b in zip(names, without, having, strict=True)]
    common.emit(_fields(found) | {"tensors": parts, "texts": rows}, "\n".join(lines))


@pack.command()
@click.argument("name")
@click.argument("packs", nargs=-1, required=True, metavar="PACK PACK...")
@click.option("--method", type=click.Choice(["sum", "ties"]), default="sum", show_default=True, help="How.")
@click.option(
    "--weight",
    type=click.FloatRange(0, 4),
    help="What the merged change is multiplied by (default: sum: 0.85; ties: 1).",
)
@_CARD
@_OUTPUT
@common
def merge(
    name: str, packs: tuple[str, ...], method: str, weight: float | None, card: str, output: Path | None, common: Common
) -> None:
    """Make one pack of several: of the sum of their changes, or by TIES."""
    from edgelm.learn.packs import merged, usual_weight

    if len(packs) < 2:
        raise click.UsageError("give two packs or more")
    model = _model(common)
    found = [read_pack(_find(pack), model) for pack in packs]
    weight = usual_weight(method) if weight is None else weight
    changes = clipped(merged([pack.changes for pack in found], model, method, weight), model)
    licence = " AND ".join(sorted({pack.licence for pack in found}))
    text = DOCUMENT.join(pack.text for pack in found if pack.text)
    sources = tuple(dict.fromkeys(source for pack in found for source in pack.sources))
    card = card or f"Merged by {method}, weight {weight:g}, of {', '.join(pack.name for pack in found)}."
    made = _written(output, Pack(name, licence, card, _today(), model.sha256, model.name, sources, changes, text))
    fields = _fields(made) | {"path": str(output or f"{name}.safetensors"), "method": method, "weight": weight}
    common.emit(fields, f"{fields['path']}: {made.n_bytes:,} bytes, from {len(found)} packs")
