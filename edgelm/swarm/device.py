"""A round on a device: the shared layer is checked, the own log is replayed on it, and what that changed is the update.

The profile is only read while the log is replayed, so that its owner can talk meanwhile. Then the layer is put beneath
the log in one transaction, with the replayed weights beside it where the log is still the same.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from edgelm.errors import InputError, ModelFileError, ProfileError
from edgelm.learn.layering import check_layers
from edgelm.log.entry import CHECKPOINT, WORDLESS
from edgelm.log.packs import Pack, keep, load_layers, path_of, read_pack
from edgelm.log.profile import Profile
from edgelm.model import hub, tensorfile
from edgelm.model.hub import Model
from edgelm.model.layers import Layer
from edgelm.model.weights import Weights
from edgelm.runtime import Engine, EngineOptions, models_dir, packs_dir, profiles_dir
from edgelm.swarm.update import UpdateConfig, outgoing
from edgelm.swarm.wire import LAYER, to_blob


@dataclass(frozen=True)
class Ledger:
    """What a profile has given to swarms, kept beside it; it says nothing of its words.

    Attributes
    ----------
    address : str
        Of the server that was asked last.
    rounds : int
        In how many an update was sent.
    bytes_sent : int
        Of these updates.
    last_round : int
        Number of the last one.
    layer : str
        SHA-256 of the shared layer that was taken last.
    refused : str
        Why the last layer was not taken, if it was not.
    time : float
        Of the last change, seconds since 1970.
    """

    address: str = ""
    rounds: int = 0
    bytes_sent: int = 0
    last_round: int = 0
    layer: str = ""
    refused: str = ""
    time: float = 0.0


def ledger_path(folder: Path, profile: str) -> Path:
    """Where the ledger of a profile lies in the folder of the swarm."""
    return folder / f"{profile}.json"


def read_ledger(path: Path) -> Ledger:
    """The ledger in a file; an empty one where there is none.

    Raises
    ------
    InputError
        The file holds anything else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        kinds = {name: type(value) for name, value in asdict(Ledger()).items()}
        if {name: type(value) for name, value in found.items()} != kinds:
            raise ValueError
        return Ledger(**found)
    except FileNotFoundError:
        return Ledger()
    except (ValueError, AttributeError, OSError):
        raise InputError(f"{path}: damaged; move it away, it only says what was sent so far") from None


