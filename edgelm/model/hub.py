"""Finds and loads a model: bundled, pulled, or a local folder.

A model folder holds ``config.json`` (format, name, sizes, SHA-256 of the other files), ``tokenizer.json``,
``weights.safetensors`` (matrices int4, int8 or float32), ``learning.safetensors`` (root mean square of the
gradients) and ``README.md`` (the card). An optional ``template`` in ``config.json`` says how conversations are
written. Older ones hold graphs too, which nothing reads: graphs are made here.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from edgelm.errors import ConfigError, ModelFileError
from edgelm.matrices.matrix import Operand
from edgelm.model import tensorfile
from edgelm.model.config import ModelConfig
from edgelm.model.guard import Guard
from edgelm.model.packing import check_packed, operand, shift, unpack_one
from edgelm.model.weights import Weights, adaptable_names, count_parameters, shapes, tensors
from edgelm.text.template import USUAL, Template
from edgelm.text.tokenizer import Tokenizer

Array = np.ndarray
FORMAT = 1
BUNDLED = Path(__file__).parent.parent / "models"
DEFAULT = "small"
FIXED_BYTES, BYTES_PER_PARAMETER = 130_000_000, 8
"""What a process takes without a model (Python, ONNX Runtime, the fast memory), and for each number of it (for answers
and for learning): 215 MB for ``small``, of which ``adapt`` was seen to take 207."""
WEIGHTS = "weights.safetensors"
TOKENIZER, SCALES = "tokenizer.json", "learning.safetensors"
FILES = (TOKENIZER, WEIGHTS, SCALES)
MAX_MANIFEST = 256 << 10
"""Bytes of ``config.json`` at most."""
GRAPHS = ("step.onnx", "step.int8.onnx")
"""What older folders hold besides."""
MANIFEST, CARD = "config.json", "README.md"


@dataclass
class Model:
    """A loaded model.

    Attributes
    ----------
    name, folder, sha256
        ``sha256`` identifies weights, tokenizer and sizes together.
    config : ModelConfig
    tokenizer : Tokenizer
    guard : Guard
        Held while ``adaptable`` is written or read.
    grad_rms : dict of ndarray
    card : dict
        What is known about its training and measures.
    answers_in_float32 : bool
        Whether a session holds all weights in float32 anyway; set when it is opened.
    template : Template
        How conversations are written.
    """

    name: str
    folder: Path
    sha256: str
    config: ModelConfig
    tokenizer: Tokenizer
    grad_rms: Weights
    card: dict[str, Any]
    template: Template = USUAL
    guard: Guard = field(init=False)
    answers_in_float32: bool = field(init=False, default=False)
    _packed: Weights | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.guard = Guard(self.config)

    @property
    def packed(self) -> Mapping[str, Array]:
        """The tensors of the file; read as they are asked for, once they were released.

        Raises
        ------
        ModelFileError
            The file is another one by now.
        """
        if self._packed is not None:
            return self._packed
        try:
            manifest = read_manifest(self.folder)
            if manifest.sha256 == self.sha256:
                return tensorfile.TensorFile(self.folder / WEIGHTS, manifest.digest(WEIGHTS))
        except ModelFileError:
            pass
        raise ModelFileError(f"{self.folder}: the model was exchanged while it was in use; start again")

    @cached_property
    def adaptable(self) -> Weights:
        """float32; what learning changes, in place."""
        packed = self.packed
        return {name: np.array(unpack_one(packed, name)) for name in adaptable_names(self.config)}

    def now(self, name: str) -> Array:
        """One tensor in float32, with what was learned."""
        learns = name in adaptable_names(self.config) and "adaptable" in self.__dict__
        return self.adaptable[name] if learns else unpack_one(self.packed, name)

    @cached_property
    def weights(self) -> Weights:
        """All tensors in float32, for learning; those of ``adaptable`` are the same arrays."""
        adaptable, packed, frozen = self.adaptable, self.packed, {}
        for name in shapes(self.config):
            if name not in adaptable:
                frozen[name] = unpack_one(packed, name)
            if self._packed is not None:
                # The two forms of all tensors are never held at once.
                for part in ("", ".q", ".scale", ".zero"):
                    self._packed.pop(name + part, None)
        self._packed = None
        return frozen | adaptable

    @cached_property
    def operands(self) -> dict[str, Operand]:
        """All tensors for learning; those of ``adaptable`` are the same arrays. Frozen matrices are the integers of the
        file, or the float32 that answers are computed with."""
        if self.answers_in_float32:
            return dict(self.weights)
        packed = self.packed
        frozen = {name: operand(packed, name) for name in shapes(self.config) if name not in self.adaptable}
        return frozen | self.adaptable

    def base(self) -> dict[str, Operand]:
        """What learning changes as it is in the file; to be asked for before any of it is changed."""
        packed = self.packed
        return {
            name: operand(packed, name) if name + ".q" in packed else array.copy()
            for name, array in self.adaptable.items()
        }

    def release(self) -> None:
        """Gives the memory of ``packed`` back, to the system too."""
        self._packed = None
        # The heap of glibc keeps what was freed in its middle: 8 MB after a session of integers was made.
        with suppress(AttributeError, TypeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)

    @property
    def n_parameters(self) -> int:
        """Numbers in all tensors together."""
        return count_parameters(self.config)


def available() -> list[str]:
    """Names of the bundled models."""
    return sorted(path.parent.name for path in BUNDLED.glob("*/config.json"))


def find(name: str | None, pulled: Path | None = None) -> Path:
    """The folder of a bundled model's name, of a pulled model's name, or of a path, in this order.

    Parameters
    ----------
    name : str or None
    pulled : Path, optional
        Where pulled models are kept, a folder each.

    Raises
    ------
    ModelFileError
        There is no such model.
    """
    # Unlike Path.expanduser, it leaves the ~ of an unknown user alone.
    folder = BUNDLED / DEFAULT if name is None else Path(os.path.expanduser(name))  # noqa: PTH111
    if name and "/" not in name:
        for store in (BUNDLED, pulled):
            if store is not None and (store / name / MANIFEST).is_file():
                folder = store / name
                break
    if not (folder / MANIFEST).is_file():
        names = ", ".join(available()) or "none"
        raise ModelFileError(
            f"no model {name or DEFAULT!r}: neither bundled ({names}), nor pulled (see `edgelm models list`), "
            f"nor a folder with a {MANIFEST}"
        )
    return folder


def load(name: str | None = None, pulled: Path | None = None) -> Model:
    """Loads and verifies a model.

    Parameters
    ----------
    name : str, optional
        A bundled or pulled model's name or a folder; default: the bundled model ``small``.
    pulled : Path, optional
        Where pulled models are kept.

    Raises
    ------
    ModelFileError
        It is missing, truncated, altered, of another format, or does not fit its configuration.
    """
    folder = find(name, pulled)
    manifest = read_manifest(folder)
    config = manifest.config
    tokenizer = Tokenizer(folder / TOKENIZER, manifest.digest(TOKENIZER))
    packed = _read_weights(folder / WEIGHTS, manifest)
    grad_rms = _read_grad_rms(folder / SCALES, manifest)
    if tokenizer.vocab_size != config.vocab_size:
        raise ModelFileError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} tokens, the model {config.vocab_size}"
        )
    template = manifest.template
    if template.document_id != tokenizer.document_id:
        raise ModelFileError(
            f"{folder}: the template says that token {template.document_id} ends a document, the tokenizer has "
            f"{tokenizer.document_id}"
        )
    model = Model(manifest.name, folder, manifest.sha256, config, tokenizer, grad_rms, manifest.card, template)
    model._packed = packed
    return model


def memory_needed(name: str | None = None, pulled: Path | None = None) -> int:
    """Bytes, about, that answering and learning will take with a model; its weights are not read for it.

    Raises
    ------
    ModelFileError
        There is no such model, or its configuration cannot be read.
    """
    return FIXED_BYTES + BYTES_PER_PARAMETER * count_parameters(read_manifest(find(name, pulled)).config)


@dataclass(frozen=True)
class Manifest:
    """What ``config.json`` says.

    Attributes
    ----------
    name, sha256
        ``sha256`` identifies weights, tokenizer and sizes together.
    config : ModelConfig
    digests : dict
        SHA-256 of each of ``FILES``.
    card : dict
    template : Template
        That of the bundled models where ``config.json`` has none.
    """

    name: str
    sha256: str
    config: ModelConfig
    digests: dict[str, str]
    card: dict[str, Any]
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
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        found = manifest.get("format") if isinstance(manifest, dict) else None
        raise ModelFileError(f"{path}: model format {found!r}, this edgelm reads {FORMAT}; upgrade one of them")
    for key, kind in (("name", str), ("config", dict), ("sha256", dict), ("card", dict)):
        if not isinstance(manifest.get(key), kind):
            raise ModelFileError(f"{path}: lacks {key!r}; get the model again")
    try:
        config = ModelConfig.from_dict(manifest["config"])
        template = Template.from_dict(manifest.get("template", {}))
    except ConfigError as exc:
        raise ModelFileError(f"{path}: {exc}") from None
    digests = {file: digest for file, digest in manifest["sha256"].items() if isinstance(digest, str)}
    identity = [manifest["config"], digests.get("tokenizer.json"), digests.get("weights.safetensors")]
    if template != USUAL:
        # What is learned from a turn depends on how the turn is written.
        identity.append(template.to_dict())
    sha256 = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return Manifest(manifest["name"], sha256, config, digests, manifest["card"], template)


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


def _read_weights(path: Path, manifest: Manifest) -> Weights:
    packed, _ = tensorfile.read(path, manifest.digest(WEIGHTS))
    check_packed(packed, manifest.config, str(path))
    shift(packed)
    return packed


def _read_grad_rms(path: Path, manifest: Manifest) -> Weights:
    grad_rms, _ = tensorfile.read(path, manifest.digest(SCALES))
    config = manifest.config
    for name in adaptable_names(config):
        rms = grad_rms.get(name)
        if rms is None:
            raise ModelFileError(f"{path} lacks {name!r}; get the model again")
        spec = tensors(config)[name]
        fits = rms.shape in ((), (1,)) or (spec.blocks and rms.shape == spec.shape[:1])
        if not fits or not (np.isfinite(rms) & (rms > 0)).all():
            raise ModelFileError(f"{path}: {name} holds no usable scale of a gradient; get the model again")
    return grad_rms


def write_model(
    folder: Path, name: str, config: ModelConfig, files: dict[str, bytes], card: dict[str, Any],
    template: Template | None = None,
) -> None:  # fmt: skip
    """Writes a model folder; ``files`` maps the names of ``FILES`` to their bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    for file, blob in files.items():
        (folder / file).write_bytes(blob)
    digests = {file: hashlib.sha256(files[file]).hexdigest() for file in files}
    manifest = {"format": FORMAT, "name": name, "config": config.to_dict(), "sha256": digests, "card": card}
    if template is not None and (fields := template.to_dict()):
        manifest["template"] = fields
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
