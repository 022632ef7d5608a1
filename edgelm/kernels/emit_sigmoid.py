"""The exponential of all kernels, as LLVM's vectors: in loops over arrays that may overlap it would come one by one."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgelm.kernels.emit import LANES, Vectors

LOW, HIGH = np.float32(-87), np.float32(88)
"""Between them e^x and its parts are normal float32 numbers."""
LOG2E, LN2, LN2_REST = np.float32(1.44269504), np.float32(0.693359375), np.float32(2.12194440e-4)
TERMS = tuple(
    np.float32(x)
    for x in (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
)
"""Of the polynomial, the highest power first."""


class _Sigmoids(Vectors):
    """The code of ``sigmoids``."""

    def emit(self, values: Any) -> None:
        """Whole vectors, then what is left."""
        x, x0, out, out0, n = values
        source, target = self.place(0, x, x0), self.place(2, out, out0)
        whole = self.builder.and_(n, self.word(-LANES))
        for lanes, first, last in ((LANES, self.word(0), whole), (1, whole, n)):
            self.lanes = lanes

            def step(k: Any, nothing: list[Any]) -> None:
                found = self.of(self.load(self.builder.gep(source, [k]), self.lanes))
                self.store(found, self.builder.gep(target, [k]))

            self.loop(first, last, self.word(lanes), [], step)

    def of(self, x: Any) -> Any:
        """What becomes of a vector."""
        one = self.every(1.0)
        return self.builder.fdiv(one, self.builder.fadd(one, self.exp(self.builder.fneg(x))))

    def every(self, number: Any) -> Any:
        """A constant in all lanes."""
        return self.ir.Constant(self.vector(self.lanes), [float(number)] * self.lanes)

    def exp(self, x: Any) -> Any:
        """``norm.exp`` of all lanes."""
        builder, vector, ir = self.builder, self.vector(self.lanes), self.ir
        if str(self.number) == "double":
            return builder.call(self.function("exp", vector, 1), [x])
        low, high = self.every(LOW), self.every(HIGH)
        # No number counts as -87 here, so that n is an integer, and stays no number in x.
        n = builder.select(builder.fcmp_ordered(">", x, low), x, low)
        n = builder.select(builder.fcmp_ordered("<", n, high), n, high)
        n = self.multiply_add(n, self.every(LOG2E), self.every(0.5))
        n = builder.call(self.function("floor", vector, 1), [n])
        x = builder.select(builder.fcmp_ordered("<", x, low), low, x)
        for part in (-LN2, LN2_REST):
            x = self.multiply_add(n, self.every(part), x)
        p = self.every(TERMS[0])
        for term in TERMS[1:]:
            p = self.multiply_add(p, x, self.every(term))
        p = self.multiply_add(builder.fmul(p, x), x, x)
        whole = ir.VectorType(ir.IntType(32), self.lanes)
        bits = builder.add(builder.fptosi(n, whole), ir.Constant(whole, [127] * self.lanes))
        power = builder.bitcast(builder.shl(bits, ir.Constant(whole, [23] * self.lanes)), vector)
        return builder.fmul(builder.fadd(p, self.every(1.0)), power)


class _Exps(_Sigmoids):
    """The code of ``exps``."""

    def of(self, x: Any) -> Any:
        """What becomes of a vector."""
        return self.exp(x)


def emit_exps(context: Any, builder: Any, literals: Any, types: Any, values: Any) -> None:
    """e^x of numbers side by side."""
    _Exps(context, builder, types, 0).emit(values)


def emit_sigmoids(context: Any, builder: Any, literals: Any, types: Any, values: Any) -> None:
    """1 / (1 + e^-x) of numbers side by side."""
    _Sigmoids(context, builder, types, 0).emit(values)
