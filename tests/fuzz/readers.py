"""Readers of models from elsewhere: what each reads, how that is mutated, and what it may answer.

A reader is given the bytes of a file. It returns a valid value, or raises one of the errors that it documents, in one
line of text: anything else is a failure.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgelm.errors import ConfigError, EdgelmError, ModelFileError
from edgelm.log.change import pack_change
from edgelm.matrices.quantize import PRECISIONS
from edgelm.model import hub, tensorfile
from edgelm.model.archive import NAMES, unpack
from edgelm.model.config import ModelConfig
from edgelm.model.conversion import convert
from edgelm.model.mapped import MappedFile
from edgelm.model.packing import has_narrow_scale, integers, operand, pack, unpack_one
from edgelm.model.weights import adaptable_names, random_weights, shapes, sums_over_first, tensors, ternary_names
from edgelm.text.byte_pairs import read_pairs
from edgelm.text.opening import open_tokenizer
from edgelm.text.tokenizer import DOC_LINE, read_spec
from edgelm.text.world import byte_tokens, write_spec
from tests.fuzz import mutations as m
from tests.model.archives import HOSTILE
from tests.model_folder import make_format_1

MOST_CHARACTERS = 2000
"""Of what an error says."""
LETTERS = "abc XYZ 019 \n\t.,'!?<|>éß渡🚢\u0301\u200d\u2028\x00\x85\xa0\uffff\U0010ffff"


@dataclass(frozen=True)
class Reader:
    """One reader.

    Attributes
    ----------
    seeds : list of bytes
        Valid files.
    mutate : callable
    read : callable
        Raises one of ``refuses``, or an ``AssertionError`` if what it read is not valid.
    refuses : type or tuple of types
    share : int
        Of the inputs of all readers together: the less, the longer one takes.
    others : list of bytes
        Files that are refused, as material.
    """

    seeds: Sequence[bytes]
    mutate: m.Mutation
    read: Callable[[bytes], None]
    refuses: type[Exception] | tuple[type[Exception], ...]
    share: int
    others: Sequence[bytes] = ()

    def input(self, seed: int, number: int) -> bytes:
        """The input of a number: always the same."""
        rng = random.Random(seed << 40 | number)
        blob = self.mutate(rng, rng.choice(self.seeds), rng.choice((*self.seeds, *self.others)))
        return blob if rng.random() < 0.8 else self.mutate(rng, blob, rng.choice(self.seeds)) if blob else blob

    def accepts(self, blob: bytes) -> bool:
        """Whether the file is accepted; any other error than one of those documented is let through."""
        try:
            self.read(blob)
        except self.refuses as exc:
            # UnicodeDecodeError is a ValueError, and nobody raises it on purpose.
            if isinstance(exc, UnicodeError | AssertionError):
                raise
            text = str(exc)
            text.encode()
            assert len(text.splitlines()) == 1, f"not one line of text: {text!r}"
            # A ConfigError becomes a part of another one.
            long = isinstance(exc, EdgelmError) and not isinstance(exc, ConfigError) and len(text) > MOST_CHARACTERS
            assert not long, f"{len(text)} characters: {text[:99]!r}"
            return False
        return True


class Room:
    """A folder for the files that readers need, with a tiny model in it.

    Parameters
    ----------
    folder : Path
        An empty one, best in memory.
    model : Path
        The folder of the tiny model; not written to.
    """

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder, self.model_folder = folder, model
        self.model = hub.load(str(model))
        rng = np.random.default_rng(1)
        weights = random_weights(self.model.config, rng)
        self.packs = [
            m.join_tensors({"made": "here"}, _parts(tensors))
            for tensors in (
                *(pack(weights, PRECISIONS[name]) for name in ("int8", "int4")),
                pack(weights, ternary=ternary_names(self.model.config)),
                weights,
            )
        ]
        base = self.model.base()
        learned = {name: array.copy() for name, array in self.model.adaptable.items()}
        for array in learned.values():
            array[: 1 + len(array) // 2] += 0.001 * rng.standard_normal(array[: 1 + len(array) // 2].shape)
        changes = pack_change(learned, base, self.model.config)
        few = {name: changes[name] for name in list(changes)[:5]}
        metadata = {"base": self.model.sha256, "base_name": self.model.name}
        self.changes = [m.join_tensors(metadata, _parts(some)) for some in (changes, few)]

    def write(self, name: str, blob: bytes) -> Path:
        """A file in the room, with these bytes from now on."""
        path = self.folder / name
        path.write_bytes(blob)
        return path

    def blob(self, name: str) -> bytes:
        """A file of the tiny model."""
        return (self.model_folder / name).read_bytes()


Make = Callable[[Room], Reader]
"""Makes a reader with what is in a room."""


def _parts(tensors: dict[str, np.ndarray]) -> list[tuple[str, str, list[int], bytes]]:
    return [(n, tensorfile._KINDS[a.dtype.name], list(a.shape), a.tobytes()) for n, a in tensors.items()]


def tensor_files(room: Room) -> Reader:
    """``tensorfile.read``, ``TensorFile`` and ``MappedFile``, which must agree."""

    def read(blob: bytes) -> None:
        path = room.write("tensors", blob)
        tensors, metadata = tensorfile.read(path)
        again = tensorfile.TensorFile(path)
        assert list(again) == list(tensors)
        assert all(isinstance(text, str) for pair in metadata.items() for text in pair)
        assert sum(array.nbytes for array in tensors.values()) < 2 * len(blob)  # BF16 is widened
        mapped = MappedFile(path, hashlib.sha256(blob).hexdigest())
        assert list(mapped) == [name for name in tensors if not name.startswith(tensorfile.PADDING)]
        for name, array in mapped.items():
            expected = tensors[name]
            if has_narrow_scale(name, expected.dtype, tensors):
                expected = expected.astype(np.float32)
            assert array.tobytes() == expected.tobytes() and array.dtype == expected.dtype
        for name, array in tensors.items():
            assert array.tobytes() == again[name].tobytes()
            assert (array.shape, array.dtype) == (again[name].shape, again[name].dtype)

    return Reader([*room.packs, *room.changes], m.mutate_tensors, read, ModelFileError, 120)


def configurations(room: Room) -> Reader:
    """``ModelConfig.from_dict`` of any JSON object."""
    config = room.model.config.to_dict()

    def read(blob: bytes) -> None:
        try:
            fields = json.loads(blob)
        except (ValueError, RecursionError):
            raise ConfigError("no JSON") from None
        if not isinstance(fields, dict):
            raise ConfigError("no JSON object")
        _check_config(ModelConfig.from_dict(fields))

    published = {"kind": "published", "n_heads": 2, "value_dim": 8, "slope_dim": 16, "n_channels": 4}
    others = [config | {"mixer": published}, hub.read_manifest(hub.BUNDLED / "small").config.to_dict()]
    return Reader([json.dumps(c).encode() for c in (config, *others)], m.mutate_json, read, ConfigError, 800)


def _check_config(config: ModelConfig) -> None:
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert all(min(shape) >= 1 for shape in shapes(config).values()), "a tensor without numbers"
    assert config.n_layers > 20 or adaptable_names(config)


def manifests(room: Room) -> Reader:
    """``hub.read_manifest``."""

    def read(blob: bytes) -> None:
        room.write("config.json", blob)
        manifest = hub.read_manifest(room.folder)
        _check_config(manifest.config)
        assert isinstance(manifest.name, str)
        assert len(manifest.sha256) == 64
        assert all(isinstance(manifest.digest(file), str) for file in hub.FILES)

    seeds = [room.blob("config.json"), (hub.BUNDLED / "small" / "config.json").read_bytes()]
    return Reader(seeds, m.mutate_json, read, ModelFileError, 400)


def specifications(room: Room) -> Reader:
    """``read_pairs``, which checks all of a tokenizer without making it."""

    def read(blob: bytes) -> None:
        tokens, merges = read_pairs(read_spec(blob))
        assert len(set(tokens)) == len(tokens) > 256
        assert all(left + right in tokens for left, right in merges)

    return Reader(_tokenizers(room), m.mutate_json, read, ValueError, 120)


def _tokenizers(room: Room) -> list[bytes]:
    """That of the tiny model, and one with a token less."""
    spec = json.loads(room.blob("tokenizer.json"))
    model = spec["model"]
    last = max(model["vocab"], key=model["vocab"].get)
    model["vocab"].pop(last)
    model["merges"] = [pair for pair in model["merges"] if last not in (*pair, "".join(pair))]
    return [room.blob("tokenizer.json"), json.dumps(spec).encode()]


def tokenizers(room: Room) -> Reader:
    """``open_tokenizer``; what it makes of random text must be ids that decode to that text."""

    def read(blob: bytes) -> None:
        tokenizer = open_tokenizer(room.write("tokenizer.json", blob))
        rng = random.Random(zlib.crc32(blob))
        text = "".join(rng.choices(LETTERS, k=rng.randrange(99))) + rng.choice(("", DOC_LINE, DOC_LINE + "\n"))
        ids = tokenizer.encode(text)
        assert all(0 < i < tokenizer.vocab_size for i in ids)
        assert tokenizer.decode(ids) == text

    words = [b"the", b" the", b"\xe6\xb8", b"\xe6\xb8\xa1", b"", b"\n\n"]
    worlds = [write_spec([b"", b"\0", *byte_tokens()[1:], *words[:n]]) for n in (3, 6)]
    return Reader([*_tokenizers(room), *worlds], m.mutate_json, read, ModelFileError, 60)


LARGE_OR_DATED = ("much", "often", "long", "with holes", "large", "many", "up.zip", "backslash")
"""How the names of the hostile archives begin that take long to make, or hold the time of day."""


def archives(room: Room) -> Reader:
    """``unpack`` of a ``.tar``, ``.tar.gz`` and ``.zip``; what it wrote must be files of a model and nothing else."""

    def read(blob: bytes) -> None:
        place = room.folder / "unpacked"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        try:
            unpack(io.BytesIO(blob), place)
        finally:
            assert {path.name for path in place.iterdir()} <= set(NAMES)
            assert all(path.is_file() and not path.is_symlink() for path in place.iterdir())

    others = []
    for name, (write, _) in HOSTILE.items():
        if not name.startswith(LARGE_OR_DATED):
            write(path := room.folder / name)
            blob = path.read_bytes()
            others.append(gzip.compress(gzip.decompress(blob), mtime=0) if path.suffix == ".gz" else blob)
            path.unlink()
    return Reader(_archives(), m.mutate_archive, read, ModelFileError, 100, others)


def _archives() -> list[bytes]:
    members = {"model/" + name: (name * (1 + i * 40)).encode() for i, name in enumerate(NAMES)}
    members["model/step.onnx"] = b"a graph"
    found = []
    with tarfile.open(fileobj=(file := io.BytesIO()), mode="w") as archive:
        for name, blob in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(blob)
            archive.addfile(member, io.BytesIO(blob))
    found += [file.getvalue(), gzip.compress(file.getvalue(), mtime=0)]
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(file := io.BytesIO(), "w", method) as packed:
            for name, blob in members.items():
                packed.writestr(zipfile.ZipInfo(name), blob, method)
        found.append(file.getvalue())
    return found


PARTS = (hub.MANIFEST, *hub.FILES)


def model_folders(room: Room) -> Reader:
    """``hub.load`` of a folder with files that are not what they were, signed anew by somebody hostile.

    An input is its four files, each with its length in 4 bytes before it.
    """
    folder = room.folder / "model"
    folder.mkdir()

    def read(blob: bytes) -> None:
        for name, part in zip(PARTS, _split(blob), strict=True):
            (folder / name).write_bytes(part)
        model = hub.load(str(folder))
        _check_model(model)

    seeds = [_join([room.blob(name) if name != hub.WEIGHTS else packed for name in PARTS]) for packed in room.packs]
    old = make_format_1(Path(shutil.copytree(room.model_folder, room.folder / "old")))
    convert(old, room.folder / "converted")
    old_seeds = [_join([(room.folder / at / name).read_bytes() for name in PARTS]) for at in ("old", "converted")]
    return Reader([*map(_signed, seeds + old_seeds)], _mutate_folder, read, ModelFileError, 30)


def _check_model(model: hub.Model) -> None:
    """Raises unless whoever computes with a model finds what its configuration says: kernels check no bounds."""
    config = model.config
    for name, shape in shapes(config).items():
        array = unpack_one(model.packed, name)
        assert (array.shape, array.dtype) == (shape, np.float32), name
        assert np.isfinite(array).all(), name
        numbers = np.asarray(operand(model.packed, name))
        assert numbers.shape in (shape, shape[::-1] if sums_over_first(name) else shape), name
        if tensors(config)[name].divides:
            found, _ = integers(model.packed, name, blocks=tensors(config)[name].blocks)
            assert found.size == array.size, name
    for name in adaptable_names(config):
        rates = 1 / (np.float64(model.grad_rms[name]) + 1e-12)
        assert np.isfinite(np.broadcast_to(rates, config.n_blocks if tensors(config)[name].blocks else 1)).all(), name
    assert model.base().keys() == model.adaptable.keys() <= model.operands.keys()


def _join(parts: Sequence[bytes]) -> bytes:
    return b"".join(len(part).to_bytes(4, "little") + part for part in parts)


def _split(blob: bytes) -> list[bytes]:
    parts, at = [], 0
    while at < len(blob):
        end = at + 4 + int.from_bytes(blob[at : at + 4], "little")
        parts.append(blob[at + 4 : end])
        at = end
    return parts


def _signed(blob: bytes) -> bytes:
    """The folder with the digests of its files in its manifest, if that can have any."""
    first, *rest = _split(blob)
    try:
        manifest = json.loads(first)
        digests = {file: hashlib.sha256(part).hexdigest() for file, part in zip(hub.FILES, rest, strict=True)}
        first = json.dumps(manifest | {"sha256": digests}).encode("utf-8", "surrogatepass")
    except (ValueError, TypeError, RecursionError):
        pass
    return _join([first, *rest])


def _mutate_folder(rng: random.Random, blob: bytes, other: bytes) -> bytes:
    parts, material = _split(blob), _split(other)
    for at in rng.sample(range(len(parts)), rng.choice((1, 1, 2))):
        how = m.mutate_tensors if PARTS[at].endswith(".safetensors") else m.mutate_json
        parts[at] = how(rng, parts[at], material[at])
    return _signed(_join(parts))
