"""The delta rule of one token as LLVM's vectors: columns of the memory in registers while its rows pass, twice."""

from __future__ import annotations

from typing import Any

from edgelm.kernels.emit import LANES, _Vectors
from edgelm.kernels.emit_dots import loop


def emit_delta(context: Any, builder: Any, literals: Any, types: Any, values: Any) -> None:
    """What is read of some columns, and what is written to them."""
    (columns,), (s, s0, n_rows, pitch, c, q0, k0, v0, gates) = literals, values
    made, lanes = _Vectors(context, builder, types, 0), min(columns, LANES)
    strips = columns // lanes
    word, kind = made.word, made.vector(lanes)
    rows, queries, keys = made.place(0, s, s0), made.place(4, c, q0), made.place(4, c, k0)
    starts = [word(i * lanes) for i in range(strips)]
    given = made.place(4, c, v0)
    keep, beta, q_k = (made.everywhere(builder.load(made.place(8, gates, word(i))), lanes) for i in range(3))
    multiply_add = builder.module.declare_intrinsic(
        f"llvm.fmuladd.v{lanes}{made.number.intrinsic_name}", fnty=made.ir.FunctionType(kind, [kind] * 3)
    )

    def times(a: Any, b: Any, plus: Any) -> Any:
        return builder.call(multiply_add, [a, b, plus])

    def row(r: Any) -> list[Any]:
        start = builder.gep(rows, [builder.mul(r, pitch)])
        return [builder.gep(start, [at]) for at in starts]

    def read(r: Any, sums: list[Any]) -> list[Any]:
        k, q = (made.everywhere(builder.load(builder.gep(x, [r])), lanes) for x in (keys, queries))
        strip = [made.load(place, lanes) for place in row(r)]
        return [times(k, x, y) for x, y in zip(strip, sums, strict=False)] + [
            times(q, x, y) for x, y in zip(strip, sums[strips:], strict=True)
        ]

    none = made.ir.Constant(kind, None)
    sums = loop(builder, word, word(0), n_rows, 1, [none] * (2 * strips), read)
    errors = []
    for at, by_key, by_query in zip(starts, sums, sums[strips:], strict=False):
        v = made.load(builder.gep(given, [at]), lanes)
        errors.append(builder.fmul(beta, builder.fsub(v, builder.fmul(keep, by_key))))
        made.store(times(q_k, errors[-1], builder.fmul(keep, by_query)), builder.gep(given, [at]))

    def write(r: Any, nothing: list[Any]) -> list[Any]:
        k = made.everywhere(builder.load(builder.gep(keys, [r])), lanes)
        for place, error in zip(row(r), errors, strict=True):
            made.store(times(k, error, builder.fmul(keep, made.load(place, lanes))), place)
        return nothing

    loop(builder, word, word(0), n_rows, 1, [], write)
