"""Makes kernels of plain functions; the only import of numba and of its llvmlite, and the only place of flags.

One source has three uses: compiled ahead of time, in a library that came with the wheel; compiled by numba when it is
first called; run as it stands. ``EDGELM_KERNELS`` says which (aot, jit, python, or a folder of libraries), else there
is a library for this processor or not. Nobody who has the library waits for numba, or has it at all.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

from edgelm.config import kernel_choice
from edgelm.errors import DeviceError
from edgelm.kernels import aot
from edgelm.kernels.signature import Argument, Kind

F = TypeVar("F", bound=Callable[..., Any])

# Reassociation lets sums vectorise; NaN and infinity keep their meaning, because divergence is found by them.
_FASTMATH = {"reassoc", "contract", "arcp", "nsz"}


class Entry(NamedTuple):
    """A kernel that is called from Python: its symbol, itself, and what it takes and gives back."""

    symbol: str
    function: Callable[..., Any]
    takes: tuple[Argument, ...]
    returns: tuple[Kind, ...]


_entries: list[Entry] = []


def kernel(function: F) -> F:
    """A loop that other kernels call; it releases the GIL while it runs."""
    if _compile is None:
        return function
    return cast(F, _compile(function))


def lowered(emit: Callable[..., None], literals: int) -> Callable[[F], F]:
    """A function that ``emit(context, builder, literals, types, values)`` writes as LLVM's code where kernels are
    compiled; elsewhere it runs as it stands. Its first ``literals`` arguments are constants of the source; it returns
    nothing."""

    def decorate(function: F) -> F:
        # With NUMBA_DISABLE_JIT functions come back as they are, but an intrinsic could not be called.
        if _compile is None or _compile(function) is function:
            return function
        from numba.core import types
        from numba.extending import intrinsic

        def typer(typingctx: Any, *given: Any) -> Any:
            def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
                constants = [kind.literal_value for kind in given[:literals]]
                emit(context, builder, constants, signature.args[literals:], values[literals:])
                return context.get_dummy_value()

            return types.void(*given), generate

        # numba asks for as many parameters as the function has.
        names = ", ".join(inspect.signature(function).parameters)
        made: dict[str, Any] = {"typer": typer}
        exec(f"def {function.__name__}(typingctx, {names}): return typer(typingctx, {names})", made)
        return cast(F, intrinsic(prefer_literal=True)(made[function.__name__]))

    return decorate


def instructions() -> Any:
    """What writes LLVM's code, for an ``emit`` of ``lowered``: it comes with numba, and is there where kernels are
    compiled."""
    from llvmlite import ir

    return ir


def entry(*takes: Argument, returns: tuple[Kind, ...] = ()) -> Callable[[F], F]:
    """A kernel that Python calls, with these arguments; several numbers are returned as a tuple."""

    def decorate(function: F) -> F:
        symbol = f"{function.__module__.rpartition('.')[2]}_{function.__name__}"
        made = _library.bind(symbol, function, takes, returns) if _library is not None else kernel(function)
        _entries.append(Entry(symbol, made, takes, returns))
        return cast(F, made)

    return decorate


def record(calls: Callable[[], None]) -> Callable[[], None]:
    """Makes calls of kernels, and returns what makes them again with the same arrays: in one, where kernels come from a
    library, else ``calls`` itself. It must do nothing but call kernels that return nothing."""
    if _library is not None:
        return _library.record(calls)
    calls()
    return calls


def entries() -> list[Entry]:
    """All entry points, in the order of their modules' names; what a library is compiled from."""
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        importlib.import_module(f"{__package__}.{module.name}")
    return sorted(_entries, key=lambda entry: entry.function.__module__)


def _find_compiler() -> Callable[[Any], Any] | None:
    """numba, if it is to compile."""
    if _library is not None or kernel_choice() == "python":
        return None
    try:
        from numba import njit
    except ImportError:
        raise DeviceError(
            "no compiled kernels fit this processor (or EDGELM_KERNELS=jit), and numba, which would compile them, "
            "is not installed; install edgelm[jit]"
        ) from None
    return cast(
        Callable[[Any], Any], njit(cache=True, nogil=True, error_model="numpy", fastmath=_FASTMATH, boundscheck=False)
    )


_path = aot.choose()
_library = None if _path is None else aot.Library(_path)
_compile = _find_compiler()
