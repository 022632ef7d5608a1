"""Products of a few rows with 32 lanes, in tiles as large as the registers of the machine (``panel.py`` says what for).

An operand is a tuple: an array, where it begins, and how far its rows or steps are apart. Rounding does not depend on
the tiles: each number is summed step by step, however many are summed at once.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from edgelm.kernels.emit import Vectors

WIDE = 32
"""Lanes of a panel."""


class Machine(NamedTuple):
    """What a tile may take.

    Attributes
    ----------
    rows, lanes : int
        Of the largest tile whose sums all stay in registers, beside what is multiplied.
    register : int
        Numbers of a register.
    by_lane : bool
        Whether it multiplies by a lane of a register, so that numbers for all lanes are best read four at a time;
        elsewhere one is best read where it stands.
    """

    rows: int
    lanes: int
    register: int
    by_lane: bool


def machine_of(triple: str, cpu: str, features: str) -> Machine:
    """That of a target of LLVM; ``features`` are like ``+avx2,-sse4a``, and need not say what ``cpu`` says."""
    if triple.startswith("aarch64"):
        return Machine(4, 16, 4, True)
    there = {name[1:] for name in features.split(",") if name.startswith("+")}
    if "avx512f" in there or cpu == "x86-64-v4":
        return Machine(8, 32, 16, False)
    return Machine(6, 16, 8, False) if "avx2" in there or cpu == "x86-64-v3" else Machine(4, 8, 4, False)


def _machine(context: Any, builder: Any) -> Machine:
    """That of the code that is being written."""
    codegen = context.codegen()
    cpu, features = (getattr(codegen, name, "") or "" for name in ("_cpu_name", "_tm_features"))
    return machine_of(builder.module.triple, cpu, features)


class _Panel(Vectors):
    """The code of ``panel``: the tuples opened, tiles, what becomes of their sums."""

    def __init__(self, context: Any, builder: Any, literals: Any, types: Any, values: Any) -> None:
        super().__init__(context, builder, [kind[0] for kind in types[:3]], 0)
        self.adds, self.across, self.named_a, self.named_c = literals
        self.machine = _machine(context, builder)
        (self.a, self.a_pitch), (self.b, self.b_step), (self.c, self.c_row), (self.names, _) = (
            self.operand(kind, value) for kind, value in zip(types[:4], values[:4], strict=True)
        )
        self.n_rows, self.steps = values[4:6]

    def operand(self, kind: Any, value: Any) -> tuple[Any, Any]:
        """Where a tuple's array begins, and its last part: a number, or where another array begins."""
        parts = [self.builder.extract_value(value, i) for i in range(len(kind))]
        arrays = {i: k for i, k in enumerate(kind) if hasattr(k, "dtype")}
        data = {i: self.context.make_array(k)(self.context, self.builder, parts[i]).data for i, k in arrays.items()}
        return self.builder.gep(data[0], [parts[1]]), self.builder.gep(data[2], [parts[3]]) if 2 in data else parts[-1]

    def named(self, position: Any) -> Any:
        """The number that the list of names holds at a position."""
        return self.builder.load(self.builder.gep(self.names, [position]))

    def emit(self) -> None:
        """All rows, a part of the lanes at a time."""
        self.loop(self.word(0), self.word(WIDE), self.word(self.machine.lanes), [], self.rows_of)

    def rows_of(self, lane: Any, nothing: list[Any]) -> None:
        """Groups of rows. Named rows are few, and so their last two tiles are of about one size; of others there are so
        many that a few sizes do, which are less to compile."""
        builder, most = self.builder, self.machine.rows
        named = self.named_c or (self.named_a and not self.across)
        sizes = [*range(1, most + 1)] if named else sorted({1, 2, 4, most})

        def size(first: Any) -> Any:
            self.size = chosen(first)
            return self.size

        def chosen(first: Any) -> Any:
            left = builder.sub(self.n_rows, first)
            if named:
                half = builder.lshr(builder.add(left, self.word(1)), self.word(1))
                few = builder.select(builder.icmp_signed(">", half, self.word(most)), self.word(most), half)
                return builder.select(builder.icmp_signed("<=", left, self.word(most)), left, few)
            found = self.word(1)
            for n in sizes[1:]:
                found = builder.select(builder.icmp_signed(">=", left, self.word(n)), self.word(n), found)
            return found

        def group(first: Any, nothing: list[Any]) -> None:
            joined = builder.append_basic_block("joined")
            cases = {n: builder.append_basic_block(f"rows{n}") for n in sizes}
            switch = builder.switch(self.size, cases[most])
            for n in sizes[:-1]:
                switch.add_case(self.word(n), cases[n])
            for n, case in cases.items():
                builder.position_at_end(case)
                self.tile(first, lane, n)
                builder.branch(joined)
            builder.position_at_end(joined)

        self.loop(self.word(0), self.n_rows, size, [], group)

    def tile(self, first: Any, lane: Any, rows: int) -> None:
        """Rows from ``first`` on, lanes from ``lane`` on."""
        builder = self.builder
        numbers = [builder.add(first, self.word(r)) for r in range(rows)]
        names = [self.named(n) for n in numbers] if self.named_c or (self.named_a and not self.across) else numbers
        placed = names if self.named_c else numbers
        targets = [builder.gep(self.c, [builder.add(builder.mul(self.c_row, n), lane)]) for n in placed]
        if self.across:
            sources = [builder.gep(self.a, [first])]
        else:
            sources = [
                builder.gep(self.a, [builder.mul(self.a_pitch, n)]) for n in (names if self.named_a else numbers)
            ]
        none = self.ir.Constant(self.vector(self.machine.lanes), None)
        sums = [self.load(c, self.machine.lanes) if self.adds else none for c in targets]
        strip = builder.gep(self.b, [lane])
        done = self.word(0)
        if self.machine.by_lane and (not self.across or rows == 4):
            done = builder.and_(self.steps, self.word(-4))
            sums = self.sum(self.word(0), done, 4, sums, sources, strip)
        sums = self.sum(done, self.steps, 1, sums, sources, strip)
        self.finish(targets, sums, numbers, lane)

    def sum(self, first: Any, last: Any, by: int, sums: list[Any], sources: list[Any], strip: Any) -> list[Any]:
        """The sums after the steps from ``first`` to before ``last``, maybe none, ``by`` at a time."""
        builder, lanes = self.builder, self.machine.lanes

        def step(k: Any, found: list[Any]) -> list[Any]:
            places = [builder.add(k, self.word(i)) for i in range(by)]
            for place, factors in zip(places, self.factors(k, places, sources, len(sums)), strict=True):
                row = self.load(builder.gep(strip, [builder.mul(place, self.b_step)]), lanes)
                found = [self.multiply_add(x, row, y) for x, y in zip(factors, found, strict=True)]
            return found

        return self.loop(first, last, self.word(by), sums, step)

    def factors(self, k: Any, places: list[Any], sources: list[Any], rows: int) -> list[list[Any]]:
        """What the lanes of the steps ``places`` from k on are multiplied by: for each step, of each row."""
        builder, lanes = self.builder, self.machine.lanes
        if self.across:
            steps = [self.named(place) if self.named_a else place for place in places]
            starts = [builder.gep(sources[0], [builder.mul(self.a_pitch, step)]) for step in steps]
            if len(places) == 4:
                return [[self.spread(step, r, lanes) for r in range(4)] for step in (self.load(s, 4) for s in starts)]
            numbers = [[builder.gep(start, [self.word(r)]) for r in range(rows)] for start in starts]
        elif len(places) == 4:
            found = [self.load(builder.gep(row, [k]), 4) for row in sources]
            return [[self.spread(row, i, lanes) for row in found] for i in range(4)]
        else:
            numbers = [[builder.gep(row, [place]) for row in sources] for place in places]
        return [[self.everywhere(builder.load(number), lanes) for number in step] for step in numbers]

    def finish(self, targets: list[Any], sums: list[Any], numbers: list[Any], lane: Any) -> None:
        """What becomes of the sums of a tile."""
        for target, total in zip(targets, sums, strict=True):
            self.store(total, target)


