"""What neurons write, as integers that stay as they are and the change that learning made of them, in float16.

A row of float32 beside integers that are kept anyway is four bytes a number; its change to them, as a checkpoint of a
profile holds it, is two. A page of memory in which no row was ever changed is never touched, and takes none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from edgelm.matrices.matrix import Int8, as_matrix
from edgelm.matrices.pages import untouched
from edgelm.matrices.quantize import BLOCK

Array = np.ndarray
_ROWS = 64
"""Rows that are made float32 at a time."""
_NUMBERS = 1 << 16
"""Numbers of neuron blocks that are made float32 at a time."""


class ChangedRows:
    """A matrix W' [F,D], a row for each neuron; a ``Matrix`` whose rows may be written to.

    ``np.asarray`` makes a new array of float32 of it, an index new arrays of rows; what is written to an index is kept
    as the difference to the integers, rounded to float16.

    Parameters
    ----------
    base : Int8
        Read; not copied.
    on_read : callable, optional
        Called when rows of the base were read that are not needed for a while: whoever keeps them in a mapped file can
        give their pages back.

    Attributes
    ----------
    change : ndarray [F,D] of float16
        Updated in place by whoever learns.
    """

    dtype = np.dtype(np.float32)
    ndim = 2

    def __init__(self, base: Int8, on_read: Callable[[], None] | None = None) -> None:
        self._base, self.shape = base, base.q.shape
        self.on_read = on_read or (lambda: None)
        self.change = untouched(self.shape, np.float16)

    def __len__(self) -> int:
        return len(self.change)

    @property
    def nbytes(self) -> int:
        """As of ``Matrix``."""
        return self._base.nbytes + self.change.nbytes

    @property
    def halves(self) -> Array:
        """The bits of ``change``, [F,D] of uint16: the same memory."""
        return self.change.view(np.uint16)

    def product(self, x: Array, workspace: Array, out: Array) -> Array:
        """As of ``Matrix``."""
        from edgelm.kernels import dense

        dense.product_along_changed(x, self._base.q, self._base.scale, self.halves, workspace, out)
        self.on_read()
        return out

    def product_back(self, dy: Array, workspace: Array, out: Array) -> Array:
        """As of ``Matrix``. Rows of neurons that sleep, for which dy is 0, are not read."""
        from edgelm.kernels import dense

        dense.product_over_changed(dy, self._base.q, self._base.scale, self.halves, workspace, out)
        self.on_read()
        return out

    def rows(self, ids: Array) -> Array:
        """As of ``Matrix``."""
        from edgelm.kernels import neurons

        found = np.empty((len(ids), self.shape[1]), np.float32)
        base = self._base
        neurons.changed_rows(base.q, base.scale, self.halves, np.ascontiguousarray(ids, np.int64), found)
        return found

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> Array:
        found = self.rows(np.arange(len(self)))
        self.on_read()
        return found.astype(dtype or np.float32, copy=False)

    def __getitem__(self, key: Any) -> Array:
        ids = np.arange(len(self))[key]
        found = self.rows(np.atleast_1d(ids))
        return found if np.ndim(ids) else found[0]

    def __setitem__(self, key: Any, values: Any) -> None:
        ids = np.atleast_1d(np.arange(len(self))[key])
        given = np.broadcast_to(np.asarray(values, np.float32), (len(ids), self.shape[1]))
        for first in range(0, len(ids), _ROWS):
            part = slice(first, first + _ROWS)
            with np.errstate(over="ignore"):
                self.set_rows(ids[part], (given[part] - self._base.rows(ids[part])).astype(np.float16))

    def set_rows(self, ids: Array, change: Array) -> None:
        """Makes the change of the rows ``ids`` [N] this one, [N,D] of float16; rows that have it are not touched."""
        differ = (self.halves[ids] != change.view(np.uint16)).any(1)
        self.change[ids[differ]] = change[differ]

    def set_change(self, change: Array | None, ids: Array | None = None) -> None:
        """Makes the change this one: of the rows ``ids``, and none of the others; without ``ids`` of all rows."""
        ids = np.arange(len(self)) if ids is None and change is not None else ids
        left = np.ones(len(self), bool)
        if change is not None and ids is not None:
            left[ids] = False
        for rows in _parts(np.flatnonzero(left)):
            self.change[rows[self.halves[rows].any(1)]] = 0
        if change is not None and ids is not None:
            for place in _parts(np.arange(len(ids))):
                self.set_rows(ids[place], change[place])

    def copy(self) -> ChangedRows:
        """Another one on the same base, with the same change."""
        other = ChangedRows(self._base, self.on_read)
        other.set_change(self.change)
        return other

    def shrink(self, kept: float) -> None:
        """Multiplies the change by ``kept``."""
        for rows in _parts(np.arange(len(self))):
            rows = rows[self.halves[rows].any(1)]
            self.change[rows] = (self.change[rows].astype(np.float32) * np.float32(kept)).astype(np.float16)


def _parts(ids: Array) -> Iterator[Array]:
    return (ids[first : first + _ROWS] for first in range(0, len(ids), _ROWS))


def change_of(weight: Any, base: Any, ids: Array | None = None) -> Array:
    """The difference of a tensor that learns to its base, or of the blocks ``ids`` of it: float16 where it is kept so,
    and then maybe a view of it; else a new array of float32."""
    if isinstance(weight, ChangedRows):
        return weight.change if ids is None else weight.change[ids]
    if ids is None:
        return np.asarray(weight - base)
    return np.asarray(weight[ids] - as_matrix(base, -1).rows(ids))


def blocks_at_a_time(ids: Array, array: Array) -> Iterator[Array]:
    """``ids`` of blocks of an array in parts, so that a copy of a part in float32 takes little memory."""
    size = max(1, _NUMBERS // math.prod(array.shape[1:]))
    return (ids[first : first + size] for first in range(0, len(ids), size))


def set_change(weight: Any, base: Any, change: Array | None, ids: Array | None = None) -> None:
    """Makes a tensor that learns its base and a change of float16, in place: of the blocks ``ids``, or of all; None:
    none."""
    if isinstance(weight, ChangedRows):
        weight.set_change(change, ids)
        return
    if isinstance(base, np.ndarray):
        np.copyto(weight, base)
    else:
        for part in blocks_at_a_time(np.arange(len(weight)), weight):
            weight[part] = as_matrix(base, -1).rows(part)
    if change is not None:
        for part in blocks_at_a_time(np.arange(len(change)), change):
            weight[part if ids is None else ids[part]] += change[part].astype(np.float32)


def pull(weight: Any, base: Any, share: np.float32) -> None:
    """Moves a tensor that learns this share of the way to its base, in place."""
    if isinstance(weight, ChangedRows):
        weight.shrink(float(1 - share))
    else:
        weight += share * (base - weight)


def copy_from(weight: Any, other: Any) -> None:
    """Makes a tensor that learns another one on the same base, in place."""
    if isinstance(weight, ChangedRows):
        weight.set_change(other.change)
    else:
        np.copyto(weight, other)


def quantize_into(weight: Any, used: Array, q: Array, scale: Array) -> None:
    """The ``used`` blocks [M] of bool of a tensor of float32 as integers q, of its shape, with scale [...,n/32]."""
    from edgelm.kernels.integers import quantize_blocks

    if isinstance(weight, ChangedRows):
        for ids in _parts(np.flatnonzero(used)):
            made, of_made = q[ids].reshape(len(ids), -1, BLOCK), scale[ids]
            quantize_blocks(weight.rows(ids).reshape(made.shape), np.ones(len(ids), bool), made, of_made)
            q[ids], scale[ids] = made.reshape(len(ids), -1), of_made
        weight.on_read()
        return
    n = len(weight)
    quantize_blocks(weight.reshape(n, -1, BLOCK), used, q.reshape(n, -1, BLOCK), scale.reshape(n, -1))