def write_ledger(path: Path, ledger: Ledger) -> None:
    """Keeps a ledger, atomically; raises ``OSError``."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    tensorfile.replace(path, [json.dumps(asdict(ledger)).encode()])


@dataclass(frozen=True)
class Device:
    """A profile that takes part.

    Parameters
    ----------
    options : EngineOptions
        Whose model and profile.
    config : UpdateConfig
        How updates are made; the device decides that, not the server.
    rng : numpy Generator
        Of the noise.
    rest : callable
        Called after every segment that is replayed: waits while the device is too warm, and raises to break off.
    """

    options: EngineOptions
    config: UpdateConfig
    rng: np.random.Generator
    rest: Callable[[], None] = field(default=lambda: None)

    def model(self) -> Model:
        """The model, not in use by anything."""
        return hub.load(self.options.model, models_dir())

    def _folder(self) -> Path:
        return self.options.profiles or profiles_dir()

    def check(self) -> None:
        """Raises ``ProfileError`` if the profile can have no layers: of another model, or with words not kept."""
        store = Profile(self._folder(), self.options.profile, self.model(), writable=False)
        store.close()
        if any(entry.kind in WORDLESS for entry in store.entries):
            raise ProfileError(
                f"the words of some entries of profile {store.name!r} were not kept, so that it cannot be replayed on "
                "a shared layer; use another one: --profile NAME"
            )

    def layer(self) -> str:
        """SHA-256 of the shared layer beneath the log now, or empty."""
        store = Profile(self._folder(), self.options.profile, self.model(), writable=False, any_base=True)
        store.close()
        return next((layer.sha256 for layer in store.layers if layer.name == LAYER), "")

    def train(self, model_sha256: str, pack: bytes, *, gives: bool = True) -> bytes:
        """Takes the shared layer and returns the update, as ``to_blob`` has it; empty where nothing was learned.

        Parameters
        ----------
        model_sha256 : str
            Of the model that the server serves.
        pack : bytes
            The file of a pack; empty: no layer yet.
        gives : bool
            Without it nothing is returned: the layer is taken alone.

        Raises
        ------
        InputError, ModelFileError, ProfileError
            It is one of another model, damaged, makes general text worse, or the profile cannot be used; then all is
            as it was.
        """
        model = self.model()
        if model.sha256 != model_sha256:
            raise InputError(f"the server's model is another one than {model.name!r}")
        shared = [self._read(pack, model).layer] if pack else []
        change = self.learn(model, shared, pack)
        return to_blob(outgoing(change, model, self.config, self.rng)) if change and gives else b""

    def learn(self, model: Model, shared: list[Layer], pack: bytes) -> Weights:
        """Puts the shared layer beneath the log; what the log changes on top of it (``Engine.learned_change``).

        Parameters
        ----------
        model : Model
        shared : list of Layer
            That of ``pack``, or none.
        pack : bytes
            The file that it came as.

        Raises
        ------
        ModelFileError, ProfileError
            As ``train`` does.
        """
        store = Profile(self._folder(), self.options.profile, model, writable=False)
        store.close()
        others = load_layers(packs_dir(), [layer for layer in store.layers if layer.name != LAYER], model)
        layers = [*shared, *others]
        with Engine(replace(self.options, layers=tuple(layers)), writable=False) as engine:
            if shared:
                check_layers(engine.adaptation, layers)
                self._keep(pack, model)
            engine.adaptation.catch_up(lambda _: self.rest())
            entries = list(engine.adaptation.entries)
            change = engine.learned_change()
            # A checkpoint is of use where the log ends at one: the weights are rounded there.
            ends = bool(entries) and entries[-1].kind == CHECKPOINT
            tensors = engine.adaptation.replay.round_to_checkpoint() if ends else None
        self._put(layers, [entry.id for entry in entries], tensors)
        return change

    def _read(self, pack: bytes, model: Model) -> Pack:
        """A pack that came from outside, compared with what edgelm writes; nothing of it is kept."""
        with _file_of(pack) as path:
            found = read_pack(path, model)
        if found.name != LAYER:
            raise InputError(f"the server's layer is called {found.name!r}, not {LAYER!r}")
        if found.text:
            raise InputError("the server's layer holds texts; what a swarm shares are weights alone")
        return found

    def _keep(self, pack: bytes, model: Model) -> None:
        with _file_of(pack) as path:
            keep(packs_dir(), path, model)

    def _put(self, layers: list[Layer], entry_ids: list[int], tensors: Weights | None) -> None:
        """Puts the layers beneath the log, if nobody is using it; the next round comes otherwise."""
        store = Profile(self._folder(), self.options.profile, self.model(), writable=True)
        try:
            before = store.layers
            if before == tuple(layers):
                return
            store.set_layers(layers)
            if tensors is not None and [entry.id for entry in store.entries] == entry_ids:
                store.write_checkpoint(tensors)
        finally:
            store.close()
        for layer in before:
            if layer.name == LAYER and not self._is_used(layer.sha256):
                path_of(packs_dir(), layer.sha256).unlink(missing_ok=True)

    def _is_used(self, sha256: str) -> bool:
        """Whether a layer lies beneath any profile here."""
        model = self.model()
        for path in self._folder().glob("*.db"):
            try:
                store = Profile(self._folder(), path.stem, model, writable=False, any_base=True)
            except ProfileError:
                return True
            store.close()
            if sha256 in {layer.sha256 for layer in store.layers}:
                return True
        return False


@contextmanager
def _file_of(blob: bytes) -> Iterator[Path]:
    """A file that is there for a moment."""
    try:
        with tempfile.TemporaryDirectory(prefix="edgelm-") as folder:
            path = Path(folder) / "layer"
            path.write_bytes(blob)
            yield path
    except OSError as exc:
        raise ModelFileError(f"the shared layer cannot be written ({exc.strerror})") from None


def noted(ledger: Ledger, **changes: str | int | float) -> Ledger:
    """The ledger with changes, made now."""
    return replace(ledger, time=time.time(), **changes)  # type: ignore[arg-type]
