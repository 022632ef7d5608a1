"""Finds and loads a model: bundled, pulled, or a local folder.

A model folder holds ``config.json`` (format, name, sizes, SHA-256 of the other files), ``tokenizer.json``,
``weights.safetensors`` (matrices int4, int8 or float32), ``learning.safetensors`` (root mean square of the
gradients) and ``README.md`` (the card). An optional ``template`` in ``config.json`` says how conversations are
written. Older ones hold graphs too, which nothing reads: graphs are made here.

The weights of format 2 are read where they lie, in the pages of the file (``edgelm.model.mapped``); those of format 1
are read into memory and made what those of format 2 are.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from edgelm.errors import ModelFileError
from edgelm.matrices.changed import ChangedRows
from edgelm.matrices.matrix import Int8, Operand
from edgelm.matrices.pages import Pages
from edgelm.matrices.quantize import Precision
from edgelm.model import tensorfile
from edgelm.model.config import ModelConfig
from edgelm.model.guard import Guard
from edgelm.model.layers import Layer, identity, with_layers
from edgelm.model.manifest import (
    CARD,
    FILES,
    FORMAT,
    FORMATS,
    GRAPHS,
    MANIFEST,
    MAX_MANIFEST,
    SCALES,
    TOKENIZER,
    WEIGHTS,
    Manifest,
    Origin,
    damaged,
    read_manifest,
    write_model,
)
from edgelm.model.mapped import MappedFile
from edgelm.model.origin import check_origin
from edgelm.model.packing import Shifted, check_packed, integers, is_ternary, operand, pack, unpack_one
from edgelm.model.weights import Weights, adaptable_names, count_parameters, frozen_matrices, shapes, tensors
from edgelm.text.opening import open_tokenizer
from edgelm.text.template import USUAL, Template
from edgelm.text.tokenizer import Tokenizer

__all__ = [
    "BUNDLED", "CARD", "DEFAULT", "FILES", "FORMAT", "FORMATS", "GRAPHS", "MANIFEST", "MAX_MANIFEST", "SCALES",
    "TOKENIZER", "WEIGHTS", "Manifest", "Model", "Origin", "available", "damaged", "find", "in_memory", "load",
    "read_manifest", "write_model",
]  # fmt: skip

Array = np.ndarray
BUNDLED = Path(__file__).parent.parent / "models"
DEFAULT = "small"


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
    layers : tuple of Layer
        What lies between the file's weights and what is learned, the lowest first (``set_layers``).
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
    layers: tuple[Layer, ...] = field(init=False, default=())
    _packed: Mapping[str, Array] | None = field(init=False, default=None)
    _learning: dict[str, Any] = field(init=False, default_factory=dict)
    _strips: dict[str, Any] = field(init=False, default_factory=dict)
    _pages: Pages = field(init=False, default_factory=Pages)

    def __post_init__(self) -> None:
        self.guard = Guard(self.config)

    @property
    def identity(self) -> str:
        """``sha256``, or with layers one that stands for the model and them: of what is learned it is the base."""
        return identity(self.sha256, self.layers)

    def set_layers(self, layers: Sequence[Layer]) -> None:
        """Puts these layers beneath what is learned, in place of others; what is in use stays as it is until whoever
        calls makes it ``base``. Raises ``ModelFileError`` where what is in use cannot have layers: start again then."""
        specs = (tensors(self.config)[name] for name in self._learning)
        if not self.answers_in_float32 and any(spec.blocks and len(spec.shape) == 2 for spec in specs):
            raise ModelFileError(f"{self.name}: its layers cannot change while it is in use; start again")
        self.layers = tuple(layers)
        with self.guard.writing():
            self.adaptable  # noqa: B018  sessions take from it what was written, and from the file what was not

    @property
    def packed(self) -> Mapping[str, Array]:
        """The tensors of the file: views of its pages; those of format 1 are read as they are asked for, once they
        were released.

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
                return Shifted(tensorfile.TensorFile(self.folder / WEIGHTS, manifest.digest(WEIGHTS)))
        except ModelFileError:
            pass
        raise ModelFileError(f"{self.folder}: the model was exchanged while it was in use; start again")

    def private(self, names: Iterable[str]) -> Mapping[str, Array]:
        """As ``packed``, of these tensors at least, in arrays that may be written to and are nobody else's. The pages
        of a mapped file are copied as they are written."""
        packed = self.packed
        if isinstance(packed, MappedFile):
            return packed.private()
        parts = [name + part for name in names for part in ("", ".q", ".scale", ".zero") if name + part in packed]
        return {part: packed[part].copy() for part in parts}

    def learning(self, name: str) -> Any:
        """One of the tensors that learning changes, in place: whoever learns and whoever answers share it.

        It is float32, or ``ChangedRows`` of what neurons write as integers, and made when it is first asked for.
        """
        if name not in self._learning:
            found, spec = operand(self.packed, name), tensors(self.config)[name]
            in_rows = spec.blocks and len(spec.shape) == 2 and not self.answers_in_float32 and not self.layers
            if in_rows and isinstance(found, Int8):
                file = self._packed
                on_read = partial(file.release_of, name + ".q") if isinstance(file, MappedFile) else None
                self._learning[name] = ChangedRows(found, on_read)
            else:
                self._learning[name] = np.array(with_layers(unpack_one(self.packed, name), name, self.layers))
        return self._learning[name]

    @property
    def adaptable(self) -> dict[str, Any]:
        """All that learning changes, in place."""
        return {name: self.learning(name) for name in adaptable_names(self.config)}

    def strips(self, name: str) -> Any:
        """A matrix in strips: one copy for whoever answers and, of those that do not learn, for whoever learns. It is
        made when it is first asked for."""
        from edgelm.matrices.strips import Strips

        if name not in self._strips:
            packed = self.packed
            if is_ternary(packed, name):
                return Strips.of_ternary(operand(packed, name))  # type: ignore[arg-type]
            self._strips[name] = Strips.of(*integers(packed, name, blocks=True), self._pages)
            if isinstance(self._packed, MappedFile):
                # A large model is not to be in memory twice, not even while it is opened.
                self._packed.release()
        return self._strips[name]

    def now(self, name: str) -> Array:
        """One tensor in float32, with what was learned; to be read."""
        return np.asarray(self._learning[name]) if name in self._learning else unpack_one(self.packed, name)

    @cached_property
    def weights(self) -> Weights:
        """All tensors in float32, for learning; those of ``adaptable`` are the same arrays, the others are read.

        From now on all of ``adaptable`` are arrays: whoever learned before asks for it again.
        """
        self._learning = {name: np.asarray(array) for name, array in self.adaptable.items()}
        adaptable, packed, frozen = self.adaptable, self.packed, {}
        for name in shapes(self.config):
            if name not in adaptable:
                frozen[name] = unpack_one(packed, name)
            if isinstance(self._packed, dict):
                # The two forms of all tensors are never held at once.
                for part in ("", ".q", ".scale", ".zero"):
                    self._packed.pop(name + part, None)
        if isinstance(self._packed, dict):
            self._packed = None
        return frozen | adaptable

    @cached_property
    def operands(self) -> dict[str, Operand]:
        """All tensors for learning; those of ``adaptable`` are the same arrays. Frozen matrices are the float32 that
        answers are computed with or, where these are integers, strips, whoever answers; ternary ones are the file's."""
        from edgelm.matrices.integer_products import IntegerProducts

        if self.answers_in_float32:
            return dict(self.weights)
        packed, table, frozen = self.packed, dict[str, Any](self.adaptable), frozen_matrices(self.config)
        for name in shapes(self.config).keys() - table.keys():
            strips = self.strips(name) if name in frozen and not is_ternary(packed, name) else None
            if strips is None or not (strips.can_learn or strips.is_one):
                table[name] = operand(packed, name)
            else:
                table[name] = IntegerProducts(strips) if strips.is_one else strips
        return table

    def base(self) -> dict[str, Operand]:
        """What learning changes as it is in the file and with the layers, whatever was learned; to be read."""
        return {name: with_layers(array, name, self.layers) for name, array in self.bare().items()}

    def bare(self) -> dict[str, Operand]:
        """What learning changes as it is in the file, without layers and whatever was learned; to be read."""
        packed = self.packed
        return {name: operand(packed, name) for name in adaptable_names(self.config)}

    def release(self) -> None:
        """Gives the memory of ``packed`` back, to the system too; a mapped file stays mapped."""
        if not isinstance(self._packed, MappedFile):
            self._packed = None
        self.trim()

    def trim(self) -> None:
        """Gives back to the system what it can have at once: pages of a mapped file, and what the heap holds free."""
        if isinstance(self._packed, MappedFile):
            self._packed.release()
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
    tokenizer = open_tokenizer(folder / TOKENIZER, manifest.digest(TOKENIZER))
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


