"""Entry points as an object file for another machine."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core import types
from numba.core.caching import NullCache
from numba.core.compiler import Flags, compile_extra
from numba.core.compiler_lock import global_compiler_lock
from numba.core.dispatcher import Dispatcher
from numba.core.registry import cpu_target

from edgelm.kernels.aot import CHAIN, GIVEN
from edgelm.kernels.compiler.codegen import generate_for
from edgelm.kernels.compiler.shims import make_shim
from edgelm.kernels.jit import Entry, entries

_WORD = ir.IntType(64)
_GIVEN = ir.FunctionType(_WORD, [_WORD, _WORD.as_pointer()])
RAISED = -1
"""What a shim returns when a kernel raised, as it never should: ``edgelm.kernels.aot``."""


@global_compiler_lock  # type: ignore[untyped-decorator]
def compile_library(
    triple: str, cpu: str, features: str, choose: Callable[[list[Entry]], list[Entry]]
) -> tuple[Any, list[str]]:
    """numba's library of the entry points that are chosen, and the symbols it offers; once in a process, since numba
    keeps what it compiled. With the first entry point of all comes the function that makes chains of calls."""
    context = generate_for(triple, cpu, features)
    points = choose(entries())
    # Those that offer no entry point too: others call what is in them.
    for module in [module for name, module in sys.modules.items() if name.startswith("edgelm.kernels.")]:
        for function in vars(module).values():
            if isinstance(function, Dispatcher):
                function.targetoptions |= {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
                # On disk are those that were compiled for this machine.
                function._cache = NullCache()  # type: ignore[attr-defined]
    library = context.codegen().create_library("edgelm")
    flags = Flags()
    flags.no_compile = flags.no_cpython_wrapper = flags.no_cfunc_wrapper = flags.nrt = True
    flags.error_model = "numpy"
    _add_reference_counts(library)
    for point in points:
        shim, takes = make_shim(point)
        compiled = compile_extra(
            cpu_target.typing_context, context, shim, takes, types.int64, flags, {}, library=library
        )
        _export(context, library, compiled.fndesc, point.symbol)
    symbols = [point.symbol for point in points]
    if points[0] is entries()[0]:
        _add_chain(library)
    library.finalize()
    _hide_all_but([CHAIN, *symbols, *(symbol + GIVEN for symbol in symbols)], library)
    return library, symbols


def _add_reference_counts(library: Any) -> None:
    """Counts nothing: kernels allocate nothing, and the caller holds what they are given."""
    module = library.create_ir_module("counts")
    address = ir.IntType(8).as_pointer()
    for name in ("NRT_incref", "NRT_decref"):
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), [address]), name)
        ir.IRBuilder(function.append_basic_block()).ret_void()
    library.add_ir_module(module)


def _hide_all_but(symbols: list[str], library: Any) -> None:
    """Makes all else private, and drops what nobody calls any more."""
    module = library._final_module
    for item in [*module.functions, *module.global_variables]:
        if not item.is_declaration and item.name not in symbols:
            item.linkage = "internal"
    manager = llvm.create_new_module_pass_manager()
    manager.add_global_dead_code_eliminate_pass()
    manager.run(module, llvm.create_pass_builder(library._codegen._tm, llvm.create_pipeline_tuning_options()))


def _export(context: Any, library: Any, description: Any, symbol: str) -> None:
    """A function of C that calls the shim by numba's own convention, and one that takes the arguments as words."""
    module = library.create_ir_module(symbol)
    types_of_c = [context.get_value_type(kind) for kind in description.argtypes]
    function = ir.Function(module, ir.FunctionType(ir.IntType(64), types_of_c), symbol)
    builder = ir.IRBuilder(function.append_basic_block())
    shim = context.declare_function(module, description)
    status, result = context.call_conv.call_function(builder, shim, types.int64, description.argtypes, function.args)
    builder.ret(builder.select(status.is_error, ir.Constant(_WORD, RAISED), result))
    given = ir.Function(module, _GIVEN, symbol + GIVEN)
    builder = ir.IRBuilder(given.append_basic_block())
    layout, words = given.args
    values = [layout, ir.Constant(_WORD, 0)]
    for i, kind in enumerate(types_of_c[2:]):
        word = builder.load(builder.gep(words, [ir.Constant(_WORD, i)]))
        values.append(word if kind == _WORD else builder.bitcast(word, kind))
    builder.ret(builder.call(function, values))
    library.add_ir_module(module)


def _add_chain(library: Any) -> None:
    """A function of C that makes many calls, each three words: function, layout and words of its arguments.

    It returns 0, or the number of the first call that was refused, from 1.
    """
    module = library.create_ir_module(CHAIN)
    function = ir.Function(module, ir.FunctionType(_WORD, [_WORD.as_pointer(), _WORD]), CHAIN)
    calls, n = function.args
    entry, head, body, refused, done = (function.append_basic_block() for _ in range(5))
    ir.IRBuilder(entry).branch(head)
    builder = ir.IRBuilder(head)
    i = builder.phi(_WORD)
    builder.cbranch(builder.icmp_signed("<", i, n), body, done)
    builder = ir.IRBuilder(body)
    start = builder.mul(i, ir.Constant(_WORD, 3))
    target, layout, words = (
        builder.load(builder.gep(calls, [builder.add(start, ir.Constant(_WORD, j))])) for j in range(3)
    )
    called = builder.inttoptr(target, _GIVEN.as_pointer())
    status = builder.call(called, [layout, builder.inttoptr(words, _WORD.as_pointer())])
    following = builder.add(i, ir.Constant(_WORD, 1))
    builder.cbranch(builder.icmp_signed("==", status, ir.Constant(_WORD, 0)), head, refused)
    i.add_incoming(ir.Constant(_WORD, 0), entry)
    i.add_incoming(following, body)
    ir.IRBuilder(refused).ret(following)
    ir.IRBuilder(done).ret(ir.Constant(_WORD, 0))
    library.add_ir_module(module)
