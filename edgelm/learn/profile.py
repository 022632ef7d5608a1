"""The personal change: what learning did to the adaptable weights, kept in one file.

``NAME.safetensors`` holds, for each changed tensor, its difference to the base model in float16 (for
neuron blocks only those that changed, with their indices), the tokens that the fast memory counts and its
gates, and, as metadata, the base model's hash. It is replaced atomically; one process at a time may hold it
for writing.
"""

from __future__ import annotations

import fcntl
import os
import re
from pathlib import Path
from typing import IO

import numpy as np

from edgelm.errors import ModelFileError, ProfileError
from edgelm.model import tensorfile
from edgelm.model.hub import Model
from edgelm.model.weights import Weights, adaptable_names, shapes

FORMAT = "1"
MEMORY = ("memory.tokens", "memory.gates")
"""What the fast memory is rebuilt from: uint16 ids, and float64 gates."""
GATES = (6, 15, 2)
"""Shape of ``edgelm.learn.fast_memory.FastMemory.gates``, which this must not import: it loads the kernels."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Profile:
    """One profile of one model.

    Parameters
    ----------
    folder : Path
        Where profiles are kept; made, readable by its owner only, when first written.
    name : str
        Letters, digits, ``.``, ``_`` and ``-``.
    model : Model
    writable : bool
        Holds the profile against other writers until ``close``.

    Raises
    ------
    ProfileError
        The name is no good, another process holds it, it is damaged, or belongs to another model.
    """

    def __init__(self, folder: Path, name: str, model: Model, *, writable: bool) -> None:
        if not _NAME.fullmatch(name):
            raise ProfileError(f"profile name {name!r} must be letters, digits, '.', '_' or '-', at most 64")
        self.path, self._model = folder / f"{name}.safetensors", model
        self._lock: IO[bytes] | None = self._hold(folder, name) if writable else None
        self.tokens, self.progress = 0, ""
        self.memory: Weights = {}
        self._changes: Weights = {}
        try:
            if self.path.exists():
                self._read()
        except BaseException:
            self.close()
            raise

    def _hold(self, folder: Path, name: str) -> IO[bytes]:
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = (folder / f".{name}.lock").open("ab")
        except OSError as exc:
            raise ProfileError(
                f"{folder}: cannot be written ({exc.strerror}); set EDGELM_HOME or use --no-learn"
            ) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise ProfileError(f"profile {name!r} is in use by another edgelm; close it or use --profile") from None
        return lock

    def _read(self) -> None:
        try:
            changes, metadata = tensorfile.read(self.path)
        except ModelFileError as exc:
            raise ProfileError(f"profile {exc}; move the file away to start anew") from None
        if metadata.get("format") != FORMAT:
            raise ProfileError(f"{self.path}: profile format {metadata.get('format')!r}, this edgelm reads {FORMAT}")
        if metadata.get("base") != self._model.sha256:
            base = metadata.get("base_name")
            raise ProfileError(
                f"{self.path} was learned on another model ({base!r}); use that one, or another --profile"
            )
        memory = {name: changes.pop(name) for name in MEMORY if name in changes}
        if memory and not self._memory_fits(memory):
            raise ProfileError(f"{self.path}: damaged at its fast memory; move the file away to start anew")
        for name in changes:
            if not self._fits(name, changes):
                raise ProfileError(f"{self.path}: damaged at {name!r}; move the file away to start anew")
        self.memory = memory
        self._changes = changes
        try:
            self.tokens = int(metadata["tokens"])
        except (KeyError, ValueError):
            raise ProfileError(f"{self.path}: damaged metadata; move the file away to start anew") from None
        self.progress = metadata.get("progress", "")

    def _memory_fits(self, memory: Weights) -> bool:
        """Whether a memory may be handed to the kernels, which check no bounds."""
        if len(memory) < len(MEMORY):
            return False
        tokens, gates = (memory[name] for name in MEMORY)
        if tokens.dtype != np.uint16 or tokens.ndim != 1 or (tokens >= self._model.config.vocab_size).any():
            return False
        known = gates.dtype == np.float64 and gates.shape == GATES and np.isfinite(gates).all()
        return bool(known and ((gates[..., 0] >= 0) & (gates[..., 0] <= 1)).all())

    def _fits(self, name: str, changes: Weights) -> bool:
        """Whether one entry of a file is a change of an adaptable tensor, or the blocks of one."""
        tensor, config = name.removesuffix(".blocks"), self._model.config
        if tensor not in adaptable_names(config) or tensor not in changes:
            return False
        shape, blocks = shapes(config)[tensor], changes.get(tensor + ".blocks")
        if blocks is not None:
            # Rising, so that none is there twice.
            rising = blocks.dtype == np.int32 and blocks.ndim == 1 and (np.diff(blocks) > 0).all()
            if not rising or not ((blocks >= 0) & (blocks < shape[0])).all():
                return False
            shape = (len(blocks), *shape[1:])
        change = changes[tensor]
        return bool(change.dtype == np.float16 and change.shape == shape and np.isfinite(change).all())

    def apply(self, weights: Weights) -> None:
        """Adds the change to ``weights``, in place."""
        for name, change in self._changes.items():
            if name.endswith(".blocks"):
                continue
            blocks = self._changes.get(name + ".blocks")
            if blocks is None:
                weights[name] += change.astype(np.float32)
            else:
                weights[name][blocks] += change.astype(np.float32)

    def save(self, weights: Weights, base: Weights) -> int:
        """Writes the difference of ``weights`` to ``base``, and ``memory``; returns the bytes of the file.

        Raises
        ------
        ProfileError
            The disk is full or the folder cannot be written; the old file is untouched.
        """
        changes: Weights = dict(self.memory)
        for name in adaptable_names(self._model.config):
            change = weights[name] - base[name]
            if change.ndim == 3:
                blocks = np.flatnonzero(change.any((1, 2)))
                if not blocks.size:
                    continue
                changes[name + ".blocks"], change = blocks.astype(np.int32), change[blocks]
            elif not change.any():
                continue
            changes[name] = change.astype(np.float16)
        metadata = {"format": FORMAT, "base": self._model.sha256, "base_name": self._model.name}
        metadata |= {"tokens": str(self.tokens), "progress": self.progress}
        try:
            tensorfile.write(self.path, changes, metadata)
            return self.path.stat().st_size
        except OSError as exc:
            raise ProfileError(
                f"{self.path}: cannot be written ({os.strerror(exc.errno or 0)}); nothing was lost"
            ) from None

    def close(self) -> None:
        """Lets other processes write."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None
