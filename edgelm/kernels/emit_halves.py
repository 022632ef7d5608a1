"""Numbers of 16 bits (IEEE 754 binary16) made float32 and back, as LLVM's vectors.

Where the processor has instructions for it, by these; elsewhere by integer arithmetic, to the same bits but for what is
no number.
"""

from __future__ import annotations

from typing import Any

from edgelm.kernels.emit import Vectors

_SIZE, _SIGN, _INFINITE, _WHOLE = 0x7FFF, 0x8000, 0x7C00, 0x0400
"""Of 16 bits: all but the sign, the sign, infinity, the least number that is not subnormal."""
_REBIAS, _LEAST_WHOLE, _TOO_LARGE, _NO_NUMBER = 112 << 23, 113 << 23, 0x477FF000, 0x7F800000
"""Of 32 bits: what exponents differ by, the same least number, the least that is rounded to infinity, infinity."""
_UNIT, _HALF = 2.0**-24, 0x3F000000
"""The least number of 16 bits; the bits of the float32 1/2, whose last place it is."""


def has_halves(triple: str, features: str) -> bool:
    """Whether a processor converts such numbers; ``features`` are LLVM's (``+f16c,-sse4a``)."""
    return triple.startswith(("aarch64", "arm64")) or "+f16c" in features.split(",")


class Halves(Vectors):
    """Loads and stores of ``lanes`` numbers of 16 bits, beside arrays of float32 such as number ``array``."""

    def __init__(self, context: Any, builder: Any, types: Any, array: int, lanes: int) -> None:
        super().__init__(context, builder, types, array)
        ir = self.ir
        features = getattr(context.codegen(), "_tm_features", "") or ""
        self.converts, self.lanes = has_halves(builder.module.triple, features), lanes
        self.floats, self.wholes = self.vector(lanes), ir.VectorType(ir.IntType(32), lanes)
        self.halves, self.converted = (ir.VectorType(kind, lanes) for kind in (ir.IntType(16), ir.HalfType()))

    def whole(self, number: int) -> Any:
        return self.ir.Constant(self.wholes, [number] * self.lanes)

    def read(self, pointer: Any) -> Any:
        """Numbers of 16 bits as float32."""
        builder = self.builder
        kind = self.converted if self.converts else self.halves
        found = builder.load(builder.bitcast(pointer, kind.as_pointer()), align=2)
        if self.converts:
            return builder.fpext(found, self.floats)
        bits = builder.zext(found, self.wholes)
        size = builder.and_(bits, self.whole(_SIZE))
        sign = builder.shl(builder.and_(bits, self.whole(_SIGN)), self.whole(16))
        is_finite = builder.icmp_unsigned("<", size, self.whole(_INFINITE))
        offset = builder.select(is_finite, self.whole(_REBIAS), self.whole(2 * _REBIAS))
        made = builder.add(builder.shl(size, self.whole(13)), offset)
        unit = self.ir.Constant(self.floats, [_UNIT] * self.lanes)
        small = builder.bitcast(builder.fmul(builder.uitofp(size, self.floats), unit), self.wholes)
        made = builder.select(builder.icmp_unsigned("<", size, self.whole(_WHOLE)), small, made)
        return builder.bitcast(builder.or_(made, sign), self.floats)

    def write(self, numbers: Any, pointer: Any) -> None:
        """float32 as the nearest numbers of 16 bits, of two the even one; what is too large becomes infinite."""
        builder = self.builder
        if self.converts:
            found = builder.fptrunc(numbers, self.converted)
        else:
            found = builder.trunc(self._narrowed(numbers), self.halves)
        builder.store(found, builder.bitcast(pointer, found.type.as_pointer()), align=2)

    def _narrowed(self, numbers: Any) -> Any:
        builder, whole = self.builder, self.whole
        bits = builder.bitcast(numbers, self.wholes)
        size, sign = builder.and_(bits, whole(0x7FFFFFFF)), builder.and_(builder.lshr(bits, whole(16)), whole(_SIGN))
        # 1/2 added, the last place of the sum is the least number: the addition rounds.
        summed = builder.fadd(builder.bitcast(size, self.floats), self.ir.Constant(self.floats, [0.5] * self.lanes))
        small = builder.sub(builder.bitcast(summed, self.wholes), whole(_HALF))
        even = builder.and_(builder.lshr(size, whole(13)), whole(1))
        usual = builder.lshr(builder.sub(builder.add(builder.add(size, whole(0xFFF)), even), whole(_REBIAS)), whole(13))
        is_none = builder.icmp_unsigned(">", size, whole(_NO_NUMBER))
        large = builder.select(is_none, whole(0x7E00), whole(_INFINITE))
        found = builder.select(builder.icmp_unsigned("<", size, whole(_TOO_LARGE)), usual, large)
        found = builder.select(builder.icmp_unsigned("<", size, whole(_LEAST_WHOLE)), small, found)
        return builder.or_(found, sign)


def emit_add_halves(context: Any, builder: Any, literals: Any, types: Any, values: Any) -> None:
    """Halves added to numbers."""
    halves, h0, out, o0 = values
    made = Halves(context, builder, types, 2, literals[0])
    place = made.place(2, out, o0)
    made.store(builder.fadd(made.load(place, made.lanes), made.read(made.place(0, halves, h0))), place)


def emit_step_halves(context: Any, builder: Any, literals: Any, types: Any, values: Any) -> None:
    """Halves that go down a gradient and towards 0."""
    grad, g0, rate, pull, halves, h0 = values
    made = Halves(context, builder, types, 0, literals[0])
    numbers = (context.cast(builder, x, types[i], made.types[0].dtype) for i, x in ((2, rate), (3, pull)))
    rate, pull = (made.everywhere(x, made.lanes) for x in numbers)
    place = made.place(4, halves, h0)
    now = made.read(place)
    step = made.multiply_add(rate, made.load(made.place(0, grad, g0), made.lanes), builder.fmul(pull, now))
    made.write(builder.fsub(now, step), place)