class _Pulled(_Panel):
    """The code of ``pulled``: what is summed is a gradient, and what is written are weights."""

    def __init__(self, context: Any, builder: Any, literals: Any, types: Any, values: Any) -> None:
        super().__init__(context, builder, (False, True, True, False), types, values)
        (self.of_integers,), self.byte = literals, self.ir.IntType(8)
        self.base, self.scale = self.operand(types[6], values[6])
        rate, pull = (
            context.cast(builder, builder.extract_value(values[7], i), kind, types[2][0].dtype)
            for i, kind in enumerate(types[7])
        )
        self.pull, self.down = (self.everywhere(x, self.machine.lanes) for x in (pull, self.builder.fneg(rate)))

    def finish(self, targets: list[Any], sums: list[Any], numbers: list[Any], lane: Any) -> None:
        """Each weight goes down its gradient and towards its base. Both kinds of base are rounded alike."""
        builder, lanes = self.builder, self.machine.lanes
        for target, gradient, row in zip(targets, sums, numbers, strict=True):
            place = builder.gep(self.base, [builder.add(builder.mul(row, self.c_row), lane)])
            if self.of_integers:
                bytes_ = self.ir.VectorType(self.byte, lanes)
                q = builder.load(builder.bitcast(place, bytes_.as_pointer()), align=1)
                centred = builder.fsub(
                    builder.uitofp(q, self.vector(lanes)), self.ir.Constant(self.vector(lanes), [128.0] * lanes)
                )
                run = builder.mul(row, builder.udiv(self.c_row, self.word(WIDE)))
                scale = builder.load(builder.gep(self.scale, [run]))
                base = builder.fmul(centred, self.everywhere(scale, lanes))
            else:
                base = self.load(place, lanes)
            weight = self.load(target, lanes)
            pulled = self.multiply_add(self.pull, builder.fsub(base, weight), weight)
            self.store(self.multiply_add(self.down, gradient, pulled), target)


