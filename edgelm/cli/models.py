"""``export`` and ``info``."""

from __future__ import annotations

from pathlib import Path

import click

from edgelm import __version__, ports
from edgelm.cli.options import Common, common
from edgelm.config import data_dir
from edgelm.learn.folder import files_of
from edgelm.model import hub


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, resolve_path=True), metavar="DIR")
@click.option("--quantize", type=click.Choice(["none", "int8"]), default="int8", show_default=True)
@click.option("--merge-profile", is_flag=True, help="Include what the profile learned.")
@common
def export(folder: Path, quantize: str, merge_profile: bool, common: Common) -> None:
    """Write the model into DIR as ONNX, loadable by plain onnxruntime."""
    from edgelm.cli.options import catch_up
    from edgelm.runtime import Runtime, export_model

    with Runtime(common.runtime, use_profile=merge_profile) as runtime:
        catch_up(runtime, common)
        fields = export_model(runtime, folder, int8=quantize == "int8")
    size, error = f"{fields['bytes']:,} bytes", f"logits within {fields['max_abs_error']:.2g}"
    common.emit(fields, f"{folder}: {', '.join(fields['files'])}; {size}, {error}")


@click.command()
@common
def info(common: Common) -> None:
    """Version, model card, device and port detected, where files are."""
    model = hub.load(common.runtime.model)
    folder, name = data_dir() / "profiles", common.runtime.profile
    fields = {
        "version": __version__,
        "model": model.name,
        "parameters": model.n_parameters,
        "port": ports.detect(),
        "model_sha256": model.sha256,
        "model_folder": str(model.folder),
        "model_bytes": sum(path.stat().st_size for path in model.folder.iterdir() if path.is_file()),
        "tokens_trained": model.card.get("tokens"),
        "profile": str(folder / f"{name}.db"),
        "profile_bytes": sum(path.stat().st_size for path in files_of(folder, name)),
    }
    common.emit(fields, "\n".join(f"{name:15s} {value}" for name, value in fields.items()))
