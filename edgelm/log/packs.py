"""Packs: files with a layer of knowledge and its card, and the folder in which those lie that profiles use.

A pack is one safetensors file: the tensors of a change (``edgelm.log.change``), the texts that it was made from if
the fast memory is to know them too (``text``, UTF-8), and metadata that say what it is, on which model it was made,
from what and under which licence. It is known by the SHA-256 of its bytes. A file is compared with what edgelm would
have written itself, number by number, and anything else is refused.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path

import numpy as np

from edgelm.errors import ModelFileError, ProfileError
from edgelm.log.change import misfit
from edgelm.model import tensorfile
from edgelm.model.hub import Model
from edgelm.model.layers import BLOCKS, Layer
from edgelm.model.weights import Weights, adaptable_names, block_names, shapes

KIND, FORMAT = "edgelm pack", "1"
CLIP, CLIP_OF_ZERO = 0.25, 0.01
"""How large the change of a tensor or of a neuron block may be: its Euclidean norm is at most this share of that of the
base, and this for each number, root mean square, where the base is nothing."""
MOST_SOURCES, MOST_TITLE, MOST_CARD, MOST_HEAD, MOST_TEXT = 256, 120, 4000, 1 << 17, 4 << 20
TEXT = "text"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_OPEN = re.compile(
    r"(in the )?public domain|cc0(-1\.0)?|unlicense|pddl(-1\.0)?|cc[ -]by(-sa)?([ -][1-4]\.0)?|mit|isc|apache[ -]2\.0"
    r"|bsd-[23]-clause",
    re.IGNORECASE,
)
"""Licences, mostly by their names in SPDX's list, under which a text may be copied by anybody."""
_SHA256, _DATE = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9]{4}-[01][0-9]-[0-3][0-9]")
_KEYS = {"kind", "format", "base", "base_name", "name", "licence", "from", "made", "card"}


@dataclass(frozen=True)
class Source:
    """A text, or another pack, that a pack was made from."""

    title: str
    sha256: str


@dataclass(frozen=True)
class Pack:
    """A layer of knowledge and what is known about it.

    Attributes
    ----------
    name, licence, card : str
    made : str
        The date, as 2026-11-27.
    base, base_name : str
        SHA-256 and name of the model that it was made on and fits.
    sources : tuple of Source
    changes : dict of ndarray
    text : str
        As of ``Layer``.
    sha256 : str
        Of the file; empty before it is written.
    n_bytes : int
    """

    name: str
    licence: str
    card: str
    made: str
    base: str
    base_name: str
    sources: tuple[Source, ...]
    changes: Weights = field(default_factory=dict, repr=False, compare=False)
    text: str = field(default="", repr=False, compare=False)
    sha256: str = ""
    n_bytes: int = 0

    @property
    def layer(self) -> Layer:
        """What lies beneath a log."""
        return Layer(self.name, self.sha256, self.changes, self.text)


def may_be_passed_on(licence: str) -> bool:
    """Whether each part of a licence ("A AND B") is known to let everybody pass on the text, for money too."""
    return all(_OPEN.fullmatch(part.strip()) for part in re.split(r",| and ", licence, flags=re.IGNORECASE))


def clipped(changes: Weights, model: Model) -> Weights:
    """The changes, those of tensors and blocks that are too large for a pack made smaller; a new dict."""
    made = Weights()
    for name, change in changes.items():
        if name.endswith(BLOCKS):
            made[name] = change
            continue
        norms, limits = _norms(name, changes, model)
        with np.errstate(divide="ignore", invalid="ignore"):
            kept = np.where(norms > limits, limits / norms, 1)
        wide = change.astype(np.float32) * kept.astype(np.float32).reshape(-1, *[1] * (change.ndim - 1))
        made[name] = wide.astype(np.float16)
    return made


def write_pack(path: Path, pack: Pack) -> Pack:
    """Writes a pack, in place of a file that is there; returns it with its digest.

    Raises
    ------
    ModelFileError
        Something of it is longer than may be, or the file cannot be written.
    """
    rows = json.dumps([astuple(source) for source in pack.sources])
    metadata = {
        "kind": KIND, "format": FORMAT, "base": pack.base, "base_name": pack.base_name, "name": pack.name,
        "licence": pack.licence, "from": rows, "made": pack.made, "card": pack.card,
    }  # fmt: skip
    _described(metadata, path)
    text = np.frombuffer(pack.text.encode(), np.uint8)
    if len(text) > MOST_TEXT:
        raise ModelFileError(f"{path}: {len(text):,} bytes of text, a pack holds {MOST_TEXT:,} at most")
    try:
        tensorfile.write(path, pack.changes | ({TEXT: text} if len(text) else {}), metadata)
        blob = path.read_bytes()
    except OSError as exc:
        raise ModelFileError(f"{path}: cannot be written ({exc.strerror})") from None
    return _named(pack, blob)


