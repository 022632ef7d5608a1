"""The only import of numba, and the only place of its flags."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

F = TypeVar("F", bound=Callable[..., Any])

# Reassociation lets sums vectorise; NaN and infinity keep their meaning, because divergence is found by them.
_FASTMATH = {"reassoc", "contract", "arcp", "nsz"}


def kernel(function: F) -> F:
    """Compiles a loop at first use, caches it on disk, and releases the GIL while it runs."""
    compile_ = njit(cache=True, nogil=True, error_model="numpy", fastmath=_FASTMATH, boundscheck=False)
    return cast(F, compile_(function))
