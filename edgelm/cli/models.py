"""``models`` and ``info``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from edgelm import __version__, ports
from edgelm.cli.options import Common, common, progress_bar
from edgelm.config import data_dir, kernel_choice
from edgelm.engine import verify as verification
from edgelm.errors import DeviceError, ModelFileError
from edgelm.log.folder import files_of
from edgelm.model import hub, store
from edgelm.model.archive import check_sizes
from edgelm.model.needs import memory_needed
from edgelm.runtime import models_dir


@click.group()
def models() -> None:
    """The models that are here, and how another one comes here.

    There is no registry: what can be had is what a folder, an archive or an address offers, and nothing is fetched
    unless `models pull` is given an address.
    """


@models.command(name="list")
@common
def list_(common: Common) -> None:
    """All models here: the bundled ones and those that were pulled."""
    rows, lines = [], []
    for name, folder in store.folders(models_dir()).items():
        row: dict[str, Any] = {"name": name}
        try:
            row = store.summary(folder, models_dir()) | row
            size = f"{row['parameters']:>13,} parameters {row['bytes']:>13,} bytes  {row['precision']:8s}"
            lines.append(f"{name:20s} {size} {row['where']}{', the default' if row['default'] else ''}")
        except ModelFileError as exc:
            row["problem"] = str(exc)
            lines.append(f"{name:20s} damaged: {exc}")
        rows.append(row)
    common.emit({"models": rows}, "\n".join(lines))


@models.command()
@click.argument("name", required=False, metavar="[NAME|PATH]")
@common
def show(name: str | None, common: Common) -> None:
    """Shape, size, training and files of a model, and its card."""
    folder = hub.find(name or common.options.model, models_dir())
    fields = store.details(folder, models_dir())
    table = {key: value for key, value in fields.items() if key not in ("shape", "files")} | fields["shape"]
    lines = [f"{key:16s} {_in_words(value)}" for key, value in table.items()]
    lines += [f"{file['name']:24s} {file['bytes']:>12,} bytes  {file['sha256']}" for file in fields["files"]]
    card = folder / hub.CARD
    if card.is_file() and not common.json:
        lines += ["", card.read_text(encoding="utf-8", errors="replace")]
    common.emit(fields, "\n".join(lines).rstrip())


def _in_words(value: Any) -> str:
    """A field for people: of a layer part its kind, then its sizes."""
    if not isinstance(value, dict):
        return str(value)
    sizes = ", ".join(f"{name} {size}" for name, size in value.items() if name != "kind")
    return f"{value['kind']}: {sizes}"


@models.command()
@click.argument("names", nargs=-1, metavar="[NAME|PATH]...")
@common
def verify(names: tuple[str, ...], common: Common) -> None:
    """Check digests, tensors, tokenizer and graph, of all models here or of those named."""
    if common.options.model is not None:
        names = names or (common.options.model,)
    rows = []
    for name in names or store.folders(models_dir()):
        try:
            problems = _problems(hub.find(name, models_dir()), name)
        except (ModelFileError, DeviceError) as exc:
            problems = [str(exc)]
        rows.append({"name": name, "ok": not problems, "problems": problems})
        for problem in problems:
            click.echo(f"edgelm: {' '.join(problem.split())}", err=True)
    lines = (f"{row['name']:20s} {'ok' if row['ok'] else 'not ok'}" for row in rows)
    common.emit({"models": rows}, "\n".join(lines))
    if not all(row["ok"] for row in rows):
        raise click.exceptions.Exit(1)


@models.command()
@click.argument("source")
@click.option("--name", help="What it is called here (default: as its maker did).")
@click.option("--sha256", metavar="HEX", help="What SOURCE must be: the digest of the archive, or of config.json.")
@common
def pull(source: str, name: str | None, sha256: str | None, common: Common) -> None:
    """Bring a model here, checked, to be used by --model NAME.

    SOURCE is a model folder, a .tar, .tar.gz or .zip of one, or an http(s) address of such an archive. There is no
    registry. One in an older file format is converted, and profiles that were learned on it go on with it.
    """

    def fetched(url: str) -> Iterator[bytes]:
        from edgelm.model.fetch import fetch

        return fetch(url, lambda n_bytes: progress_bar("pulling", n_bytes, common))

    def check(staged: Path) -> list[str]:
        return _problems(staged, source)

    folder, is_new = store.pull(store.Source(source, sha256, fetched), models_dir(), check, name)
    fields = store.summary(folder, models_dir()) | {"name": folder.name, "new": is_new}
    size = f"{fields['parameters']:,} parameters, {fields['bytes']:,} bytes"
    done = f"is here: {size}" if is_new else "was here already, the same model"
    common.emit(fields, f"{folder.name} {done}; use it with --model {folder.name}")


@models.command(name="import")
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--name", help="What it is called here (default: as the file, without its ending).")
@click.option(
    "--vocabulary",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Its tokens: rwkv_vocab_v20230424.txt of the package rwkv. A model of 256 tokens needs none.",
)
@common
def import_(path: Path, name: str | None, vocabulary: Path | None, common: Common) -> None:
    """Bring a checkpoint of RWKV-7 here, to be used by --model NAME.

    PATH is a .safetensors or .pth file of its authors, or a .gguf (F16 or Q8_0; needs edgelm[gguf]). Matrices become
    int8, one tensor at a time; then the size of its gradients is measured, which learning needs.
    """
    from edgelm.learn.importing import import_checkpoint, n_parts

    name = name or path.stem
    with progress_bar("importing", n_parts(path), common) as advance:
        done = 0

        def show(now: int) -> None:
            nonlocal done
            advance(now - done)
            done = now

        folder = import_checkpoint(path, models_dir(), name, vocabulary, show)
    fields = store.summary(folder, models_dir()) | {"name": folder.name}
    size = f"{fields['parameters']:,} parameters, {fields['bytes']:,} bytes"
    common.emit(fields, f"{folder.name} is here: {size}; use it with --model {folder.name}")


def _problems(folder: Path, what: str) -> list[str]:
    """What is wrong with a model folder; it is not read unless it has the size of one, and there is room for it."""
    check_sizes(folder)
    ports.check_memory(memory_needed(str(folder.absolute())), what, ports.detect())
    return verification.problems(folder)


@click.command()
@click.option(
    "--measure",
    is_flag=True,
    help="Compile the kernels and measure which engine is faster here, where that was not done yet.",
)
@common
def info(measure: bool, common: Common) -> None:
    """Version, model card, device and port detected, where files are."""
    from edgelm.engine.choice import choose
    from edgelm.engine.opening import precision_of
    from edgelm.kernels import aot

    model, port = hub.load(common.options.model, models_dir()), ports.detect()
    if measure and kernel_choice() is None and aot.choose() is None:
        from edgelm.kernels.compiler import here

        common.note("compiling the kernels, once ...")
        if why_not := here.make():
            common.insist(f"numba compiles each kernel when it is first called; no library of all was made: {why_not}")
    folder, name = data_dir() / "profiles", common.options.profile
    asked, threads = common.options.engine, common.options.threads
    choice = choose(model, asked, threads, learns=True, measures=measure)
    fields = {
        "version": __version__,
        "model": model.name,
        "parameters": model.n_parameters,
        "port": port.name,
        "threads": threads,
        "memory_mb": port.memory_mb,
        "kernels": aot.in_use(),
        "engine": choice.engine,
        "engine_why": choice.why,
        "precision": precision_of(choice.engine),
        "model_sha256": model.sha256,
        "model_folder": str(model.folder),
        "model_bytes": sum(path.stat().st_size for path in model.folder.iterdir() if path.is_file()),
        "tokens_trained": model.card.get("tokens"),
        "profile": str(folder / f"{name}.db"),
        "profile_bytes": sum(path.stat().st_size for path in files_of(folder, name)),
    }
    common.emit(fields, "\n".join(f"{name:15s} {value}" for name, value in fields.items()))
