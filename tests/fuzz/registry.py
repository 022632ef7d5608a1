"""Readers of what people hand over and keep (of models: ``readers.py``), and the table of all readers."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from edgelm.config import LearnConfig
from edgelm.errors import InputError, ModelFileError, ProfileError
from edgelm.learn.adaptation import Adaptation
from edgelm.learn.transfer import import_file
from edgelm.log.change import apply_change, misfit
from edgelm.log.database import misfit as misfit_of_entry
from edgelm.log.entry import CHAT, GOOD, Entry
from edgelm.log.folder import files_of
from edgelm.log.packs import read_card, read_pack
from edgelm.log.profile import Profile
from edgelm.measure.point import CHOICES, LONGEST, read_pairs
from edgelm.measure.recall import read_told
from edgelm.memory.bank import PackedExchanges
from edgelm.model import tensorfile
from edgelm.model.layers import with_layers
from edgelm.model.weights import Weights
from edgelm.text.files import MAX_BYTES, pieces, read_file
from edgelm.text.secrets import without_secrets
from tests.convert import checkpoints as containers
from tests.fuzz import foreign, readers, serving
from tests.fuzz import mutations as m
from tests.fuzz.readers import Reader, Room
from tests.learn.packed import make_pack

TEXTS = Path(__file__).parents[1] / "text"


def profiles(room: Room) -> Reader:
    """A profile's log: opened to be read, its entries listed; every eighth is opened for writing too."""
    folder = room.folder / "profiles"
    folder.mkdir(mode=0o700)
    with closing(Profile(folder, "me", room.model, writable=True)) as profile:
        for kind, text, parent in ((CHAT, "The ferry waits.", None), (CHAT, "Why?", None), (GOOD, "Fog.", 2)):
            profile.append(kind, text, time=1.5, conversation=1, parent=parent, progress="a:1:1")
        first = profile.path
    seeds = [first.read_bytes()]
    with closing(Profile(folder, "me", room.model, writable=True)) as profile:
        for number in range(20):
            profile.append(CHAT, f"Number {number}. " * 30, time=2.0, conversation=2)
        profile.remove([2])
    seeds.append(first.read_bytes())

    def read(blob: bytes) -> None:
        for path in files_of(folder, "me"):
            path.unlink()
        first.write_bytes(blob)
        first.chmod(0o600)
        for writable in (False, True)[: 1 + (sum(blob[-64:]) % 8 == 0)]:
            with closing(Profile(folder, "me", room.model, writable=writable)) as profile:
                _check_profile(profile)
            assert writable or [path.name for path in files_of(folder, "me")] == ["me.db"]

    return Reader(seeds, m.mutate_database, read, ProfileError, 80)


def _check_profile(profile: Profile) -> None:
    assert not any(misfit_of_entry(entry) for entry in profile.entries)
    ids = [entry.id for entry in profile.entries]
    assert ids == sorted(set(ids))
    assert isinstance(profile.progress, str)
    assert profile.checkpoint() is None
    assert profile.conversation() >= 1


def changes(room: Room) -> Reader:
    """A learned change as ``import_change`` looks at it before it computes with it: read, and ``misfit``."""
    model = room.model
    base, weights = model.base(), {name: array.copy() for name, array in model.adaptable.items()}

    def read(blob: bytes) -> None:
        tensors, _ = tensorfile.read(room.write("change.safetensors", blob))
        if name := misfit(tensors, model.config):
            raise ProfileError(f"damaged at {name!r}")
        apply_change(tensors, base, weights)

    return Reader(room.changes, m.mutate_tensors, read, (ModelFileError, ProfileError), 80)


class _Shelf:
    """Stands for a profile that ``import_change`` begins: it keeps the last entry and its tensors in memory."""

    name, path = "me", Path("me.db")

    def __init__(self, base: str) -> None:
        self.base = self.identity = base
        self.entries: list[Entry] = []
        self.tensors: Weights = {}

    def append(self, kind: str, *, time: float, note: str, tensors: Weights) -> Entry:
        """An entry, durable or not."""
        self.tensors = tensors
        self.entries = [Entry(1, time, kind, "", note=note)]
        return self.entries[0]

    def checkpoint(self) -> tuple[int, Weights, dict[str, str]] | None:
        """That of the entry."""
        return (1, dict(self.tensors), {}) if self.entries else None


