"""Converts a model folder to the file format of today; it stays the model that it is."""

from __future__ import annotations

import os
from pathlib import Path

from edgelm.errors import ModelFileError
from edgelm.model import hub, tensorfile
from edgelm.model.manifest import CARD, FILES, WEIGHTS, Origin, read_manifest, write_model
from edgelm.model.origin import HEAD
from edgelm.model.packing import Shifted, narrowed


def convert(folder: Path, out: Path) -> None:
    """Writes a model folder of format 1 as one of today, with the same identity; of another one makes a copy.

    Raises
    ------
    ModelFileError
        Something is wrong with the folder.
    OSError
        ``out`` cannot be written.
    """
    manifest = read_manifest(folder)
    files = {name: (folder / name).read_bytes() for name in FILES}
    origin = manifest.origin
    if manifest.file_format == 1:
        path = folder / WEIGHTS
        tensors, _ = tensorfile.read(path, manifest.digest(WEIGHTS))
        files[WEIGHTS] = tensorfile.to_bytes(narrowed(Shifted(tensors)), {HEAD: _head(path)})
        origin = Origin(manifest.given_config, manifest.digest(WEIGHTS))
    write_model(out, manifest.name, manifest.config, files, manifest.card, manifest.template, origin)
    if (folder / CARD).is_file():
        (out / CARD).write_bytes((folder / CARD).read_bytes())
    if hub.load(str(out)).sha256 != manifest.sha256:
        raise ModelFileError(f"{folder}: changed while it was converted; try again")


def _head(path: Path) -> str:
    """The head of a file, without the length before it."""
    with tensorfile.open_file(path) as file:
        blob = tensorfile.read_head(file.read, os.fstat(file.fileno()).st_size, path).blob[8:]
    try:
        return blob.decode()
    except UnicodeDecodeError:
        raise ModelFileError(f"{path}: its head is no UTF-8; write it anew by the library safetensors") from None
