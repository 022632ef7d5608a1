"""A square of a matrix of integers laid across, as LLVM's vectors (``edgelm/kernels/dots.py`` says what for)."""

from __future__ import annotations

from typing import Any

from edgelm.kernels.emit import LANES, Vectors
from edgelm.kernels.emit_dots import QUADS

SHARES = 128.0
"""In how many parts a row's scale is measured against the largest."""


def emit_lay_across(context: Any, builder: Any, literals: Any, types: Any, values: Any) -> None:
    """Each row's integers as shares of the largest scale, then squares of four by four bytes turned round."""
    (n_strips,), (q, q0, q_pitch, scale, s0, s_pitch, out, out0, out_pitch, out_scale, o0, o_pitch) = literals, values
    made = Vectors(context, builder, types, 3)
    ir, word = made.ir, made.word
    byte, half, width = ir.IntType(8), ir.IntType(16), 4 * LANES
    bytes_, halves = ir.VectorType(byte, width), ir.VectorType(half, width)

    def at(pointer: Any, *numbers: Any) -> Any:
        for number in numbers:
            pointer = builder.gep(pointer, [word(number) if isinstance(number, int) else number])
        return pointer

    def constant(kind: Any, x: float) -> Any:
        return ir.Constant(kind, [x] * kind.count)

    own = [made.load(at(made.place(3, scale, s0), builder.mul(s_pitch, word(n))), LANES) for n in range(n_strips)]
    most, largest = own[0], made.function("maxnum", own[0].type, 2)
    for other in own[1:]:
        most = builder.call(largest, [most, other])
    for n in (8, 4, 2, 1):
        parts = [made.shuffle(most, most, [*range(first, first + n)]) for first in (0, n)]
        most = builder.call(made.function("maxnum", made.vector(n), 2), parts)
    most = builder.extract_element(most, ir.IntType(32)(0))
    to = made.place(9, out_scale, o0)
    for i in range(2):
        made.store(made.everywhere(most, LANES), at(to, builder.mul(o_pitch, word(i))))
    # Rows of zeros alone have no scale; their integers do not matter.
    is_some = builder.fcmp_ordered(">", most, made.number(0.0))
    per_share = builder.fdiv(made.number(SHARES), builder.select(is_some, most, made.number(1.0)))
    from_, target = made.place(0, q, q0), made.place(6, out, out0)
    across = [16 * o + 4 * row + column for o in range(4) for column in range(4) for row in range(4)]
    for n in range(2):
        if n < n_strips:
            shares = builder.fadd(builder.fmul(own[n], made.everywhere(per_share, LANES)), constant(own[n].type, 0.5))
            counts = builder.fptosi(shares, ir.VectorType(half, LANES))
            each = made.shuffle(counts, counts, [lane for lane in range(LANES) for _ in range(4)])
        for g in range(QUADS):
            if n < n_strips:
                place = at(from_, builder.mul(q_pitch, word(n)), width * g)
                read = builder.load(builder.bitcast(place, bytes_.as_pointer()), align=1)
                signed = builder.sext(builder.xor(read, constant(bytes_, -128)), halves)
                found = builder.ashr(
                    builder.add(builder.mul(signed, each), constant(halves, int(SHARES) // 2)), constant(halves, 7)
                )
                found = builder.xor(builder.trunc(found, bytes_), constant(bytes_, -128))
                found = made.shuffle(found, found, across)
            else:
                found = constant(bytes_, -128)
            for o in range(4):
                piece = made.shuffle(found, found, [*range(16 * o, 16 * o + 16)])
                place = at(target, builder.mul(out_pitch, word(g // 4)), width * (4 * n + o) + 16 * (g % 4))
                builder.store(piece, builder.bitcast(place, piece.type.as_pointer()), align=1)