def imported_changes(room: Room) -> Reader:
    """``import_file`` of a learned change."""
    shelf: Any = _Shelf(room.model.sha256)
    adaptation = Adaptation(room.model, shelf, LearnConfig(), lambda: 1.0)
    adaptation.base  # noqa: B018

    def read(blob: bytes) -> None:
        shelf.entries = []
        adaptation.load_checkpoint()
        import_file(adaptation, room.write("change.safetensors", blob))
        assert len(adaptation.entries) == 1
        assert not adaptation.pending

    return Reader(room.changes, m.mutate_tensors, read, (ModelFileError, ProfileError), 2)


def packs(room: Room) -> Reader:
    """A pack: its card and its changes, as they are read before anything is computed with them."""
    seeds = []
    for seed in (1, 2):
        make_pack(room.folder / "pack.safetensors", room.model, seed)
        seeds.append((room.folder / "pack.safetensors").read_bytes())

    def read(blob: bytes) -> None:
        pack = read_pack(room.write("pack.safetensors", blob), room.model)
        assert pack == read_card(room.folder / "pack.safetensors")
        for name, array in room.model.bare().items():
            assert np.isfinite(np.asarray(with_layers(array, name, [pack.layer]))).all()

    return Reader(seeds, m.mutate_tensors, read, ModelFileError, 40)


def imported_logs(room: Room) -> Reader:
    """``import_file`` of another profile's ``.db`` into a profile that is thrown away."""
    seeds = profiles(room).seeds
    folder = room.folder / "source"
    folder.mkdir(mode=0o700)

    def read(blob: bytes) -> None:
        (folder / "other.db").write_bytes(blob)
        place = room.folder / "begun"
        with closing(Profile(place, "me", room.model, writable=True)) as profile:
            try:
                adaptation = Adaptation(room.model, profile, LearnConfig(), lambda: 1.0)
                import_file(adaptation, folder / "other.db")
                _check_profile(profile)
            finally:
                profile.discard()

    return Reader(seeds, m.mutate_database, read, ProfileError, 10)


def banks(room: Room) -> Reader:
    """``PackedExchanges``, and every exchange of one that is accepted."""
    lines = [f"What is {a}?\t{a} is {b}.\n" for a, b in (("Lima", "a town"), ("née", "a word"), ("渡船", "a ferry"))]

    def read(blob: bytes) -> None:
        exchanges = PackedExchanges(blob)
        assert sum(len(said.encode()) + len(reply.encode()) + 2 for said, reply, _ in exchanges) == len(blob)

    return Reader(["".join(lines).encode(), lines[0].encode() * 9], m.mutate_bytes, read, ValueError, 600)


def _export(*turns: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]


def chat_exports(room: Room) -> Reader:
    """A ``.json`` file that ``adapt`` reads."""

    def read(blob: bytes) -> None:
        found = read_file(str(room.write("chat.json", blob)), io.BytesIO())
        assert all(line.startswith(("User: ", "Assistant: ", "<|doc|>")) for line in found.text.split("\n")[:-1])
        assert found.n_bytes == len(found.text.encode())

    one = _export("When does the ferry leave?", "At seven,\nif there is no fog.", "Née?", "渡船")
    other = [{"from": "human", "value": "Who?"}, {"from": "gpt", "text": "The baker.", "more": [1, 2.5, None]}]
    values: list[object] = [one, {"messages": one}, {"conversations": [one, other]}, [{"messages": other}, one]]
    return Reader([json.dumps(value).encode() for value in values], m.mutate_json, read, InputError, 400)


def _corpus() -> list[bytes]:
    """Texts with secrets and without, line by line, as the tests of the filter have them."""
    names = ("secrets_seen.txt", "secrets_later.txt", "harmless_seen.txt", "harmless_later.txt")
    found = [(TEXTS / name).read_text(encoding="utf-8").replace("⏎", "\n").replace("¦", "") for name in names]
    lines = [text.splitlines(keepends=True) for text in found]
    return ["".join(some[i : i + 12]).encode() for some in lines for i in range(1, min(len(some), 120), 12)]


