"""A file of tensors that is used where it lies: one copy of the weights for all processes, and none in their memory.

What is checked is what is used: the SHA-256 is that of the mapping itself, not of another reading of the file. From
then on the file must stay as it is. One that is replaced, by a file of the same name that is moved into its place, may
be: the mapping keeps the old one. One that is written into would change the numbers after they were checked, and one
that is cut short would end the process (SIGBUS) at the first use of a page that is gone. Only its owner can do either;
edgelm never does: ``hub.write_model`` and ``store.pull`` move whole files or folders into place. A model on a medium
that is pulled out while it is used ends the process in the same way.
"""

from __future__ import annotations

import copy
import hashlib
import mmap
import os
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from edgelm.errors import ModelFileError
from edgelm.model.packing import has_narrow_scale
from edgelm.model.tensorfile import PADDING, Place, altered, open_file, read_head

Array = np.ndarray


_PIECE = 32 << 20
"""Bytes of a file that are looked at before the system may have their memory back."""


def _release(pages: mmap.mmap, start: int, size: int) -> None:
    if hasattr(mmap, "MADV_DONTNEED"):
        pages.madvise(mmap.MADV_DONTNEED, start, size)


def _digest(pages: mmap.mmap) -> str:
    """SHA-256 of a mapping, of which no more than a piece is in this process's memory at a time."""
    total = hashlib.sha256()
    with memoryview(pages) as whole:
        for start in range(0, len(whole), _PIECE):
            with whole[start : start + _PIECE] as piece:
                total.update(piece)
                size = len(piece)
            _release(pages, start, size)
    return total.hexdigest()


class MappedFile(Mapping[str, Array]):
    """The tensors of a file by name: read-only views of its pages, which the system shares between processes.

    A tensor of BF16, or one that does not begin at a multiple of its numbers' size, is a copy. So are the scales of
    int8 matrices, which are float16 in the file and float32 for whoever computes.

    Parameters
    ----------
    path : Path
    sha256 : str
        What the SHA-256 of the file must be.

    Attributes
    ----------
    metadata : dict of str

    Raises
    ------
    ModelFileError
        The file is missing, truncated, another one, or no safetensors file, or its file system cannot map it.
    """

    def __init__(self, path: Path, sha256: str) -> None:
        self._file = open_file(path)
        weakref.finalize(self, self._file.close)
        size = os.fstat(self._file.fileno()).st_size
        if not size:
            raise altered(path)
        try:
            pages = self._mapping = mmap.mmap(self._file.fileno(), size, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as exc:
            raise ModelFileError(f"{path}: cannot be mapped ({exc}); put it on another file system") from None
        if _digest(pages) != sha256:
            raise altered(path)
        head = read_head(pages.read, size, path)
        self._pages, self.metadata = np.frombuffer(pages, np.uint8), head.metadata
        self._places: dict[str, tuple[int, Place]] = {}
        self._widened: dict[str, Array] = {}
        at = len(head.blob)
        for name, place in head.places.items():
            if not name.startswith(PADDING):
                self._places[name] = (at, place)
            at += place.size

    def release_of(self, name: str) -> None:
        """As ``release``, of the pages of one tensor alone."""
        at, place = self._places[name]
        first, last = -(-at // mmap.PAGESIZE), (at + place.size) // mmap.PAGESIZE
        if last > first:
            _release(self._mapping, first * mmap.PAGESIZE, (last - first) * mmap.PAGESIZE)

    def release(self) -> None:
        """Lets the system have the pages until they are read again, then from where it keeps the file."""
        _release(self._mapping, 0, len(self._mapping))
        # Where the scales of a matrix are still in use, those who use them have them.
        self._widened.clear()

    def private(self) -> Mapping[str, Array]:
        """The same tensors in arrays that may be written to: a page is copied when it is written for the first time,
        and is this process's own then. Every call maps the file anew."""
        private = mmap.mmap(self._file.fileno(), self._pages.size, access=mmap.ACCESS_COPY)
        other = copy.copy(self)
        other._pages, other._widened = np.frombuffer(private, np.uint8), {}
        return other

    def __getitem__(self, name: str) -> Array:
        if name in self._widened:
            return self._widened[name]
        at, place = self._places[name]
        blob = self._pages[at : at + place.size]
        array = place.numbers(blob if at % 8 == 0 else blob.copy())
        if has_narrow_scale(name, array.dtype, self._places):
            array = self._widened[name] = array.astype(np.float32)
        array.flags.writeable = self._pages.flags.writeable
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)