def read_card(path: Path) -> Pack:
    """What a pack says of itself; its changes are not read, and it may be one of any model.

    Raises
    ------
    ModelFileError
        It is missing, damaged or no pack.
    """
    with tensorfile.open_file(path) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        n_bytes = file.seek(0, 2)
        file.seek(0)
        pack = _described(tensorfile.read_head(file.read, n_bytes, path).metadata, path)
    return replace(pack, sha256=digest, n_bytes=n_bytes)


def read_pack(path: Path, model: Model, sha256: str | None = None) -> Pack:
    """A whole pack.

    Parameters
    ----------
    path : Path
    model : Model
        What it must have been made on.
    sha256 : str, optional
        What its digest must be.

    Raises
    ------
    ModelFileError
        It is missing, damaged, another one, no pack, or one of another model, or holds what no pack may.
    """
    return _parse(_bytes_of(path, model), path, model, sha256)


def _bytes_of(path: Path, model: Model) -> bytes:
    most, sizes = MOST_HEAD + MOST_TEXT, shapes(model.config)
    for name in adaptable_names(model.config):
        most += 2 * int(np.prod(sizes[name])) + 4 * sizes[name][0]
    with tensorfile.open_file(path) as file:
        try:
            blob = file.read(most + 1)
        except OSError as exc:
            raise ModelFileError(f"{path}: cannot be read ({exc.strerror})") from None
    if len(blob) > most:
        raise ModelFileError(f"{path}: larger than any pack of {model.name!r} can be")
    return blob


def _parse(blob: bytes, path: Path, model: Model, sha256: str | None) -> Pack:
    import io

    digest = hashlib.sha256(blob).hexdigest()
    if sha256 not in (None, digest):
        raise tensorfile.altered(path)
    stream = io.BytesIO(blob)
    head = tensorfile.read_head(stream.read, len(blob), path)
    pack = _described(head.metadata, path)
    if pack.base != model.sha256:
        raise ModelFileError(f"{path} was made on another model ({pack.base_name!r}), not on {model.name!r}")
    changes = {
        name: place.numbers(np.frombuffer(bytearray(stream.read(place.size)), np.uint8))
        for name, place in head.places.items()
    }
    text = _text_of(changes.pop(TEXT, np.zeros(0, np.uint8)), path)
    if not changes:
        raise ModelFileError(f"{path}: damaged (it changes nothing)")
    name = misfit(changes, model.config) or _bare_list(changes, model) or _too_large(changes, model)
    if name:
        raise ModelFileError(f"{path}: damaged at {name!r}, which no pack of {model.name!r} can hold")
    return _named(replace(pack, changes=changes, text=text), blob)


def _named(pack: Pack, blob: bytes) -> Pack:
    return replace(pack, sha256=hashlib.sha256(blob).hexdigest(), n_bytes=len(blob))


def _text_of(stored: np.ndarray, path: Path) -> str:
    """The texts of a pack; raises ``ModelFileError`` for what is none or too long."""
    try:
        if stored.dtype == np.uint8 and stored.ndim == 1 and stored.size <= MOST_TEXT:
            return stored.tobytes().decode()
    except UnicodeDecodeError:
        pass
    raise ModelFileError(f"{path}: damaged at {TEXT!r}, which is no text that a pack can hold")


def _bare_list(changes: Weights, model: Model) -> str:
    """A tensor of neuron blocks without their indices: packs always have them."""
    blocks = set(block_names(model.config))
    return next((name for name in changes if name in blocks and name + BLOCKS not in changes), "") or next(
        (name for name in changes if name.endswith(BLOCKS) and name.removesuffix(BLOCKS) not in blocks), ""
    )


def _too_large(changes: Weights, model: Model) -> str:
    """The first tensor whose change is larger than ``clipped`` leaves it, but for what rounding to float16 adds."""
    for name in (name for name in changes if not name.endswith(BLOCKS)):
        norms, limits = _norms(name, changes, model)
        if not (norms <= 1.01 * limits).all():
            return name
    return ""


