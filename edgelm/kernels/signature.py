"""What an entry point takes and gives back, for compilation ahead of time; numba would find out at the first call.

A letter for the dtype, a digit for the dimensions of a C-contiguous array, none for a number.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


class Kind(NamedTuple):
    """An array of ``ndim`` dimensions, or, with none, a number."""

    dtype: str
    ndim: int

    def __str__(self) -> str:
        return f"a C-contiguous array of {self.dtype} [{self.ndim}D]" if self.ndim else f"a number ({self.dtype})"


Argument = Kind | tuple[Kind, ...]
DTYPES = ("float32", "float64", "int64", "int32", "uint16", "uint8", "bool")

F, F1, F2, F3, F4 = (Kind("float32", n) for n in range(5))
D, D1, D2 = (Kind("float64", n) for n in range(3))
I, I1, I2 = (Kind("int64", n) for n in range(3))  # noqa: E741
J1, J2, J4, J5 = (Kind("int32", n) for n in (1, 2, 4, 5))
W1, W2 = (Kind("uint16", n) for n in (1, 2))
U1, U2, U3, U4, U5 = (Kind("uint8", n) for n in range(1, 6))
B, B1 = (Kind("bool", n) for n in range(2))


def flat(arguments: tuple[Argument, ...]) -> Iterator[Kind]:
    """The arguments with the parts of tuples in their place."""
    for argument in arguments:
        if isinstance(argument, Kind):
            yield argument
        else:
            yield from argument
