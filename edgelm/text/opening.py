"""Opens the ``tokenizer.json`` of a model, of whichever kind it is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgelm.errors import ModelFileError
from edgelm.text.byte_pairs import BytePairs
from edgelm.text.tokenizer import MAX_FILE_BYTES, Tokenizer, read_spec
from edgelm.text.world import KIND, LongestMatch

KINDS: dict[str, Callable[[dict[str, Any]], Tokenizer]] = {"BPE": BytePairs, KIND: LongestMatch}
"""By the ``type`` of the model that the file holds."""


def open_tokenizer(path: Path, sha256: str | None = None) -> Tokenizer:
    """The tokenizer of a file.

    Parameters
    ----------
    path : Path
        A ``tokenizer.json`` as ``tools/pretrain/tokenizer.py`` or ``edgelm.text.world.write_spec`` makes it.
    sha256 : str, optional
        What the SHA-256 of the file must be.

    Raises
    ------
    ModelFileError
        The file is missing, or is anything else than such a tokenizer.
    """
    try:
        with path.open("rb") as file:
            blob = file.read(MAX_FILE_BYTES + 1)
    except OSError as exc:
        raise ModelFileError(f"{path}: cannot be read ({exc.strerror}); is this a model folder?") from None
    if sha256 not in (None, hashlib.sha256(blob).hexdigest()):
        raise ModelFileError(f"{path}: altered or truncated (its SHA-256 is another one); get the model again")
    try:
        spec = read_spec(blob)
        kind = spec["model"].get("type")
        # What has no kind, or an unknown one, is told how it differs from the usual one.
        return KINDS.get(kind if isinstance(kind, str) else "", BytePairs)(spec)
    except ValueError as exc:
        raise ModelFileError(f"{path}: not a tokenizer of edgelm ({exc}); get the model again") from None
