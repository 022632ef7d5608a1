"""A square of a matrix of integers laid across, as LLVM's vectors (``edgelm/kernels/dots.py`` says what for)."""

from __future__ import annotations

from typing import Any

from edgelm.kernels.emit import LANES, Vectors
from edgelm.kernels.emit_dots import QUADS

SHARES = 128.0
"""In how many parts a row's scale is measured against the largest."""
_BYTES = 4 * LANES
"""Of a group of four numbers of 16 rows."""
_TURNED = [16 * four + 4 * row + column for four in range(4) for column in range(4) for row in range(4)]
"""The order of bytes that turns squares of four by four round."""


class _Across(Vectors):
    """The code of ``lay_across``."""

    def __init__(self, context: Any, builder: Any, literals: Any, types: Any, values: Any) -> None:
        super().__init__(context, builder, types, 1)
        (self.n_strips,), (q, scale, q0, q_pitch, out, out_scale, out0, out_pitch) = literals, values
        ir, per_scale = self.ir, self.word(2 * LANES)
        self.bytes, self.halves = (ir.VectorType(ir.IntType(bits), _BYTES) for bits in (8, 16))
        self.q, self.out = self.place(0, q, q0), self.place(4, out, out0)
        self.scale, self.out_scale = (
            self.place(i, array, builder.udiv(first, per_scale))
            for i, array, first in ((1, scale, q0), (5, out_scale, out0))
        )
        self.q_pitch, self.out_pitch = q_pitch, out_pitch
        self.scale_pitch, self.out_scale_pitch = (builder.udiv(pitch, per_scale) for pitch in (q_pitch, out_pitch))

    def at(self, pointer: Any, pitch: Any, number: int, further: int = 0) -> Any:
        """The address so many pitches, and then so many numbers, further."""
        start = self.builder.gep(pointer, [self.builder.mul(pitch, self.word(number))])
        return self.builder.gep(start, [self.word(further)])

    def constant(self, kind: Any, number: float) -> Any:
        return self.ir.Constant(kind, [number] * kind.count)

    def emit(self) -> None:
        shares = self.shares()
        for n in range(2):
            for g in range(QUADS):
                found = self.turned(n, g, shares[n]) if n < self.n_strips else self.constant(self.bytes, -128)
                for four in range(4):
                    piece = self.shuffle(found, found, [*range(16 * four, 16 * four + 16)])
                    place = self.at(self.out, self.out_pitch, g // 4, _BYTES * (4 * n + four) + 16 * (g % 4))
                    self.builder.store(piece, self.builder.bitcast(place, piece.type.as_pointer()), align=1)

    def shares(self) -> list[Any]:
        """Of each strip what its numbers are multiplied by, as int16; the largest scale is stored."""
        builder = self.builder
        own = [self.load(self.at(self.scale, self.scale_pitch, n), LANES) for n in range(self.n_strips)]
        most = own[0]
        for other in own[1:]:
            most = builder.call(self.function("maxnum", most.type, 2), [most, other])
        for n in (8, 4, 2, 1):
            parts = [self.shuffle(most, most, [*range(first, first + n)]) for first in (0, n)]
            most = builder.call(self.function("maxnum", self.vector(n), 2), parts)
        most = builder.extract_element(most, self.ir.IntType(32)(0))
        for half in range(2):
            self.store(self.everywhere(most, LANES), self.at(self.out_scale, self.out_scale_pitch, half))
        # Rows of zeros alone have no scale; their integers do not matter.
        is_some = builder.fcmp_ordered(">", most, self.number(0.0))
        per_share = builder.fdiv(self.number(SHARES), builder.select(is_some, most, self.number(1.0)))
        found = []
        for scale in own:
            parts = builder.fmul(scale, self.everywhere(per_share, LANES))
            rounded = builder.fadd(parts, self.constant(parts.type, 0.5))
            counts = builder.fptosi(rounded, self.ir.VectorType(self.ir.IntType(16), LANES))
            found.append(self.shuffle(counts, counts, [lane for lane in range(LANES) for _ in range(4)]))
        return found

    def turned(self, strip: int, group: int, shares: Any) -> Any:
        """A group of four numbers of 16 rows, times their shares, four rows of each number side by side."""
        builder, middle = self.builder, self.constant(self.bytes, -128)
        place = self.at(self.q, self.q_pitch, strip, _BYTES * group)
        read = builder.load(builder.bitcast(place, self.bytes.as_pointer()), align=1)
        products = builder.mul(builder.sext(builder.xor(read, middle), self.halves), shares)
        rounded = builder.add(products, self.constant(self.halves, int(SHARES) // 2))
        parts = builder.trunc(builder.ashr(rounded, self.constant(self.halves, 7)), self.bytes)
        found = builder.xor(parts, middle)
        return self.shuffle(found, found, _TURNED)


def emit_lay_across(context: Any, builder: Any, literals: Any, types: Any, values: Any) -> None:
    """Each row's integers as shares of the largest scale, then squares of four by four bytes turned round."""
    _Across(context, builder, literals, types, values).emit()
