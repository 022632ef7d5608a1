"""What loops over arrays cannot say, as LLVM's vectors (``edgelm/kernels/tile.py`` says what for).

Each ``emit_...`` writes the code of the function of its name at the place of a call: ``literals`` are constants of the
source, ``values`` LLVM's values of the other arguments, ``types`` numba's types of these.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgelm.kernels.jit import instructions

LANES = 16


class Vectors:
    """A builder's loads, stores and constants, of numbers of the type that an array of ``types`` holds."""

    def __init__(self, context: Any, builder: Any, types: Any, array: int) -> None:
        ir = instructions()
        self.ir, self.context, self.builder, self.types = ir, context, builder, types
        self.number, self.word = context.get_value_type(types[array].dtype), ir.IntType(64)

    def vector(self, lanes: int) -> Any:
        return self.ir.VectorType(self.number, lanes)

    def place(self, array: int, value: Any, offset: Any) -> Any:
        """The address of number ``offset`` of an array."""
        data = self.context.make_array(self.types[array])(self.context, self.builder, value).data
        return self.builder.gep(data, [offset])

    def along(self, pointer: Any, pitch: Any, n: int) -> list[Any]:
        """``n`` addresses, ``pitch`` numbers apart."""
        return [self.builder.gep(pointer, [self.builder.mul(pitch, self.word(i))]) for i in range(n)]

    def load(self, pointer: Any, lanes: int) -> Any:
        # Nothing says that a part of an array begins where a vector would like it to.
        return self.builder.load(self.builder.bitcast(pointer, self.vector(lanes).as_pointer()), align=4)

    def store(self, value: Any, pointer: Any) -> None:
        self.builder.store(value, self.builder.bitcast(pointer, value.type.as_pointer()), align=4)

    def ahead(self, pointer: Any) -> None:
        """Asks for a line of memory, for the second cache, before it is used; it may lie beyond what is there."""
        word, address = self.ir.IntType(32), self.ir.IntType(8).as_pointer()
        kind = self.ir.FunctionType(self.ir.VoidType(), [address, word, word, word])
        prefetch = self.builder.module.declare_intrinsic("llvm.prefetch", [address], kind)
        self.builder.call(prefetch, [self.builder.bitcast(pointer, address), word(0), word(2), word(1)])

    def shuffle(self, x: Any, y: Any, order: list[int]) -> Any:
        """Lanes of two vectors in that order."""
        indices = self.ir.Constant(self.ir.VectorType(self.ir.IntType(32), len(order)), order)
        return self.builder.shuffle_vector(x, y, indices)

    def spread(self, x: Any, lane: int, lanes: int) -> Any:
        """One lane of a vector in all lanes."""
        return self.shuffle(x, self.ir.Constant(x.type, self.ir.Undefined), [lane] * lanes)

    def everywhere(self, number: Any, lanes: int) -> Any:
        """A number in all lanes."""
        undefined = self.ir.Constant(self.ir.VectorType(number.type, lanes), self.ir.Undefined)
        return self.spread(self.builder.insert_element(undefined, number, self.ir.IntType(32)(0)), 0, lanes)

    def loop(self, first: Any, last: Any, by: Any, values: list[Any], step: Callable[..., Any]) -> list[Any]:
        """The ``values`` after ``values = step(i, values)`` for i from ``first`` to before ``last``, maybe never.

        ``by``: what i grows by, or a function of i that gives it, which is asked before each step.
        """
        builder, before = self.builder, self.builder.block
        check, body, done = (builder.append_basic_block(name) for name in ("check", "body", "done"))
        builder.branch(check)
        builder.position_at_end(check)
        i, now = builder.phi(self.word), [builder.phi(value.type) for value in values]
        builder.cbranch(builder.icmp_signed("<", i, last), body, done)
        builder.position_at_end(body)
        distance = by(i) if callable(by) else by
        found = step(i, list(now)) or []
        following = builder.add(i, distance)
        for phi, start, value in zip([i, *now], [first, *values], [following, *found], strict=True):
            phi.add_incoming(start, before)
            phi.add_incoming(value, builder.block)
        builder.branch(check)
        builder.position_at_end(done)
        return now

    def multiply_add(self, a: Any, b: Any, c: Any) -> Any:
        """a b + c, rounded once where the machine can, twice where it cannot."""
        return self.builder.call(self.function("fmuladd", a.type, 3), [a, b, c])

    def function(self, name: str, vector: Any, n: int) -> Any:
        """An intrinsic of LLVM that takes ``n`` vectors and gives one."""
        suffix = f"v{vector.count}{self.number.intrinsic_name}"
        kind = self.ir.FunctionType(vector, [vector] * n)
        return self.builder.module.declare_intrinsic(f"llvm.{name}.{suffix}", fnty=kind)


