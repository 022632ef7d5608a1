"""A step of RWKV-7's memory, and sums of rows of integers, as LLVM's vectors."""

from __future__ import annotations

from typing import Any

from edgelm.kernels.emit import LANES, Vectors

_RUN = 32
"""Numbers of a row of integers that share a scale."""


def emit_remember(context: Any, builder: Any, literals: Any, types: Any, values: Any) -> None:
    """Some columns of a memory in registers while its rows pass, twice."""
    (columns,), (s, s0, size, by_row, k0, v, v0, dots, y) = literals, values
    made, lanes = Vectors(context, builder, types, 0), min(columns, LANES)
    word, n = made.word, columns // lanes
    memory, out = made.place(0, s, s0), made.place(8, y, v0)
    starts = [word(i * lanes) for i in range(n)]
    arrays = [
        context.make_array(kind)(context, builder, builder.extract_value(by_row, i)) for i, kind in enumerate(types[3])
    ]
    r_keep, keep, keys, kk, removed = (builder.gep(array.data, [k0]) for array in arrays)

    def each(place: Any, i: Any) -> Any:
        """Number i of one of the arrays by rows, in all lanes."""
        return made.everywhere(builder.load(builder.gep(place, [i])), lanes)

    def row(i: Any) -> list[Any]:
        start = builder.gep(memory, [builder.mul(i, size)])
        return [builder.gep(start, [at]) for at in starts]

    def read(i: Any, sums: list[Any]) -> list[Any]:
        by_key, by_query, strip = each(kk, i), each(r_keep, i), [made.load(place, lanes) for place in row(i)]
        return [made.multiply_add(by_key, x, y) for x, y in zip(strip, sums, strict=False)] + [
            made.multiply_add(by_query, x, y) for x, y in zip(strip, sums[n:], strict=True)
        ]

    none = made.ir.Constant(made.vector(lanes), None)
    sums = made.loop(word(0), size, word(1), [none] * (2 * n), read)
    of_removed, of_written = (made.everywhere(builder.load(made.place(7, dots, word(i))), lanes) for i in (0, 1))
    gone, new = [builder.fneg(x) for x in sums[:n]], []
    for at, u, found in zip(starts, gone, sums[n:], strict=True):
        new.append(made.load(builder.gep(made.place(5, v, v0), [at]), lanes))
        found = made.multiply_add(of_removed, u, made.multiply_add(of_written, new[-1], found))
        made.store(found, builder.gep(out, [at]))

    def write(i: Any, nothing: list[Any]) -> None:
        kept, taken, given = each(keep, i), each(removed, i), each(keys, i)
        for place, u, x in zip(row(i), gone, new, strict=True):
            now = builder.fmul(kept, made.load(place, lanes))
            made.store(made.multiply_add(given, x, made.multiply_add(taken, u, now)), place)

    made.loop(word(0), size, word(1), [], write)


def emit_add_rows(context: Any, builder: Any, literals: Any, types: Any, values: Any) -> None:
    """Some rows side by side: what they are added to is read and written once for all of them."""
    (n_rows,), (q, scale, rows, first, a, a0, n_runs, out, out0) = literals, values
    made = Vectors(context, builder, types, 1)
    ir, word, number = made.ir, made.word, made.number
    bytes_ = ir.VectorType(ir.IntType(8), LANES)
    middle = ir.Constant(bytes_, [-128] * LANES)
    given = []
    for i in range(n_rows):
        row = builder.load(made.place(2, rows, builder.add(first, word(i))))
        factor = builder.load(builder.gep(made.place(4, a, a0), [row]))
        run = builder.mul(row, n_runs)
        given.append((made.place(0, q, builder.mul(run, word(_RUN))), made.place(1, scale, run), factor))
    target = made.place(7, out, out0)

    def step(run: Any, nothing: list[Any]) -> None:
        at = builder.mul(run, word(_RUN))
        halves = [builder.gep(target, [builder.add(at, word(half))]) for half in (0, LANES)]
        sums = [made.load(half, LANES) for half in halves]
        for numbers, scales, factor in given:
            own = builder.fmul(factor, builder.load(builder.gep(scales, [run]), align=4))
            own = made.everywhere(own, LANES)
            for half, found in enumerate(sums):
                place = builder.gep(numbers, [builder.add(at, word(half * LANES))])
                read = builder.load(builder.bitcast(place, bytes_.as_pointer()), align=1)
                values = builder.sitofp(builder.xor(read, middle), ir.VectorType(number, LANES))
                sums[half] = made.multiply_add(values, own, found)
        for half, found in zip(halves, sums, strict=True):
            made.store(found, half)

    made.loop(word(0), n_runs, word(1), [], step)
