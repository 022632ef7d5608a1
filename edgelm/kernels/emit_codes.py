"""Numbers of a run made 8-bit integers, as LLVM's vectors."""

from __future__ import annotations

from typing import Any

from edgelm.kernels.emit import LANES, Vectors

STEPS, MIDDLE = 127.0, 128.5


def emit_code_run(context: Any, builder: Any, literals: Any, types: Any, values: Any) -> None:
    """The largest of 32 numbers, then all of them as its shares."""
    (signed,), (x, x0, smallest, codes, c0, out, o0) = literals, values
    made = Vectors(context, builder, types, 0)
    ir, word = made.ir, made.word
    byte, whole = ir.IntType(8), ir.IntType(32)
    floats, wholes = made.vector(LANES), ir.VectorType(whole, LANES)

    def reduced(name: str, kind: Any, *takes: Any) -> Any:
        suffix = f"v{LANES}{kind.intrinsic_name if hasattr(kind, 'intrinsic_name') else 'i32'}"
        fnty = ir.FunctionType(kind, [x.type for x in takes])
        return builder.call(builder.module.declare_intrinsic(f"llvm.vector.reduce.{name}.{suffix}", fnty=fnty), takes)

    numbers = made.place(0, x, x0)
    parts = [made.load(builder.gep(numbers, [word(at)]), LANES) for at in (0, LANES)]
    sizes = [builder.call(made.function("fabs", floats, 1), [part]) for part in parts]
    most = builder.call(made.function("maxnum", floats, 2), sizes)
    for half in (8, 4, 2, 1):
        halves = [made.shuffle(most, most, [*range(first, first + half)]) for first in (0, half)]
        most = builder.call(made.function("maxnum", made.vector(half), 2), halves)
    most = builder.extract_element(most, whole(0))
    step = builder.fdiv(most, made.number(STEPS))
    step = builder.select(builder.fcmp_ordered(">", step, smallest), step, smallest)
    per_step = made.everywhere(builder.fdiv(made.number(1.0), step), LANES)
    middle = ir.Constant(floats, [MIDDLE] * LANES)
    # Above 0, so that cutting off the fraction rounds.
    found = [builder.fptosi(builder.fadd(builder.fmul(part, per_step), middle), wholes) for part in parts]
    place = made.place(3, codes, c0)
    for at, part in zip((0, LANES), found, strict=True):
        bytes_ = builder.trunc(part, ir.VectorType(byte, LANES))
        if signed:
            bytes_ = builder.xor(bytes_, ir.Constant(bytes_.type, [-128] * LANES))
        target = builder.bitcast(builder.gep(place, [word(at)]), bytes_.type.as_pointer())
        builder.store(bytes_, target, align=1)
    scale = made.place(5, out, o0)
    if signed:
        total = builder.sub(reduced("add", whole, builder.add(*found)), whole(128 * 2 * LANES))
        offset = builder.fmul(builder.sitofp(total, made.number), made.number(-128.0))
        builder.store(offset, builder.gep(scale, [word(1)]), align=4)
        # 0 times what is not finite is no number.
        none = builder.fmul(builder.fadd(*parts), ir.Constant(floats, [0.0] * LANES))
        step = builder.fadd(step, reduced("fadd", made.number, made.number(0.0), none))
    builder.store(step, scale, align=4)