def _norms(name: str, changes: Weights, model: Model) -> tuple[np.ndarray, np.ndarray]:
    """The Euclidean norms of a change, one for each block or one alone, and what they may be at most; float64."""
    change, blocks = changes[name], changes.get(name + BLOCKS)
    base = np.asarray(model.bare()[name], np.float32)
    if blocks is None:
        change, base = change[None], base[None]
    else:
        base = base[blocks]
    each = tuple(range(1, change.ndim))
    size = np.sqrt(float(np.prod(change.shape[1:])))
    norms = np.sqrt(np.square(change.astype(np.float64)).sum(each))
    return norms, CLIP * np.sqrt(np.square(base.astype(np.float64)).sum(each)) + CLIP_OF_ZERO * size


def _described(metadata: dict[str, str], path: Path) -> Pack:
    """The pack, without changes, that metadata describe; raises ``ModelFileError`` if they describe none."""
    if metadata.get("kind") != KIND:
        raise ModelFileError(f"{path}: not a pack; `edgelm pack make` makes one")
    if metadata.get("format") != FORMAT:
        raise ModelFileError(f"{path}: a pack of format {metadata.get('format')!r}, this edgelm reads {FORMAT}")
    try:
        rows = json.loads(metadata["from"])
        sources = tuple(Source(title, sha256) for title, sha256 in rows)
        fits = {
            "tensors": set(metadata) == _KEYS,
            "base": _SHA256.fullmatch(metadata["base"]),
            "base_name": _is_line(metadata["base_name"], MOST_TITLE),
            "name": _NAME.fullmatch(metadata["name"]),
            "licence": _is_line(metadata["licence"], MOST_TITLE),
            "made": _DATE.fullmatch(metadata["made"]),
            "card": len(metadata["card"]) <= MOST_CARD,
            "from": type(rows) is list and 0 < len(sources) <= MOST_SOURCES and all(map(_is_source, sources)),
        }
    except (KeyError, ValueError, TypeError, RecursionError):
        fits = {"from": False}
    if wrong := next((name for name, does in fits.items() if not does), ""):
        raise ModelFileError(f"{path}: its {wrong} is missing or is not as edgelm writes it; get the pack again")
    name, licence, card, made, base, base_name = (
        metadata[key] for key in ("name", "licence", "card", "made", "base", "base_name")
    )
    return Pack(name, licence, card, made, base, base_name, sources)


def _is_line(text: object, most: int) -> bool:
    return isinstance(text, str) and 0 < len(text) <= most and text.isprintable() and bool(text.strip())


def _is_source(source: Source) -> bool:
    known = isinstance(source.sha256, str) and _SHA256.fullmatch(source.sha256)
    return _is_line(source.title, MOST_TITLE) and bool(known)


def path_of(folder: Path, sha256: str) -> Path:
    """Where a pack lies in the folder of packs."""
    return folder / f"{sha256}.safetensors"


def keep(folder: Path, path: Path, model: Model, sha256: str | None = None) -> Pack:
    """Copies a pack of this model, and of this digest if one is given, into the folder of packs; returns it.

    Raises
    ------
    ModelFileError
        As ``read_pack``, or the folder cannot be written.
    """
    blob = _bytes_of(path, model)
    pack = _parse(blob, path, model, sha256)
    kept = path_of(folder, pack.sha256)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not kept.exists() or hashlib.sha256(kept.read_bytes()).hexdigest() != pack.sha256:
            tensorfile.replace(kept, [blob])
    except OSError as exc:
        raise ModelFileError(f"{kept}: cannot be written ({exc.strerror})") from None
    return pack


def kept_in(folder: Path) -> list[Pack]:
    """The cards of all packs in the folder, by name; what is no pack or damaged is left out."""
    found = []
    for path in sorted(folder.glob("*.safetensors")):
        try:
            pack = read_card(path)
        except ModelFileError:
            continue
        if path == path_of(folder, pack.sha256):
            found.append(pack)
    return sorted(found, key=lambda pack: (pack.name, pack.sha256))


def load_layers(folder: Path, layers: Sequence[Layer], model: Model) -> list[Layer]:
    """The layers of a profile with their changes, from the folder of packs.

    Raises
    ------
    ProfileError
        The pack of one is missing or cannot be used. What was learned on it cannot be computed without it.
    """
    loaded = []
    for layer in layers:
        try:
            pack = read_pack(path_of(folder, layer.sha256), model, layer.sha256)
            loaded.append(Layer(layer.name, layer.sha256, pack.changes, pack.text))
        except ModelFileError as exc:
            raise ProfileError(
                f"the layer {layer.name!r} lies beneath this profile and cannot be read ({exc}); bring its file back "
                f"with `edgelm pack add FILE`, or take it away with `edgelm pack remove {layer.name}`"
            ) from None
    return loaded
