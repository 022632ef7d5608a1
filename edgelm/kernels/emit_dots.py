"""Products of 8-bit integers, as each kind of processor multiplies them (``edgelm/kernels/dots.py`` says what for).

A *run* is 32 numbers that share a scale. Weights are uint8 around 128, activations int8. Sums of a run are exact
whatever the processor; that of each row is added to the row's total in the order of the runs.

``vnni``: x86's ``vpdpbusd``, of uint8 and int8. ``madd``: ``pmaddubsw`` of x86, which sums two products of uint8 and
int8 as int16, and would saturate if weights were not made int8 and their signs given to the activations. ``sdot``: the
dot product of Armv8.2. ``smull``: what every 64-bit Arm has; two products of int8 fit an int16. ``plain``: LLVM's own,
for all else.
"""

from __future__ import annotations

from typing import Any

from edgelm.kernels.emit import LANES, Vectors

QUADS = 8
"""Groups of four numbers in a run."""
PAGE = 4096
"""Bytes."""


def kind_of(triple: str, features: str) -> tuple[str, int]:
    """How a processor multiplies integers, and bits of its vectors; ``features`` are LLVM's (``+avx2,-sse4a``)."""
    there = {name[1:] for name in features.split(",") if name.startswith("+")}
    if triple.startswith(("aarch64", "arm64")):
        return ("sdot" if "dotprod" in there else "smull"), 128
    if triple.startswith("x86_64"):
        if {"avx512vnni", "avx512vl", "avx512bw"} <= there:
            return "vnni", 512
        if "avxvnni" in there:
            return "vnni", 256
        if "avx2" in there:
            return "madd", 256
        if "sse4.1" in there:
            return "madd", 128
    return "plain", 128


