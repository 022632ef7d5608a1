"""The delta rule of one token as LLVM's vectors: columns of the memory in registers while its rows pass, twice."""

from __future__ import annotations

from typing import Any

from edgelm.kernels.emit import LANES, Vectors


def emit_delta(context: Any, builder: Any, literals: Any, types: Any, values: Any) -> None:
    """What is read of some columns, and what is written to them."""
    (columns,), (s, s0, n_rows, pitch, c, q0, k0, v0, gates) = literals, values
    made, lanes = Vectors(context, builder, types, 0), min(columns, LANES)
    strips = columns // lanes
    word, kind = made.word, made.vector(lanes)
    rows, queries, keys = made.place(0, s, s0), made.place(4, c, q0), made.place(4, c, k0)
    starts = [word(i * lanes) for i in range(strips)]
    given = made.place(4, c, v0)
    keep, beta, q_k = (made.everywhere(builder.load(made.place(8, gates, word(i))), lanes) for i in range(3))

    def row(r: Any) -> list[Any]:
        start = builder.gep(rows, [builder.mul(r, pitch)])
        return [builder.gep(start, [at]) for at in starts]

    def read(r: Any, sums: list[Any]) -> list[Any]:
        k, q = (made.everywhere(builder.load(builder.gep(x, [r])), lanes) for x in (keys, queries))
        strip = [made.load(place, lanes) for place in row(r)]
        return [made.multiply_add(k, x, y) for x, y in zip(strip, sums, strict=False)] + [
            made.multiply_add(q, x, y) for x, y in zip(strip, sums[strips:], strict=True)
        ]

    none = made.ir.Constant(kind, None)
    sums = made.loop(word(0), n_rows, word(1), [none] * (2 * strips), read)
    errors = []
    for at, by_key, by_query in zip(starts, sums, sums[strips:], strict=False):
        v = made.load(builder.gep(given, [at]), lanes)
        errors.append(builder.fmul(beta, builder.fsub(v, builder.fmul(keep, by_key))))
        made.store(made.multiply_add(q_k, errors[-1], builder.fmul(keep, by_query)), builder.gep(given, [at]))

    def write(r: Any, nothing: list[Any]) -> None:
        k = made.everywhere(builder.load(builder.gep(keys, [r])), lanes)
        for place, error in zip(row(r), errors, strict=True):
            made.store(made.multiply_add(k, error, builder.fmul(keep, made.load(place, lanes))), place)

    made.loop(word(0), n_rows, word(1), [], write)
