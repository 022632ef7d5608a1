"""numba's code generator for another machine than this one.

What numba has for compilation ahead of time (``AOTCPUCodegen``) asks LLVM for a target machine of this process. That of
another triple is put in its place; llvmlite carries the back ends of all. Private to numba: its version is pinned here,
and tests compare every entry point with plain Python.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
import numba
from llvmlite import ir
from numba.core import codegen
from numba.core.cpu import CPUContext
from numba.core.registry import cpu_target

PINNED = "0.68."


class CrossCodegen(codegen.AOTCPUCodegen):  # type: ignore[misc]
    """Emits objects for ``triple``, ``cpu`` and ``features`` of LLVM."""

    def __init__(self, name: str, triple: str, cpu: str, features: str) -> None:
        self._triple, self._features = triple, features
        super().__init__(name, cpu)

    def _init(self, llvm_module: Any) -> None:
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
        self._tm_features = self._features
        options = {"opt": 3}
        self._customize_tm_options(options)
        self._tm = llvm.Target.from_triple(self._triple).create_target_machine(**options)
        self._target_data = self._tm.target_data
        self._data_layout = str(self._target_data)
        self._loopvect, self._opt_level = False, 0

    def _create_empty_module(self, name: str) -> ir.Module:
        module = super()._create_empty_module(name)
        module.triple = self._triple
        return module


def generate_for(triple: str, cpu: str, features: str) -> CPUContext:
    """Turns numba's target context into one for another machine, for the rest of the process.

    Kernels are compiled in the context that they find when they are made: call this before they are imported.

    Raises
    ------
    RuntimeError
        numba is not of the version that this was written for.
    """
    if not numba.__version__.startswith(PINNED):
        raise RuntimeError(
            f"numba {numba.__version__}: kernels are compiled ahead of time with {PINNED}x; install that"
        )
    context = cpu_target.target_context
    context._internal_codegen = CrossCodegen("edgelm", triple, cpu, features)
    context.aot_mode, context.cached_internal_func = True, {}
    # Only code is wanted, nothing to call. What stands for a function must be a builtin, and equal to no other.
    context.get_executable = lambda library, description, environment: object().__sizeof__
    return context
