"""What stands between C and a kernel: objects checked and opened, numbers cast, results stored.

A shim takes (layout, out, arguments ...): addresses, integers and doubles. ``layout`` and ``out`` are those of
``edgelm.kernels.aot.Library``. It returns 0, or the number of the first argument that is not what was declared.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import carray, from_dtype, njit, types
from numba.extending import intrinsic

from edgelm.kernels.jit import Entry
from edgelm.kernels.signature import DTYPES, Kind, flat

ALIGNED_AND_C_CONTIGUOUS = 0x101
"""Of the flags of numpy's C interface."""


def _pointer_to(item: types.Type) -> Any:
    @intrinsic  # type: ignore[untyped-decorator]
    def pointer(typingctx: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

        return types.CPointer(item)(types.int64), generate

    return pointer


_words, _results = _pointer_to(types.int64), _pointer_to(types.float64)
_KNOWN = 2 + len(DTYPES)


@njit  # type: ignore[untyped-decorator]
def _fields(layout: Any, address: Any) -> Any:
    """data, ndim, shape, strides, base, dtype, flags of an array; before them stands what every object has."""
    return carray(_words(address + 8 * carray(_words(layout), 1)[0]), 7)


@njit  # type: ignore[untyped-decorator]
def _fits(layout: Any, address: Any, ndim: Any, dtype: Any) -> Any:
    """Whether an object is an array as declared; ``dtype`` is its place in ``DTYPES``."""
    known = carray(_words(layout), _KNOWN)
    if carray(_words(address), known[0])[known[0] - 1] != known[1]:
        return False
    fields = _fields(layout, address)
    contiguous = fields[6] & ALIGNED_AND_C_CONTIGUOUS == ALIGNED_AND_C_CONTIGUOUS
    return fields[1] & 0xFFFFFFFF == ndim and fields[5] == known[2 + dtype] and contiguous


@functools.cache
def _view(kind: Kind) -> Callable[..., Any]:
    """The array at an address, as numba knows arrays."""
    pointer, ndim = _pointer_to(from_dtype(np.dtype(kind.dtype))), kind.ndim
    indices = ", ".join(f"shape[{i}]" for i in range(ndim))
    source = f"""
def view(layout, address):
    fields = _fields(layout, address)
    shape = carray(_words(fields[2]), {ndim})
    return carray(pointer(fields[0]), ({indices},))
"""
    names = {"_fields": _fields, "_words": _words, "carray": carray, "pointer": pointer}
    exec(source, names)
    return njit(names["view"])


def make_shim(entry: Entry) -> tuple[Callable[..., Any], list[types.Type]]:
    """The shim of an entry point as a function for numba to compile, and the types of what it takes."""
    names: dict[str, Any] = {"kernel": entry.function, "carray": carray, "fits": _fits, "results": _results}
    kinds, lines = list(flat(entry.takes)), []
    for i, kind in enumerate(kinds):
        if kind.ndim:
            names[f"view{i}"] = _view(kind)
            fits = f"fits(layout, a{i}, {kind.ndim}, {DTYPES.index(kind.dtype)})"
            lines += [f"    if not {fits}:", f"        return {i + 1}"]
        elif kind.dtype == "float32":
            names[f"cast{i}"] = types.float32
    values = iter([_value(kind, i) for i, kind in enumerate(kinds)])
    arguments = ", ".join(
        next(values) if isinstance(argument, Kind) else "(" + "".join(f"{next(values)}, " for _ in argument) + ")"
        for argument in entry.takes
    )
    lines.append(f"    found = kernel({arguments})")
    for i in range(len(entry.returns)):
        part = f"found[{i}]" if len(entry.returns) > 1 else "found"
        lines.append(f"    carray(results(out), {len(entry.returns)})[{i}] = {part}")
    parameters = ", ".join(["layout", "out", *(f"a{i}" for i in range(len(kinds)))])
    exec("\n".join([f"def shim({parameters}):", *lines, "    return 0"]), names)
    return names["shim"], [types.int64, types.int64, *map(_c_type, kinds)]


def _value(kind: Kind, i: int) -> str:
    if kind.ndim:
        return f"view{i}(layout, a{i})"
    return {"float32": f"cast{i}(a{i})", "bool": f"a{i} != 0"}.get(kind.dtype, f"a{i}")


def _c_type(kind: Kind) -> types.Type:
    return types.float64 if not kind.ndim and kind.dtype.startswith("float") else types.int64