def in_memory(name: str, config: ModelConfig, weights: Weights, tokenizer: Tokenizer, precision: Precision) -> Model:
    """A model that lies in no folder, of float32 weights that are packed as a file would hold them.

    It can answer; it has no scales of gradients to learn with, and nothing to be read again once it was released.
    """
    model = Model(name, Path(), "", config, tokenizer, {}, {})
    model._packed = pack(weights, precision)
    return model


def of_blocks(model: Model, blocks: Sequence[Array]) -> Model:
    """The smaller model of some of the neuron blocks, as the model is now, with what was learned.

    It lies in memory. Its folder, digest and card are those of the whole model, whose tokenizer it has.

    Parameters
    ----------
    model : Model
        With a feed-forward part of neuron blocks.
    blocks : sequence of ndarray [K] of int
        Of each layer the indices of those to keep, as many of each.
    """
    weights, grad_rms, small = dict(model.weights), dict(model.grad_rms), model.config.ffn
    parts = ((prefix, cell) for prefix, cell in model.config.parts() if hasattr(cell, "with_blocks"))
    for (prefix, cell), kept in zip(parts, blocks, strict=True):
        own = {name.removeprefix(prefix): weights[name] for name in weights if name.startswith(prefix)}
        small, made = cell.with_blocks(own, kept)
        weights |= {prefix + name: array for name, array in made.items()}
        for name, spec in cell.tensors().items():
            if (
                spec.blocks
                and len(rms := grad_rms.get(prefix + name, np.zeros(0)).reshape(-1)) == model.config.n_blocks
            ):
                grad_rms[prefix + name] = rms[kept]
    config = replace(model.config, ffn=small)
    found = replace(model, name=f"{model.name}-{len(blocks[0])}", config=config, grad_rms=grad_rms)
    # Not to be taken apart when its float32 form is asked for: it is that already.
    found._packed = MappingProxyType(weights)
    return found


def _read_weights(path: Path, manifest: Manifest) -> Mapping[str, Array]:
    if manifest.file_format == 1:
        packed, _ = tensorfile.read(path, manifest.digest(WEIGHTS))
        check_packed(packed, manifest.config, str(path), 1)
        shifted = Shifted(packed)
        for name in packed:  # one by one: all tensors are never held twice
            packed[name] = shifted[name]
        return packed
    mapped = MappedFile(path, manifest.digest(WEIGHTS))
    check_packed(mapped, manifest.config, str(path))
    if manifest.origin is not None:
        check_origin(mapped, manifest.origin.sha256, path)
    return mapped


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
