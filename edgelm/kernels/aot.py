"""Kernels out of a library that was compiled ahead of time (``edgelm/kernels/compiler``), called through ctypes.

An array is handed over as the address of its Python object. The library reads its dtype, shape and data from there,
as every extension module does by the macros of numpy's C interface (``PyArrayObject_fields``), and refuses what does
not fit: to ask for the address of the data in Python takes 2 us an array, as long as the kernel may run.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import struct
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgelm import ports
from edgelm.config import kernel_choice
from edgelm.errors import DeviceError
from edgelm.kernels.signature import DTYPES, Argument, Kind, flat

FOLDER = Path(__file__).parent / "compiled"
"""Where a wheel has its libraries."""
CHAIN, GIVEN = "chain", "_given"
"""The function of a library that makes many calls, and how the names end of those that take their arguments as words of
64 bits."""
_RAISED = -1


def find(folder: Path) -> Path | None:
    """The library for this processor, if a folder has one and this Python can use it."""
    level = ports.level_of_this_processor(path.stem for path in folder.glob("*.so"))
    return folder / f"{level}.so" if level is not None and _layout_is_known() else None


@functools.cache
def made_here() -> Path:
    """The folder of a library that is compiled from these sources; of others there is another one."""
    package, digest = Path(__file__).parent, hashlib.sha256()
    for path in [*sorted(package.rglob("*.py")), ports.FOLDER / "levels.toml"]:
        digest.update(path.read_bytes())
    return package / "__pycache__" / f"kernels-{digest.hexdigest()[:16]}"


def choose() -> Path | None:
    """The library that kernels come from, as ``EDGELM_KERNELS`` or what is there says; None if from none.

    Raises
    ------
    DeviceError
        There shall be one, and is none.
    """
    choice = kernel_choice()
    if choice in ("jit", "python"):
        return None
    path = find(choice) if isinstance(choice, Path) else find(FOLDER) or find(made_here())
    if choice is not None and path is None:
        place = "this installation" if choice == "aot" else "that folder"
        raise DeviceError(f"EDGELM_KERNELS={choice}: {place} has no compiled kernels for this processor; unset it")
    return path


def in_use() -> str:
    """How kernels run here: the level of the library, ``jit`` or ``python``."""
    path = choose()
    return path.stem if path is not None else str(kernel_choice() or "jit")


class Library:
    """The compiled kernels.

    Parameters
    ----------
    path : Path
        A library that ``edgelm.kernels.compiler`` made.

    Raises
    ------
    DeviceError
        The system refuses to load it.
    """

    def __init__(self, path: Path) -> None:
        try:
            # A call through CDLL releases the GIL, as a compiled kernel shall.
            self._functions = ctypes.CDLL(str(path))
        except OSError as exc:
            raise DeviceError(f"{path}: cannot be loaded ({exc}); is its file system mounted noexec?") from None
        # What the library compares objects with: words before the fields of an array, its type, its dtypes.
        words = [object.__basicsize__ // 8, id(np.ndarray), *(id(np.dtype(name)) for name in DTYPES)]
        self._layout = (ctypes.c_int64 * len(words))(*words)
        self._chain = self._functions[CHAIN]
        self._chain.restype, self._chain.argtypes = ctypes.c_int64, [ctypes.c_void_p, ctypes.c_int64]
        self._recording: Chain | None = None
        self._lock = threading.Lock()

    def record(self, calls: Callable[[], None]) -> Chain:
        """Makes calls of kernels that return nothing, and keeps them; those of other threads are left out."""
        chain = Chain(self._chain)
        with self._lock:
            self._recording = chain
            try:
                calls()
            finally:
                self._recording = None
        chain.end()
        return chain

    def bind(
        self, symbol: str, function: Callable[..., Any], takes: tuple[Argument, ...], returns: tuple[Kind, ...]
    ) -> Callable[..., Any]:
        """What stands for ``function``; it raises TypeError for arguments that ``takes`` does not describe."""
        compiled, layout, kinds = self._functions[symbol], self._layout, [*flat(takes)]
        compiled.restype = ctypes.c_int64
        compiled.argtypes = [ctypes.c_void_p, ctypes.c_void_p, *map(_c_type, kinds)]
        has_tuples, room = len(kinds) != len(takes), ctypes.c_double * len(returns)
        convert = [float if kind.dtype[:5] == "float" else int for kind in returns]
        words = (ctypes.cast(self._functions[symbol + GIVEN], ctypes.c_void_p).value, ctypes.addressof(layout))

        @functools.wraps(function)
        def call(*args: Any) -> Any:
            given = _flat(args) if has_tuples else args
            if len(given) != len(kinds):
                raise TypeError(f"{symbol}: expected {len(kinds)} arguments, tuples opened, found {len(given)}")
            out = room() if returns else None
            status = compiled(layout, out, *given)
            if status:
                _refuse(symbol, status, kinds, given)
            recording = self._recording
            if recording is not None:
                recording.add(call, words, kinds, args)
            if out is None:
                return None
            values = tuple(kind(value) for kind, value in zip(convert, out, strict=True))
            return values if len(values) > 1 else values[0]

        return call


class Chain:
    """Calls of kernels that are made again as one: with the same arrays, whatever these hold by then, and the same
    numbers. Python's global lock is given up once, and nothing is made of objects.

    Parameters
    ----------
    chain : function
        ``CHAIN`` of the library.
    """

    def __init__(self, chain: Any) -> None:
        self._chain, self._thread = chain, threading.get_ident()
        self._calls: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
        self._words: list[Any] = []
        self._table: Any = None

    def add(self, call: Callable[..., Any], words: tuple[Any, int], kinds: list[Kind], args: tuple[Any, ...]) -> None:
        """Keeps a call, with all that it was given, if this thread makes it."""
        if threading.get_ident() != self._thread:
            return
        given = [_word(kind, value) for kind, value in zip(kinds, _flat(args), strict=True)]
        self._calls.append((call, args))
        self._words.append((*words, (ctypes.c_int64 * len(given))(*given)))

    def end(self) -> None:
        """No more calls come."""
        rows = [(function, layout, ctypes.addressof(given)) for function, layout, given in self._words]
        self._table = (ctypes.c_int64 * (3 * len(rows)))(*(word for row in rows for word in row))

    def __call__(self) -> None:
        """Makes the calls; raises as the first of them would that is refused."""
        refused = self._chain(self._table, len(self._calls))
        if refused:
            call, args = self._calls[refused - 1]
            call(*args)
            raise RuntimeError("a chain of kernels was refused where each of its calls is not")


def _word(kind: Kind, value: Any) -> int:
    """What a kernel is given as a word: the address of an array, a whole number, or the bits of a double."""
    if kind.ndim:
        return id(value)
    if kind.dtype.startswith("float"):
        return int(struct.unpack("<q", struct.pack("<d", value))[0])
    return int(value)


def _c_type(kind: Kind) -> Any:
    if kind.ndim:
        return ctypes.py_object
    return ctypes.c_double if kind.dtype.startswith("float") else ctypes.c_int64


def _flat(args: tuple[Any, ...]) -> list[Any]:
    given: list[Any] = []
    for argument in args:
        if type(argument) is tuple:
            given.extend(argument)
        else:
            given.append(argument)
    return given


def _refuse(symbol: str, status: int, kinds: list[Kind], given: Any) -> None:
    if status == _RAISED:
        raise RuntimeError(f"{symbol}: shapes of its arguments do not fit each other")
    found = given[status - 1]
    described = (
        f"{found.dtype} {found.shape} of strides {found.strides}"
        if isinstance(found, np.ndarray)
        else type(found).__name__
    )
    raise TypeError(f"{symbol}: argument {status} is {described}, expected {kinds[status - 1]}")


def _layout_is_known() -> bool:
    """Whether this Python and this numpy keep an array as all of them have: data, ndim, shape, strides, base, dtype."""
    if sys.implementation.name != "cpython" or ctypes.sizeof(ctypes.c_void_p) != 8:
        return False
    array = np.zeros((2, 3), np.float32)
    fields = (ctypes.c_int64 * 7).from_address(id(array) + object.__basicsize__)
    shape = (ctypes.c_int64 * 2).from_address(fields[2]) if fields[1] & 0xFFFFFFFF == 2 else ()
    return fields[0] == array.ctypes.data and tuple(shape) == (2, 3) and fields[5] == id(array.dtype)