class _Tile(Vectors):
    """The code of ``tile``."""

    def __init__(self, context: Any, builder: Any, literals: Any, types: Any, values: Any) -> None:
        super().__init__(context, builder, types, 0)
        self.rows, self.lanes, self.adds, self.across = literals
        a, a0, self.a_pitch, b, b0, self.b_step, c, c0, c_row, self.steps = values
        self.a, self.b = self.place(0, a, a0), self.place(3, b, b0)
        self.c_rows = self.along(self.place(6, c, c0), c_row, self.rows)
        # Arm multiplies by a lane of a register; elsewhere one number for all lanes is best read where it stands.
        self.by_lane = builder.module.triple.startswith("aarch64")

    def emit(self) -> None:
        none = self.ir.Constant(self.vector(self.lanes), None)
        sums = [self.load(row, self.lanes) if self.adds else none for row in self.c_rows]
        done = self.word(0)
        if self.by_lane:
            done = self.builder.and_(self.steps, self.word(-4))
            sums = self.sum(self.word(0), done, 4, sums)
        for row, value in zip(self.c_rows, self.sum(done, self.steps, 1, sums), strict=True):
            self.store(value, row)

    def sum(self, first: Any, last: Any, by: int, sums: list[Any]) -> list[Any]:
        """The sums after the steps from ``first`` to before ``last``, maybe none, ``by`` at a time."""
        builder = self.builder

        def step(k: Any, found: list[Any]) -> list[Any]:
            places = [builder.add(k, self.word(i)) for i in range(by)]
            for place, factors in zip(places, self.factors(k, places), strict=True):
                strip = self.load(builder.gep(self.b, [builder.mul(place, self.b_step)]), self.lanes)
                found = [self.multiply_add(x, strip, y) for x, y in zip(factors, found, strict=True)]
            return found

        return self.loop(first, last, self.word(by), sums, step)

    def factors(self, k: Any, places: list[Any]) -> list[list[Any]]:
        """What the lanes of the steps ``places`` from k on are multiplied by: for each step, of each row."""
        builder, rows = self.builder, range(self.rows)
        starts = [builder.gep(self.a, [builder.mul(self.a_pitch, place)]) for place in places]
        if self.by_lane and self.across and self.rows == 4:
            return [[self.spread(step, r, self.lanes) for r in rows] for step in (self.load(s, 4) for s in starts)]
        if self.by_lane and not self.across and len(places) == 4:
            found = [self.load(row, 4) for row in self.along(builder.gep(self.a, [k]), self.a_pitch, self.rows)]
            return [[self.spread(row, i, self.lanes) for row in found] for i in range(4)]
        if not self.across:
            starts = [builder.gep(self.a, [place]) for place in places]
        pitch = self.word(1) if self.across else self.a_pitch
        numbers = [self.along(start, pitch, self.rows) for start in starts]
        return [[self.everywhere(builder.load(number), self.lanes) for number in step] for step in numbers]


def emit_tile(context: Any, builder: Any, literals: Any, types: Any, values: Any) -> None:
    """A loop over the steps with the sums in registers."""
    _Tile(context, builder, literals, types, values).emit()


def emit_widen(context: Any, builder: Any, literals: Any, types: Any, values: Any) -> None:
    """uint8 to numbers."""
    (q, q0, scale, out, out0), made = values, Vectors(context, builder, types, 3)
    bytes_ = made.ir.VectorType(made.ir.IntType(8), LANES)
    place = builder.bitcast(made.place(0, q, q0), bytes_.as_pointer())
    numbers = builder.uitofp(builder.load(place, align=1), made.vector(LANES))
    centred = builder.fsub(numbers, made.ir.Constant(made.vector(LANES), [128.0] * LANES))
    made.store(builder.fmul(centred, made.everywhere(scale, LANES)), made.place(3, out, out0))


def emit_widen_group(context: Any, builder: Any, literals: Any, types: Any, values: Any) -> None:
    """uint8 of 16 rows, four of each side by side, to numbers in their rows."""
    (q, q0, scale, s0, out, out0, out_row), made = values, Vectors(context, builder, types, 4)
    read, scales = made.place(0, q, q0), made.place(2, scale, s0)
    rows = made.along(made.place(4, out, out0), out_row, LANES)
    bytes_ = made.ir.VectorType(made.ir.IntType(8), LANES)
    middle = made.ir.Constant(made.vector(LANES), [128.0] * LANES)
    for first in range(0, LANES, 4):
        place = builder.gep(read, [made.word(4 * first)])
        found = builder.load(builder.bitcast(place, bytes_.as_pointer()), align=1)
        own = made.load(builder.gep(scales, [made.word(first)]), 4)
        spread = made.shuffle(own, own, [lane for lane in range(4) for _ in range(4)])
        numbers = builder.fmul(builder.fsub(builder.uitofp(found, made.vector(LANES)), middle), spread)
        for lane in range(4):
            made.store(made.shuffle(numbers, numbers, [*range(4 * lane, 4 * lane + 4)]), rows[first + lane])


def emit_turn(context: Any, builder: Any, literals: Any, types: Any, values: Any) -> None:
    """Rows to columns, in registers."""
    (size,), (a, a0, a_row, out, out0, out_row) = literals, values
    made = Vectors(context, builder, types, 0)
    found = [made.load(row, size) for row in made.along(made.place(0, a, a0), a_row, size)]
    if size == 4:
        pairs = [made.shuffle(found[i], found[i + 1], order) for order in ([0, 4, 1, 5], [2, 6, 3, 7]) for i in (0, 2)]
        halves = [0, 1, 4, 5], [2, 3, 6, 7]
        found = [made.shuffle(pairs[i], pairs[i + 1], order) for i in (0, 2) for order in halves]
    for row, value in zip(made.along(made.place(3, out, out0), out_row, size), found, strict=True):
        made.store(value, row)
