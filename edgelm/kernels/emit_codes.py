"""Numbers of a run made 8-bit integers, as LLVM's vectors."""

from __future__ import annotations

from typing import Any

from edgelm.kernels.emit import LANES, _Vectors

STEPS, MIDDLE = 127.0, 128.5


def emit_code_run(context: Any, builder: Any, literals: Any, types: Any, values: Any) -> None:
    """The largest of 32 numbers, then all of them as its shares."""
    (signed,), (x, x0, smallest, codes, c0, out, o0) = literals, values
    made = _Vectors(context, builder, types, 0)
    ir, word = made.ir, made.word
    byte, whole = ir.IntType(8), ir.IntType(32)
    floats, wholes = made.vector(LANES), ir.VectorType(whole, LANES)
    number = made.number.intrinsic_name

    def intrinsic(name: str, result: Any, *takes: Any) -> Any:
        return builder.module.declare_intrinsic(name, fnty=ir.FunctionType(result, list(takes)))

    first = made.place(0, x, x0)
    parts = [made.load(builder.gep(first, [word(at)]), LANES) for at in (0, LANES)]
    size = intrinsic(f"llvm.fabs.v{LANES}{number}", floats, floats)
    larger = intrinsic(f"llvm.maxnum.v{LANES}{number}", floats, floats, floats)
    most = builder.call(larger, [builder.call(size, [part]) for part in parts])
    for half in (8, 4, 2, 1):
        order = [[*range(half)], [*range(half, 2 * half)]]
        low, high = (made.shuffle(most, most, lanes) for lanes in order)
        kind = made.vector(half)
        larger = intrinsic(f"llvm.maxnum.v{half}{number}", kind, kind, kind)
        most = builder.call(larger, [low, high])
    most = builder.extract_element(most, whole(0))
    step = builder.fdiv(most, made.number(STEPS))
    step = builder.select(builder.fcmp_ordered(">", step, smallest), step, smallest)
    per_step = made.everywhere(builder.fdiv(made.number(1.0), step), LANES)
    middle = ir.Constant(floats, [MIDDLE] * LANES)
    # Above 0, so that cutting off the fraction rounds.
    found = [builder.fptosi(builder.fadd(builder.fmul(part, per_step), middle), wholes) for part in parts]
    place = builder.gep(context.make_array(types[3])(context, builder, codes).data, [c0])
    for at, part in zip((0, LANES), found, strict=True):
        bytes_ = builder.trunc(part, ir.VectorType(byte, LANES))
        if signed:
            bytes_ = builder.xor(bytes_, ir.Constant(bytes_.type, [-128] * LANES))
        target = builder.bitcast(builder.gep(place, [word(at)]), bytes_.type.as_pointer())
        builder.store(bytes_, target, align=1)
    scale = made.place(5, out, o0)
    if signed:
        add = intrinsic(f"llvm.vector.reduce.add.v{LANES}i32", whole, wholes)
        total = builder.sub(builder.call(add, [builder.add(*found)]), whole(128 * 2 * LANES))
        offset = builder.fmul(builder.sitofp(total, made.number), made.number(-128.0))
        builder.store(offset, builder.gep(scale, [word(1)]), align=4)
        # 0 times what is not finite is no number.
        none = builder.fmul(builder.fadd(*parts), ir.Constant(floats, [0.0] * LANES))
        sums = intrinsic(f"llvm.vector.reduce.fadd.v{LANES}{number}", made.number, made.number, floats)
        step = builder.fadd(step, builder.call(sums, [made.number(0.0), none]))
    builder.store(step, scale, align=4)
