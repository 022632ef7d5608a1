"""Products of matrices of -1, 0 and 1 with 8-bit integers (``edgelm/kernels/dots.py`` says what for).

A weight is 2 bits around 2, four to a byte, and all weights share one scale. A register of bytes, shifted by 0, 2, 4
and 6 bits, is four registers of numbers from 1 to 3, which are multiplied as those of int8 are; what their middle adds
is taken off each run. Numbers so small do not saturate where uint8 times int8 is summed as int16, so that an x86
without ``vpdpbusd`` and an Arm without ``sdot`` sum all of a run that way.
"""

from __future__ import annotations

from typing import Any

from edgelm.kernels.emit import LANES, Vectors
from edgelm.kernels.emit_dots import QUADS, Strip

HALVES, PER_BYTE = 2, 4
"""Registers of 64 bytes in a run of 16 rows, and groups of four numbers in each."""


class _Ternary(Strip):
    """The code of ``ternary_strips``."""

    BYTES = 4 * LANES * HALVES
    """Of a run of 16 rows."""

    def run(self, run: Any, totals: list[Any]) -> list[Any]:
        """The totals, not yet scaled, with one more run."""
        builder, word, found = self.builder, self.word, []
        steps = [builder.add(run, builder.mul(self.n_runs, word(t))) for t in range(self.n_steps)]
        strips = [builder.add(run, builder.mul(self.n_runs, word(s))) for s in range(self.n_strips)]
        q = [self.at(self.q, builder.mul(strip, word(self.BYTES))) for strip in strips]
        codes = [self.at(self.codes, builder.mul(step, word(4 * QUADS))) for step in steps]
        sums = self.sums_of(q, codes)
        for t, step in enumerate(steps):
            pair = self.at(self.scales, builder.mul(step, word(2)))
            scale, offset = (builder.load(self.at(pair, i)) for i in (0, 1))
            # It is -128 times the sum of the codes, for weights around 128.
            offset = builder.fmul(offset, self.number(2 / 128))
            scale, offset = (self.everywhere(number, self.lanes) for number in (scale, offset))
            for number in range(t * len(sums) // len(steps), (t + 1) * len(sums) // len(steps)):
                exact = builder.fadd(builder.sitofp(sums[number], self.floats), offset)
                found.append(self.multiply_add(exact, scale, totals[number]))
        return found

    def finished(self, totals: list[Any]) -> list[Any]:
        """The totals in the scale of the matrix."""
        scale = self.everywhere(self.builder.load(self.matrix_scale), self.lanes)
        return [self.builder.fmul(total, scale) for total in totals]

    def sums_of(self, q: list[Any], codes: list[Any]) -> list[Any]:
        """Of a run of each token with each register of rows, int32: tokens first."""
        width = 4 * self.lanes
        found: list[list[Any]] = [[] for _ in codes]
        begin, add, end = (getattr(self, f"_{self.kind}_{part}") for part in ("begin", "add", "end"))
        xs = [[self.activations(x, g) for g in range(QUADS)] for x in codes]
        for strip in q:
            for part in range(self.parts):
                sums = [begin() for _ in codes]
                for g in range(QUADS):
                    if g % PER_BYTE == 0:
                        read = self.bytes_at(strip, 64 * (g // PER_BYTE) + width * part, width)
                    weights = self.numbers(read, 2 * (g % PER_BYTE))
                    sums = [add(s, weights, x[g]) for s, x in zip(sums, xs, strict=True)]
                for t, s in enumerate(sums):
                    found[t].append(end(s))
        return [s for of_token in found for s in of_token]

    def numbers(self, read: Any, shift: int) -> Any:
        """Two bits of each byte."""
        constant = [self.ir.Constant(read.type, [n] * read.type.count) for n in (shift, 3)]
        return self.builder.and_(self.builder.lshr(read, constant[0]) if shift else read, constant[1])

    def activations(self, codes: Any, number: int) -> Any:
        """Four activations, for as many rows as a register has lanes, as bytes."""
        return self.repeated_quad(codes, number, self.lanes)

    def zeros(self, kind: Any) -> Any:
        return self.ir.Constant(kind, None)

    def _vnni_begin(self) -> Any:
        return self.zeros(self.sums)

    def _vnni_add(self, sums: Any, weights: Any, x: Any) -> Any:
        kind = self.sums
        dot = self.intrinsic(f"llvm.x86.avx512.vpdpbusd.{32 * self.lanes}", kind, kind, kind, kind)
        return self.builder.call(dot, [sums, *(self.builder.bitcast(part, kind) for part in (weights, x))])

    def _vnni_end(self, sums: Any) -> Any:
        return sums

    def _madd_begin(self) -> Any:
        return self.zeros(self.ir.VectorType(self.int16, 2 * self.lanes))

    def _madd_add(self, sums: Any, weights: Any, x: Any) -> Any:
        name = "llvm.x86.avx2.pmadd.ub.sw" if self.lanes == 8 else "llvm.x86.ssse3.pmadd.ub.sw.128"
        madd = self.intrinsic(name, sums.type, weights.type, x.type)
        # 8 x 2 x 3 x 128 is below 2^15.
        return self.builder.add(sums, self.builder.call(madd, [weights, x]))

    def _madd_end(self, sums: Any) -> Any:
        name = "llvm.x86.avx2.pmadd.wd" if self.lanes == 8 else "llvm.x86.sse2.pmadd.wd"
        madd = self.intrinsic(name, self.sums, sums.type, sums.type)
        return self.builder.call(madd, [sums, self.ir.Constant(sums.type, [1] * sums.type.count)])

    def _sdot_begin(self) -> Any:
        return self.zeros(self.sums)

    def _sdot_add(self, sums: Any, weights: Any, x: Any) -> Any:
        dot = self.intrinsic("llvm.aarch64.neon.sdot.v4i32.v16i8", self.sums, self.sums, weights.type, x.type)
        return self.builder.call(dot, [sums, weights, x])

    def _sdot_end(self, sums: Any) -> Any:
        return sums

    def _smull_begin(self) -> Any:
        return [self.zeros(self.ir.VectorType(self.int16, 8))] * 2

    def _smull_add(self, sums: Any, weights: Any, x: Any) -> Any:
        builder, found = self.builder, []
        for first, part in zip((0, 8), sums, strict=True):
            order = list(range(first, first + 8))
            own, of_x = (builder.sext(self.shuffle(v, v, order), part.type) for v in (weights, x))
            # 8 x 3 x 128 is below 2^15.
            found.append(builder.add(part, builder.mul(own, of_x)))
        return found

    def _smull_end(self, sums: Any) -> Any:
        # Four times that, too.
        wide = sums[0].type
        pairs = self.intrinsic("llvm.aarch64.neon.saddlp.v4i32.v8i16", self.sums, wide)
        return self.builder.call(pairs, self.pairs_added(sums))

    def _plain_begin(self) -> Any:
        return self.zeros(self.sums)

    def _plain_add(self, sums: Any, weights: Any, x: Any) -> Any:
        builder, wide = self.builder, self.ir.VectorType(self.int32, 16)
        products = builder.mul(builder.zext(weights, wide), builder.sext(x, wide))
        for first in range(4):
            sums = builder.add(sums, self.shuffle(products, products, list(range(first, 16, 4))))
        return sums

    def _plain_end(self, sums: Any) -> Any:
        return sums


def emit_ternary_strips(context: Any, builder: Any, literals: Any, types: Any, values: Any) -> None:
    """A loop over the runs with the totals in registers."""
    _Ternary(context, builder, literals, types, values).emit()


def emit_widen_bits(context: Any, builder: Any, literals: Any, types: Any, values: Any) -> None:
    """A word of 2-bit numbers in each lane, shifted, times the scale."""
    q, q0, scale, out, out0 = values
    made = Vectors(context, builder, types, 3)
    ir = made.ir
    words = ir.VectorType(ir.IntType(32), LANES)
    place = builder.bitcast(made.place(0, q, q0), ir.IntType(32).as_pointer())
    word = made.everywhere(builder.load(place, align=1), LANES)
    shifts, mask, middle = (ir.Constant(words, n) for n in ([2 * i for i in range(LANES)], [3] * LANES, [2] * LANES))
    numbers = builder.sub(builder.and_(builder.lshr(word, shifts), mask), middle)
    floats = builder.sitofp(numbers, made.vector(LANES))
    made.store(builder.fmul(floats, made.everywhere(scale, LANES)), made.place(3, out, out0))
