"""What is written as LLVM's code does what numpy does: as it is for this processor, and as it is for Arm.

The code for Arm differs by what it reads, not by what machines can do; so this processor can run it too.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytest
from llvmlite import ir
from numba.core import types
from numba.core.registry import cpu_target

from edgelm.kernels import emit
from edgelm.kernels.emit_ternary import emit_widen_bits
from tests.kernels.arrays import blank, same

KINDS = {
    "float32": types.float32,
    "float64": types.float64,
    "uint8": types.uint8,
    "uint16": types.uint16,
    "int64": types.int64,
}


class _Context:
    """numba's context, with a code generator for a processor of some features."""

    def __init__(self, features: str) -> None:
        self._tm_features = features

    def codegen(self) -> _Context:
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(cpu_target.target_context, name)


def run(
    write: Callable[..., None],
    literals: list[Any],
    values: list[Any],
    triple: str,
    features: str = "",
    features_here: str | None = None,
) -> None:
    """Compiles what ``write`` emits for a machine and calls it, on this one, with arrays and numbers.

    ``features_here`` are those that it is compiled with, if others than those that it is written for.
    """
    context = _Context(features)
    module = context.create_module("emitted")
    module.triple, here = triple or module.triple, module.triple
    given = [types.Array(KINDS[str(v.dtype)], 1, "C") if isinstance(v, np.ndarray) else types.int64 for v in values]
    given = [types.float32 if isinstance(v, np.float32) else kind for kind, v in zip(given, values, strict=True)]
    passed = [context.get_value_type(getattr(kind, "dtype", kind)) for kind in given]
    passed = [t.as_pointer() if isinstance(k, types.Array) else t for k, t in zip(given, passed, strict=True)]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), passed), "emitted")
    builder = ir.IRBuilder(function.append_basic_block())
    ready = []
    for kind, argument in zip(given, function.args, strict=True):
        if isinstance(kind, types.Array):
            array = context.make_array(kind)(context, builder)
            array.data = argument
            argument = array._getvalue()
        ready.append(argument)
    write(context, builder, literals, given, ready)
    builder.ret_void()
    module.triple = here
    parsed = llvm.parse_assembly(str(module))
    parsed.verify()
    machine = llvm.Target.from_default_triple().create_target_machine(
        features=features if features_here is None else features_here
    )
    engine = llvm.create_mcjit_compiler(parsed, machine)
    engine.finalize_object()
    c_types = [
        ctypes.c_void_p
        if isinstance(v, np.ndarray)
        else ctypes.c_float
        if isinstance(v, np.float32)
        else ctypes.c_int64
        for v in values
    ]
    address = engine.get_function_address("emitted")
    ctypes.CFUNCTYPE(None, *c_types)(address)(*(v.ctypes.data if isinstance(v, np.ndarray) else v for v in values))


@pytest.fixture(params=["", "aarch64-unknown-linux-gnu"], ids=["here", "Arm"])
def triple(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize(("rows", "lanes", "steps"), [(4, 16, 0), (4, 16, 1), (4, 16, 7), (3, 16, 8), (1, 1, 5)])
def test_tile(
    rng: np.random.Generator, triple: str, dtype: type, rows: int, lanes: int, steps: int, add: bool, across: bool
) -> None:
    a, b = (rng.standard_normal(400).astype(dtype) for _ in range(2))
    c = rng.standard_normal(200).astype(dtype) if add else blank(200, dtype=dtype)
    expected, pitch = c.copy(), 11 if across else 13
    for r in range(rows):
        for j in range(lanes):
            places = [5 + (r + pitch * k if across else pitch * r + k) for k in range(steps)]
            total = sum(float(a[place]) * float(b[3 + 17 * k + j]) for k, place in enumerate(places))
            expected[9 + 20 * r + j] = total + (c[9 + 20 * r + j] if add else 0)
    run(emit.emit_tile, [rows, lanes, add, across], [a, 5, pitch, b, 3, 17, c, 9, 20, steps], triple)
    same(c, expected)


def test_widen(rng: np.random.Generator, triple: str) -> None:
    q, scale, out = rng.integers(0, 256, 64).astype(np.uint8), np.float32(0.25), blank(64, dtype=np.float32)
    expected = out.copy()
    expected[7:23] = (q[3:19].astype(np.float32) - 128) * scale
    run(emit.emit_widen, [], [q, 3, scale, out, 7], triple)
    same(out, expected)


def test_widen_bits(rng: np.random.Generator, triple: str) -> None:
    q, scale, out = rng.integers(0, 256, 16).astype(np.uint8), np.float32(0.3), blank(64, dtype=np.float32)
    expected = out.copy()
    expected[7:23] = [np.float32((int(byte) >> shift) % 4 - 2) * scale for byte in q[3:7] for shift in (0, 2, 4, 6)]
    run(emit_widen_bits, [], [q, 3, scale, out, 7], triple)
    same(out, expected)


@pytest.mark.parametrize("size", [1, 4])
def test_turn(rng: np.random.Generator, triple: str, dtype: type, size: int) -> None:
    a, out = rng.standard_normal(64).astype(dtype), blank(64, dtype=dtype)
    expected = out.copy()
    for r in range(size):
        for c in range(size):
            expected[5 + 9 * c + r] = a[2 + 7 * r + c]
    run(emit.emit_turn, [size], [a, 2, 7, out, 5, 9], triple)
    same(out, expected)
