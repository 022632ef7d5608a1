"""``config.json`` of a model folder: the manifest that says what the other files must be."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgelm.errors import ConfigError, ModelFileError
from edgelm.model.config import ModelConfig
from edgelm.text.template import USUAL, Template

FORMAT, FORMATS = 2, (1, 2)
"""What is written, and what is read."""
WEIGHTS = "weights.safetensors"
TOKENIZER, SCALES = "tokenizer.json", "learning.safetensors"
FILES = (TOKENIZER, WEIGHTS, SCALES)
MAX_MANIFEST = 256 << 10
"""Bytes of ``config.json`` at most."""
GRAPHS = ("step.onnx", "step.int8.onnx")
"""What older folders hold besides."""
MANIFEST, CARD = "config.json", "README.md"


@dataclass(frozen=True)
class Origin:
    """What a converted model was in format 1: its sizes as they were given, and the SHA-256 of its weights' file."""

    config: dict[str, Any]
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What ``config.json`` says.

    Attributes
    ----------
    name, sha256
        ``sha256`` identifies weights, tokenizer and sizes together; a converted model keeps that of its origin.
    config : ModelConfig
    given_config : dict
        As it stands in the file.
    digests : dict
        SHA-256 of each of ``FILES``.
    card : dict
    file_format : int
        One of ``FORMATS``.
    origin : Origin or None
        ``edgelm.model.origin`` checks it.
    template : Template
        That of the bundled models where ``config.json`` has none.
    """

    name: str
    sha256: str
    config: ModelConfig
    given_config: dict[str, Any]
    digests: dict[str, str]
    card: dict[str, Any]
    file_format: int
    origin: Origin | None
    template: Template = USUAL

    def digest(self, file: str) -> str:
        """What the SHA-256 of a file must be; of one that is not named, nothing that any file has."""
        return self.digests.get(file, "")


def read_manifest(folder: Path) -> Manifest:
    """Reads ``config.json`` alone.

    Raises
    ------
    ModelFileError
        It is missing, foreign, or of another version.
    """
    path = folder / MANIFEST
    try:
        with path.open("rb") as file:
            blob = file.read(MAX_MANIFEST + 1)
        if len(blob) > MAX_MANIFEST:
            raise ModelFileError(f"{path}: larger than {MAX_MANIFEST:,} bytes; get the model again")
        manifest = json.loads(blob)
    except (OSError, ValueError, RecursionError) as exc:
        raise ModelFileError(f"{path}: not readable as JSON ({exc}); get the model again") from None
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if type(found) is not int or found not in FORMATS:
        raise ModelFileError(f"{path}: model format {found!r}, this edgelm reads 1 and 2; upgrade one of them")
    for key, kind in (("name", str), ("config", dict), ("sha256", dict), ("card", dict)):
        if not isinstance(manifest.get(key), kind):
            raise ModelFileError(f"{path}: lacks {key!r}; get the model again")
    try:
        config = ModelConfig.from_dict(manifest["config"])
        origin = _origin(manifest.get("origin"), config) if found > 1 else None
        template = Template.from_dict(manifest.get("template", {}))
    except ConfigError as exc:
        raise ModelFileError(f"{path}: {exc}") from None
    digests = {file: digest for file, digest in manifest["sha256"].items() if isinstance(digest, str)}
    was = origin or Origin(manifest["config"], digests.get(WEIGHTS))  # type: ignore[arg-type]
    identity: list[Any] = [was.config, digests.get(TOKENIZER), was.sha256]
    if template != USUAL:
        # What is learned from a turn depends on how the turn is written.
        identity.append(template.to_dict())
    sha256 = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    given, card = manifest["config"], manifest["card"]
    return Manifest(manifest["name"], sha256, config, given, digests, card, found, origin, template)


def _origin(given: Any, config: ModelConfig) -> Origin | None:
    """That of a manifest; raises a ``ConfigError`` if it is none, or one of other sizes."""
    if given is None:
        return None
    sizes, sha256 = (given.get(key) if isinstance(given, dict) else None for key in ("config", "sha256"))
    if not isinstance(sizes, dict) or not isinstance(sha256, str):
        raise ConfigError("its 'origin' lacks sizes or a digest; get the model again")
    if ModelConfig.from_dict(sizes) != config:
        raise ConfigError("its 'origin' has other sizes; get the model again")
    return Origin(sizes, sha256)


def damaged(folder: Path, manifest: Manifest) -> Iterator[str]:
    """Says of each file of the folder that is not the one of the manifest what is wrong with it."""
    problems = (_damage(folder / file, manifest) for file in FILES)
    return (problem for problem in problems if problem)


def _damage(path: Path, manifest: Manifest) -> str:
    """What is wrong with one of them, or nothing."""
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as exc:
        return f"{path}: cannot be read ({exc.strerror}); get the model again"
    if found != manifest.digest(path.name):
        return f"{path}: altered or truncated (its SHA-256 is not that of {MANIFEST}); get the model again"
    return ""


def manifest_bytes(
    name: str, config: ModelConfig, digests: dict[str, str], card: dict[str, Any],
    template: Template | None = None, origin: Origin | None = None,
) -> bytes:  # fmt: skip
    """``config.json`` of a model folder; ``digests`` are the SHA-256 of ``FILES``."""
    manifest = {"format": FORMAT, "name": name, "config": config.to_dict(), "sha256": digests, "card": card}
    if template is not None and (fields := template.to_dict()):
        manifest["template"] = fields
    if origin is not None:
        manifest["origin"] = {"config": origin.config, "sha256": origin.sha256}
    return (json.dumps(manifest, indent=1) + "\n").encode()


def digests_of(files: Mapping[str, bytes]) -> dict[str, str]:
    """The SHA-256 of files by their names."""
    return {file: hashlib.sha256(blob).hexdigest() for file, blob in files.items()}


def write_model(
    folder: Path, name: str, config: ModelConfig, files: dict[str, bytes], card: dict[str, Any],
    template: Template | None = None, origin: Origin | None = None,
) -> None:  # fmt: skip
    """Writes a model folder; ``files`` maps the names of ``FILES`` to their bytes.

    Each file is moved into its place whole: whoever has an older one mapped keeps that.
    """
    folder.mkdir(parents=True, exist_ok=True)
    manifest = manifest_bytes(name, config, digests_of(files), card, template, origin)
    for file, blob in [*files.items(), (MANIFEST, manifest)]:
        (folder / f".{file}.new").write_bytes(blob)
        os.replace(folder / f".{file}.new", folder / file)