class Strip(Vectors):
    """The code of ``dot_strips``: rows of weights, a lane each, times some tokens."""

    BYTES = 4 * LANES * QUADS
    """Of a run of 16 rows."""

    def __init__(self, context: Any, builder: Any, literals: Any, types: Any, values: Any) -> None:
        super().__init__(context, builder, types, 1)
        ir = self.ir
        self.n_strips, self.n_steps = literals
        q, scale, strip, self.n_runs, codes, scales, run0, out, o0, self.o_pitch = values
        features = getattr(context.codegen(), "_tm_features", "") or ""
        self.kind, bits = kind_of(builder.module.triple, features)
        self.lanes = bits // 32
        self.parts = LANES // self.lanes
        """Registers of sums of 16 rows."""
        self.byte, self.int16, self.int32 = ir.IntType(8), ir.IntType(16), ir.IntType(32)
        self.sums, self.floats = ir.VectorType(self.int32, self.lanes), self.vector(self.lanes)
        first = builder.mul(strip, self.n_runs)
        self.q = self.place(0, q, builder.mul(first, self.word(self.BYTES)))
        self.matrix_scale = self.place(1, scale, self.word(0))
        self.scale = self.place(1, scale, builder.mul(first, self.word(LANES)))
        self.codes = self.place(4, codes, builder.mul(run0, self.word(4 * QUADS)))
        self.scales = self.place(5, scales, builder.mul(run0, self.word(2)))
        self.out = self.place(7, out, o0)

    def at(self, pointer: Any, *numbers: Any) -> Any:
        """The address so many numbers further."""
        for number in numbers:
            pointer = self.builder.gep(pointer, [self.word(number) if isinstance(number, int) else number])
        return pointer

    def emit(self) -> None:
        builder, word, none = self.builder, self.word, self.ir.Constant(self.floats, None)
        rows = [self.at(self.out, builder.mul(self.o_pitch, word(t))) for t in range(self.n_steps)]
        n = self.n_strips * self.parts
        places = [self.at(row, part * self.lanes) for row in rows for part in range(n)]
        totals = self.loop(word(0), self.n_runs, word(1), [none] * len(places), self.run)
        for total, place in zip(self.finished(totals), places, strict=True):
            self.store(builder.fadd(self.load(place, self.lanes), total), place)

    def finished(self, totals: list[Any]) -> list[Any]:
        """What the totals are when all runs are through."""
        return totals

    def run(self, run: Any, totals: list[Any]) -> list[Any]:
        """The totals with one more run."""
        builder, word, found = self.builder, self.word, []
        steps = [builder.add(run, builder.mul(self.n_runs, word(t))) for t in range(self.n_steps)]
        strips = [builder.add(run, builder.mul(self.n_runs, word(s))) for s in range(self.n_strips)]
        q = [self.at(self.q, builder.mul(strip, word(self.BYTES))) for strip in strips]
        codes = [self.at(self.codes, builder.mul(step, word(4 * QUADS))) for step in steps]
        if len(strips) == len(steps) == 1:
            self.ask(q[0], strips[0])
        sums = getattr(self, "_" + self.kind)(q, codes)
        scales = [self.at(self.scale, builder.mul(strip, word(LANES))) for strip in strips]
        own = [self.load(self.at(scale, p * self.lanes), self.lanes) for scale in scales for p in range(self.parts)]
        for t, step in enumerate(steps):
            pair = self.at(self.scales, builder.mul(step, word(2)))
            scale, offset = (self.everywhere(builder.load(self.at(pair, i)), self.lanes) for i in (0, 1))
            for part, weights in enumerate(own):
                number = t * len(own) + part
                exact = builder.sitofp(sums[number], self.floats)
                if self.kind == "vnni":  # the others take off 128 before they multiply
                    exact = builder.fadd(exact, offset)
                found.append(self.multiply_add(exact, builder.fmul(weights, scale), totals[number]))
        return found

    def ask(self, q: Any, strip: Any) -> None:
        """Asks for the run that stands a page further: a processor that reads ahead by itself stops where a page
        ends."""
        for line in range(0, self.BYTES, 64):
            self.ahead(self.at(q, PAGE + line))
        self.ahead(self.at(self.scale, self.builder.mul(strip, self.word(LANES)), PAGE // self.BYTES * LANES))

    def intrinsic(self, name: str, result: Any, *takes: Any) -> Any:
        """A function of LLVM."""
        return self.builder.module.declare_intrinsic(name, fnty=self.ir.FunctionType(result, list(takes)))

    def bytes_at(self, pointer: Any, first: int, n: int) -> Any:
        """``n`` bytes from byte ``first`` on."""
        kind = self.ir.VectorType(self.byte, n)
        return self.builder.load(self.builder.bitcast(self.at(pointer, first), kind.as_pointer()), align=1)

    def quad(self, codes: Any, number: int) -> Any:
        """Four activations as one number of 32 bits."""
        return self.builder.load(self.builder.bitcast(self.at(codes, 4 * number), self.int32.as_pointer()), align=1)

    def _vnni(self, q: list[Any], codes: list[Any]) -> list[Any]:
        builder, kind = self.builder, self.sums
        dot = self.intrinsic(f"llvm.x86.avx512.vpdpbusd.{32 * self.lanes}", kind, kind, kind, kind)
        sums, width = [self.ir.Constant(kind, None)] * (len(codes) * len(q) * self.parts), 4 * self.lanes
        for g in range(QUADS):
            read = [self.bytes_at(strip, 64 * g + width * p, width) for strip in q for p in range(self.parts)]
            weights = [builder.bitcast(part, kind) for part in read]
            for t, x in enumerate(codes):
                x = self.everywhere(self.quad(x, g), self.lanes)
                for p, part in enumerate(weights, t * len(weights)):
                    sums[p] = builder.call(dot, [sums[p], part, x])
        return sums

    def _madd(self, q: list[Any], codes: list[Any]) -> list[Any]:
        builder, kind, width = self.builder, self.sums, 4 * self.lanes
        bytes_, pairs = self.ir.VectorType(self.byte, width), self.ir.VectorType(self.int16, 2 * self.lanes)
        names = ("avx2.psign.b", "avx2.pmadd.ub.sw", "avx2.pmadd.wd")
        if self.lanes == 4:
            names = ("ssse3.psign.b.128", "ssse3.pmadd.ub.sw.128", "sse2.pmadd.wd")
        kinds = ((bytes_, bytes_, bytes_), (pairs, bytes_, bytes_), (kind, pairs, pairs))
        with_sign, products, added = (
            self.intrinsic("llvm.x86." + name, *of) for name, of in zip(names, kinds, strict=True)
        )
        none, ones = self.ir.Constant(bytes_, None), self.ir.Constant(pairs, [1] * pairs.count)
        n = len(q) * self.parts
        sums = [self.ir.Constant(kind, None)] * (len(codes) * n)
        for g in range(QUADS):
            xs = [self.repeated_quad(x, g, self.lanes) for x in codes]
            for p in range(n):
                weights = self.signed(q[p // self.parts], 64 * g + width * (p % self.parts), width)
                # Of -128 it is 128, as uint8.
                size = builder.select(builder.icmp_signed("<", weights, none), builder.sub(none, weights), weights)
                for t, x in enumerate(xs):
                    # 2 x 128 x 127 is below 2^15.
                    both = builder.call(products, [size, builder.call(with_sign, [x, weights])])
                    number = t * n + p
                    sums[number] = builder.add(sums[number], builder.call(added, [both, ones]))
        return sums

    def repeated_quad(self, codes: Any, number: int, n: int) -> Any:
        """Four activations, ``n`` times over."""
        return self.builder.bitcast(self.everywhere(self.quad(codes, number), n), self.ir.VectorType(self.byte, 4 * n))

    def pairs_added(self, halves: list[Any]) -> list[Any]:
        """Sums of lanes that stand side by side, of two registers in one."""
        even, odd = (list(range(first, 2 * halves[0].type.count, 2)) for first in (0, 1))
        pairs = zip(halves[::2], halves[1::2], strict=True)
        return [self.builder.add(self.shuffle(a, b, even), self.shuffle(a, b, odd)) for a, b in pairs]

    def signed(self, q: Any, first: int, n: int) -> Any:
        """``n`` weights as int8."""
        weights = self.bytes_at(q, first, n)
        return self.builder.xor(weights, self.ir.Constant(weights.type, [-128] * n))

    def _sdot(self, q: list[Any], codes: list[Any]) -> list[Any]:
        builder, kind = self.builder, self.sums
        of_bytes = self.ir.VectorType(self.byte, 16)
        dot = self.intrinsic("llvm.aarch64.neon.sdot.v4i32.v16i8", kind, kind, of_bytes, of_bytes)
        n = len(q) * self.parts
        sums = [self.ir.Constant(kind, None)] * (len(codes) * n)
        # By one lane of a register of 16 activations.
        read = [[builder.bitcast(self.bytes_at(x, first, 16), kind) for first in (0, 16)] for x in codes]
        for g in range(QUADS):
            xs = [builder.bitcast(self.spread(x[g // 4], g % 4, 4), of_bytes) for x in read]
            for p in range(n):
                weights = self.signed(q[p // self.parts], 64 * g + 16 * (p % self.parts), 16)
                for t, x in enumerate(xs):
                    sums[t * n + p] = builder.call(dot, [sums[t * n + p], weights, x])
        return sums

    def _smull(self, q: list[Any], codes: list[Any]) -> list[Any]:
        builder, wide = self.builder, self.ir.VectorType(self.int16, 8)
        pairs = self.intrinsic("llvm.aarch64.neon.saddlp.v4i32.v8i16", self.sums, wide)
        n = len(q) * self.parts
        halves = [self.ir.Constant(self.sums, None)] * (len(codes) * 2 * n)
        for g in range(0, QUADS, 2):
            xs = [[builder.sext(self.repeated_quad(x, g + i, 2), wide) for i in (0, 1)] for x in codes]
            for p in range(n):
                strip, part = q[p // self.parts], 16 * (p % self.parts)
                weights = [self.signed(strip, 64 * (g + i) + part, 16) for i in (0, 1)]
                for half in (0, 1):
                    order = list(range(8 * half, 8 * half + 8))
                    own = [builder.sext(self.shuffle(w, w, order), wide) for w in weights]
                    for t, x in enumerate(xs):
                        # 2 x 128 x 127 is below 2^15.
                        both = builder.add(builder.mul(own[0], x[0]), builder.mul(own[1], x[1]))
                        number = (t * n + p) * 2 + half
                        halves[number] = builder.add(halves[number], builder.call(pairs, [both]))
        return self.pairs_added(halves)

    def _plain(self, q: list[Any], codes: list[Any]) -> list[Any]:
        builder, wide = self.builder, self.ir.VectorType(self.int32, 16)
        middle = self.ir.Constant(wide, [128] * 16)
        n = len(q) * self.parts
        sums = [self.ir.Constant(self.sums, None)] * (len(codes) * n)
        for g in range(QUADS):
            xs = [builder.sext(self.repeated_quad(x, g, 4), wide) for x in codes]
            for p in range(n):
                read = self.bytes_at(q[p // self.parts], 64 * g + 16 * (p % self.parts), 16)
                weights = builder.sub(builder.zext(read, wide), middle)
                for t, x in enumerate(xs):
                    number, products = t * n + p, builder.mul(weights, x)
                    for first in range(4):
                        part = self.shuffle(products, products, list(range(first, 16, 4)))
                        sums[number] = builder.add(sums[number], part)
        return sums


def emit_dot_strips(context: Any, builder: Any, literals: Any, types: Any, values: Any) -> None:
    """A loop over the runs with the totals in registers."""
    Strip(context, builder, literals, types, values).emit()