def texts(room: Room) -> Reader:
    """What ``adapt`` reads from standard input, and the pieces that it is learned in."""

    def read(blob: bytes) -> None:
        found = read_file("-", io.BytesIO(blob))
        assert found.text.encode() == blob
        assert len(blob) == found.n_bytes <= MAX_BYTES
        for size in (4096, 50):
            parts = list(pieces(found.text, size))
            assert "".join(parts) == found.text
            assert all(0 < len(part) <= size for part in parts)

    return Reader(_corpus(), m.mutate_bytes, read, InputError, 800)


def facts(room: Room) -> Reader:
    """A file of facts for ``evaluate --suite recall``."""

    def read(blob: bytes) -> None:
        found = read_told(_text(blob), "facts.jsonl")
        assert found
        texts = [text for fact in found for text in (fact.told, fact.asked, fact.word) if text is not None]
        assert all(isinstance(text, str) and text.strip() for text in texts)

    lines = [
        {"told": f"The boat of {name} is called Heron.", "asked": "What is the boat called?", "word": "Heron"}
        for name in ("Ada", "Née", "渡船")
    ]
    seeds = ["\n".join(json.dumps(line) for line in lines).encode(), json.dumps(lines[0]).encode() + b"\n\n"]
    return Reader(seeds, m.mutate_lines, read, InputError, 700)


def pairs(room: Room) -> Reader:
    """A file of remarks and replies for ``evaluate --suite point``, of both kinds."""

    def read(blob: bytes) -> None:
        found = read_pairs(_text(blob), "pairs.jsonl")
        assert len(found) >= CHOICES
        assert all(isinstance(text, str) and text.strip() and len(text) <= LONGEST for pair in found for text in pair)

    said = [(f"I have {i} boats.", f"Are {i} boats enough?") for i in range(CHOICES + 4)]
    seeds = [
        "".join(json.dumps({"said": a, "reply": b}) + "\n" for a, b in said).encode(),
        "".join(f"User: {a}\nAssistant: {b}\n" for a, b in said).encode(),
    ]
    return Reader(seeds, m.mutate_lines, read, InputError, 250)


def _text(blob: bytes) -> str:
    """As the commands read a file before they look for facts in it."""
    return read_file("-", io.BytesIO(blob)).text


def secrets(room: Room) -> Reader:
    """The filter of secrets: it refuses nothing, and what is left is lines of the text in their order."""

    def read(blob: bytes) -> None:
        text = blob.decode("utf-8", "surrogateescape")
        left, n_gone = without_secrets(text)
        lines = text.splitlines(keepends=True)
        at = n_kept = 0
        for line in lines:  # not those of what is left: "a\r" and "\n" are one line once they stand together
            if left.startswith(line, at):
                at, n_kept = at + len(line), n_kept + 1
        assert at == len(left)
        assert n_kept >= len(lines) - n_gone

    return Reader(_corpus(), m.mutate_bytes, read, (), 80)


READERS: dict[str, Callable[[Room], Reader]] = {
    "tensors": readers.tensor_files,
    "config": readers.configurations,
    "manifest": readers.manifests,
    "tokenizer-spec": readers.specifications,
    "tokenizer": readers.tokenizers,
    "archive": readers.archives,
    "model": readers.model_folders,
    "pth": foreign.checkpoints(containers.pth, ".pth", foreign.mutate_pth),
    "gguf": foreign.checkpoints(containers.gguf, ".gguf", m.mutate_bytes),
    "safetensors": foreign.checkpoints(containers.safetensors, ".safetensors", m.mutate_tensors),
    "rwkv7": foreign.rwkv7,
    "profile": profiles,
    "change": changes,
    "import-change": imported_changes,
    "import-log": imported_logs,
    "pack": packs,
    "bank": banks,
    "chat-export": chat_exports,
    "text": texts,
    "facts": facts,
    "pairs": pairs,
    "secrets": secrets,
    "intents": serving.intents,
    "wyoming": serving.wyoming,
}
"""By name; a room serves one of them."""