class _Along(_Panel):
    """The code of ``along``: what is multiplied stands side by side, and so lanes are steps."""

    def __init__(self, context: Any, builder: Any, literals: Any, types: Any, values: Any) -> None:
        super().__init__(context, builder, (False, False, True, False), types, values)
        register = self.machine.register
        # As many sums as there are for other products; each is one register.
        rows = 4 if self.machine.rows != 6 else 2
        self.machine = Machine(rows, WIDE, register, False)

    def tile(self, first: Any, lane: Any, rows: int) -> None:
        """Rows from ``first`` on, with four rows of b."""
        builder, register = self.builder, self.machine.register
        numbers = [builder.add(first, self.word(r)) for r in range(rows)]
        sources = [builder.gep(self.a, [builder.mul(self.a_pitch, self.named(n))]) for n in numbers]
        others = self.along(self.b, self.b_step, 4)
        none = self.ir.Constant(self.vector(register), None)

        def step(k: Any, found: list[Any]) -> list[Any]:
            ours = [self.load(builder.gep(source, [k]), register) for source in sources]
            theirs = [self.load(builder.gep(other, [k]), register) for other in others]
            pairs = [(x, y) for x in ours for y in theirs]
            return [self.multiply_add(x, y, z) for (x, y), z in zip(pairs, found, strict=True)]

        totals = self.loop(self.word(0), self.steps, self.word(register), [none] * (4 * rows), step)
        for r, number in enumerate(numbers):
            four = self.folded(totals[4 * r : 4 * r + 4])
            self.store(four, builder.gep(self.c, [builder.mul(self.c_row, number)]))

    def folded(self, sums: list[Any]) -> Any:
        """The sums of the lanes of four vectors, as one of four numbers."""
        builder, n = self.builder, self.machine.register
        while n > 4:
            n //= 2
            halves = [[self.shuffle(x, x, [*range(i, i + n)]) for i in (0, n)] for x in sums]
            sums = [builder.fadd(low, high) for low, high in halves]
        w, x, y, z = sums
        wx = builder.fadd(self.shuffle(w, x, [0, 2, 4, 6]), self.shuffle(w, x, [1, 3, 5, 7]))
        yz = builder.fadd(self.shuffle(y, z, [0, 2, 4, 6]), self.shuffle(y, z, [1, 3, 5, 7]))
        return builder.fadd(self.shuffle(wx, yz, [0, 2, 4, 6]), self.shuffle(wx, yz, [1, 3, 5, 7]))


def emit_panel(context: Any, builder: Any, literals: Any, types: Any, values: Any) -> None:
    """All rows with all lanes."""
    _Panel(context, builder, literals, types, values).emit()


def emit_pulled(context: Any, builder: Any, literals: Any, types: Any, values: Any) -> None:
    """The gradient in registers, and a step of the weights there."""
    _Pulled(context, builder, literals, types, values).emit()


def emit_along(context: Any, builder: Any, literals: Any, types: Any, values: Any) -> None:
    """All rows with four others."""
    _Along(context, builder, literals, types, values).emit()


def emit_ahead(context: Any, builder: Any, literals: Any, types: Any, values: Any) -> None:
    """Asks for a line of memory, for the second cache."""
    made = Vectors(context, builder, types, 0)
    made.ahead(made.place(0, *values))
